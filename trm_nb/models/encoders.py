"""The table of encoders: `config.encoder` is a name in it, and a checkpoint says by which name it is loaded.

An encoder is a subclass of `encoder.Encoder`. The table holds import paths, so that the names are known without
importing torch.
"""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError, refuse_unknown

if TYPE_CHECKING:
    from trm_nb.models.encoder import Encoder

# name -> "module:class"; a class may have several names
ENCODERS: dict[str, str] = {
    "base": "trm_nb.models.vision_encoder:TRMVisionEncoder",
    "tiny": "trm_nb.models.vision_encoder:TRMVisionEncoder",
}

# name -> what the weights that come with the package were trained on (assets/checkpoints/README.md)
TRAINED_ON: dict[str, str] = {
    "base": "text in 23 languages, source code in 14 languages, random characters, ARC-AGI-2 training tasks, random "
    "grids and crops of 114 photographs, but on nothing of the demo",
}


def encoder_class(name: object, where: str = "encoder") -> type[Encoder]:
    """The class of a name in ENCODERS; raises UserError that names `where` an unknown one is given."""
    refuse_unknown(where, name, ENCODERS)
    found: type[Encoder] = resolve_name(ENCODERS[str(name)])
    return found


def load_encoder(path: str | Path, device: str = "cpu", *, image_size: int = 224) -> Encoder:
    """Read a checkpoint of any encoder in the table.

    Args:
        path: written by the `save` of an encoder, safetensors or torch's format.
        device: where to put the encoder.
        image_size: side of the images to encode, in pixels.

    Raises:
        UserError: when there is no such file, or it is not an encoder's, or of an encoder that is not in the table.
    """
    from trm_nb.models.encoder import read_encoder

    found = encoder_class(read_encoder(path)[1].get("preset"), f"{path}: preset")
    return found.load(path, device, image_size=image_size)


def encoder_for(config: MultimodalDatasetConfig, fitted: Path) -> Encoder:
    """The encoder of a run, on the config's device.

    Args:
        config: says which.
        fitted: the encoder that was fitted to the run, used where the config asks for one and it is there.

    Raises:
        UserError: for a checkpoint that cannot be used, an unknown name, or a device that is not there.
    """
    path = fitted if config.fit_encoder and fitted.is_file() else config.encoder_path
    encoder = (
        load_encoder(path, image_size=config.image_size)
        if path
        else encoder_class(config.encoder)(
            config.encoder, seed=config.seed, image_size=config.image_size, weights=config.encoder_weights
        )
    )
    return on_device(encoder, config.device)


def on_device(encoder: Encoder, device: str) -> Encoder:
    """The encoder on a device; raises UserError where that cannot be used."""
    try:
        return encoder.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {device!r} cannot be used here: {reason}; `trm-nb doctor` lists them") from None
