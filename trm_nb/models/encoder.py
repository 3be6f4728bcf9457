"""The base of encoders: what identifies one, and its checkpoints."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor, nn

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import (
    fingerprint_of,
    load_checkpoint,
    load_weights,
    read_weights,
    save_checkpoint,
    save_weights,
)

KIND = "vision encoder"  # of the checkpoints


class Encoder(nn.Module, ABC):
    """Images to capsules; a subclass is an encoder of the table in encoders.py.

    A subclass takes the same arguments, of which it may ignore those it has no use for, and defines `forward`.

    Args:
        preset: its name in the table.
        seed: of weights that are not trained, which follow from it alone.
        image_size: side of the images in pixels.
        weights: "trained" or "random"; None: trained where there are such.
    """

    about: ClassVar[str] = ""  # how it works, in a sentence or two of Markdown, for notebook 03

    def __init__(
        self,
        preset: str,
        *,
        seed: int = 0,
        image_size: int = 224,
        weights: Literal["trained", "random"] | None = None,  # of a subclass that has both
    ) -> None:
        super().__init__()
        self.preset, self.seed, self.image_size = preset, seed, image_size
        self.trained = False  # whether its weights were learned; kept in a checkpoint

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Encode images. The capsules of an image must not depend on the rest of the batch.

        Args:
            images: uint8 (b, image_size, image_size, 3).

        Returns:
            float32 (b, 12, 512).
        """

    def attention_maps(self, images: Tensor) -> Tensor | None:
        """What each capsule attends to.

        Args:
            images: uint8 (b, image_size, image_size, 3).

        Returns:
            float32 (b, 12, rows, columns), 0 to 1, each map summing to 1; None where that is not known.
        """
        return None

    @property
    def has_decoder(self) -> bool:
        """Whether `decode(capsules)` shows what capsules hold."""
        return False

    @property
    def weight_count(self) -> int:
        """How many numbers can be trained; 0 for a fixed transform."""
        return sum(weight.numel() for weight in self.parameters())

    def decode(self, capsules: Tensor | np.ndarray) -> list[Any]:
        """What capsules hold, to be looked at: notebook 03 and the explorer show it next to the image.

        Args:
            capsules: (b, 12, 512), as they are stored (float16) or as `forward` gives them (float32).

        Returns:
            b images, uint8 (image_size, image_size, 3). A subclass may take further arguments of its own.

        Raises:
            UserError: where there is no decoder.
        """
        raise UserError(f"the encoder {self.fingerprint} has no decoder")

    def architecture(self) -> dict[str, str | int | list[int]]:
        """What capsules depend on besides the weights: sizes, and a version that goes up with a change of `forward`.

        A checkpoint of another architecture is refused. A subclass adds to what `super().architecture()` returns.
        """
        return {"preset": self.preset}

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the architecture and the bytes of the weights as they are now."""
        return fingerprint_of(json.dumps(self.architecture(), sort_keys=True), self)

    def save(self, path: str | Path, **facts: str | int | float | bool) -> None:
        """Write a checkpoint.

        Args:
            path: of the file, which is safetensors if it ends so.
            facts: plain values worth keeping (what it was trained from, its score).
        """
        weights = {name: weight.detach().cpu() for name, weight in self.state_dict().items()}
        values = {**self.architecture(), "trained": self.trained, "facts": facts}
        if Path(path).suffix == ".safetensors":
            save_weights(path, KIND, weights, values)
        else:
            save_checkpoint(path, KIND, {**values, "weights": weights})

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", *, image_size: int = 224) -> Self:
        """Read a checkpoint written by `save`.

        Args:
            path: of the file.
            device: where to compute, as torch names it.
            image_size: side of the images in pixels.

        Returns:
            The encoder, ready to encode.

        Raises:
            UserError: when the file is no such checkpoint, or does not fit this version.
        """
        weights, values = read_encoder(path)
        try:
            encoder = cls(str(values.get("preset")), image_size=image_size, weights="random")
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        encoder._take(path, weights, values)
        return encoder.to(device)

    def _take(self, path: str | Path, weights: object, values: dict[str, Any]) -> None:
        for name, want in self.architecture().items():
            if values.get(name) != want:
                raise UserError(
                    f"{path}: {name}: expected {want!r}, got {values.get(name)!r}; it is of another version"
                )
        load_weights(self, weights, path)
        self.trained = self.weight_count > 0 and values.get("trained") is not False
        self.eval()


def read_encoder(path: str | Path) -> tuple[object, dict[str, Any]]:
    """The weights and the values of an encoder's checkpoint; raises UserError when it is none."""
    if Path(path).suffix == ".safetensors":
        return read_weights(path, KIND)
    values = load_checkpoint(path, KIND)
    return values.get("weights"), values
