"""What a modality is: how items of one kind are recognised, laid out, rendered, hashed and, where possible, read back.

Choice: an entry of the table (modalities.py) is a class that is made once for each renderer, with its settings. Laying
out and rendering are two steps, because the plan needs the number of images and their keys long before a pixel is
rendered. Whatever decides a pixel is in a page's `identity` or in `fingerprint`.
Cost: none but the calls.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import Failure, RejectedError
from trm_nb.records import Item, StoredFile
from trm_nb.render.image_files.fit import Fit

Pages: TypeAlias = Sequence[tuple[int, Any]]  # where its image belongs, and a page's content
Begin: TypeAlias = Callable[[int], None]  # called with that number before content is decoded that may kill or hang


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """All that shapes pixels besides the content, as in MultimodalDatasetConfig (which says what each is)."""

    image_size: int = 224
    font_size: int = 12
    wrap: Literal["character", "word"] = "character"
    margin: int = 0
    highlight: bool = False
    foreground: str = "#000000"
    background: str = "#ffffff"
    fit: Fit = "letterbox"
    frames: Literal["all", "first"] = "all"

    @classmethod
    def of(cls, config: MultimodalDatasetConfig) -> RenderSettings:
        """The settings that a config gives."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One image of an item, laid out and not yet rendered.

    `content` is what `render` needs and travels to a worker process, so it is small and can be pickled. `identity` is
    all of it that decides pixels, and is hashed into the sample's key. `note` says what was not done as asked.
    """

    content: object
    identity: bytes
    note: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Of some pages: how many, the characters or cells on them, those that are not there, the characters that are shown
    by their number, in a box, because no font has them, and the items whose text was not UTF-8."""

    pages: int = 0
    rendered: int = 0
    lost: int = 0
    boxed: int = 0
    recoded: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


class Modality(ABC):
    """One kind of content. A subclass and its line in `modalities.MODALITIES` are all that a further one needs.

    Attributes:
        name: the modality of its items and samples, as samples.parquet and the config's `include_*` call it.
        payloads: the classes of its items' payloads.
        contents: the classes of its pages' contents; empty: those of the payloads.
        untrusted: whether `render` runs a decoder that hostile content may crash or hang. Such pages are announced one
            by one (`begin`), so that the one that killed or blocked a worker is known and quarantined.
        readable: whether `read_back` can say what is on an image, for the fidelity table of notebook 01.
    """

    name: ClassVar[str]
    payloads: ClassVar[tuple[type, ...]]
    contents: ClassVar[tuple[type, ...]] = ()
    untrusted: ClassVar[bool] = False
    readable: ClassVar[bool] = False

    def __init__(self, settings: RenderSettings) -> None:
        self.settings = settings

    @classmethod
    def recognises(cls, head: bytes) -> bool:
        """Whether a file that begins with `head` (4 KiB or more, unless it is shorter) is one item of this kind.

        Its payload is then `payloads[0](path, sha256)`, a StoredFile. False for what sources/ reads in its own way.
        """
        return False

    @classmethod
    def split_content(cls, payload: Any) -> Iterable[bytes]:
        """What decides the split: equal for payloads that must not be in two splits."""
        return [payload.sha256.encode()]

    @abstractmethod
    def fingerprint(self) -> Iterable[str]:
        """All that shapes the pixels besides the content and the image's size: settings, versions of decoders."""

    @abstractmethod
    def pages(self, item: Item) -> Sequence[Page]:
        """Lay an item out, in order and without decoding more than its headers.

        Raises:
            RejectedError: the item cannot be rendered; the message is the reason for the quarantine.
        """

    @abstractmethod
    def render(self, pages: Pages, images: np.ndarray, begin: Begin) -> dict[int, Failure]:
        """Render pages, in any process and with the same pixels everywhere.

        Args:
            pages: number and content of each page.
            images: uint8 (n, h, w, 3), zeros; the page of a number is written to `images[number]`.
            begin: to be called with the number of each page whose content is decoded; `one_by_one` does it.

        Returns:
            The number of each page that failed, with the reason.
        """

    def read_back(self, item: Item, images: np.ndarray, whole: bool) -> Found:
        """Compare what is read from an item's images, uint8 (n, h, w, 3), with the item.

        Not `whole`: the images are only the item's first.
        """
        raise NotImplementedError(f"images of {self.name!r} cannot be read back")


def one_by_one(
    render: Callable[[Any], np.ndarray], pages: Pages, images: np.ndarray, begin: Begin
) -> dict[int, Failure]:
    """`Modality.render` for a function that renders one page's content: uint8 (h, w, 3), or raises RejectedError."""
    failed: dict[int, Failure] = {}
    for number, content in pages:
        begin(number)
        try:
            images[number] = render(content)
        except RejectedError as error:
            failed[number] = error.failure
    return failed


class PlannedFiles:
    """Reads files whose bytes were planned; one that several pages follow from is read and checked once."""

    def __init__(self) -> None:
        self._file: tuple[Path, str] | None = None
        self._data = b""

    def read(self, file: StoredFile) -> bytes:
        """The file's bytes, the same object for the same file. Raises a retryable RejectedError."""
        if (file.path, file.sha256) != self._file:
            self._file, self._data = None, b""
            self._data = read_planned(file)
            self._file = file.path, file.sha256
        return self._data


def read_planned(file: StoredFile) -> bytes:
    """The bytes of a file, the very ones that were planned. Raises a retryable RejectedError."""
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise RejectedError(f"the file cannot be read: {error.strerror or error}", retryable=True) from None
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise RejectedError(
            f"the file changed after it was planned: sha256 {file.sha256[:16]}, now {found[:16]}", retryable=True
        )
    return data
