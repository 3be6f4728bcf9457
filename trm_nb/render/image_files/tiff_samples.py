"""Samples of TIFFs that Pillow decodes, but does not open or reads in the wrong order; and the names of the others.

Pillow's table of TIFFs lacks most gray ones that are "white is zero", big-endian, or of 64-bit floats, although its
decoders know them; the entries are added here. A TIFF that is still not read is described in a sentence.
Cost: none to speak of; only tags are looked at.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from trm_nb.errors import RejectedError

_RAW = {  # (sample format, bits) -> mode, and raw modes in little- and big-endian files
    (1, 12): ("I;16", "I;12", "I;12"), (1, 16): ("I;16", "I;16", "I;16B"), (1, 32): ("I", "I;32N", "I;32B"),
    (2, 8): ("L", "L", "L"), (2, 16): ("I", "I;16S", "I;16BS"), (2, 32): ("I", "I;32S", "I;32BS"),
    (3, 16): ("I;16", "I;16", "I;16B"), (3, 32): ("F", "F;32F", "F;32BF"), (3, 64): ("F", "F;64F", "F;64BF"),
}  # fmt: skip
_NATIVE = {"I;32B": "I;32N", "I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS", "I;32BS": "I;32NS",
           "F;32F": "F;32NF", "F;32BF": "F;32NF", "F;64F": "F;64NF", "F;64BF": "F;64NF"}  # fmt: skip
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
_COLOURS = {0: "gray ", 1: "gray ", 2: "RGB ", 3: "palette ", 5: "CMYK ", 6: "YCbCr ", 8: "CIELAB "}
_RAW_PHOTOMETRIC = (32803, 34892)  # what the sensor saw, in a mosaic or not
_MOST_CHANNELS = 1000  # more are damage, or worse
_CONVERT = "save it as a PNG, or as a TIFF with 1 (gray) or 3 (RGB) channels of 8 or 16 bits"

for (_format, _bits), (_mode, _little, _big) in _RAW.items():
    for _white_is in (0, 1):
        for _prefix, _raw in ((b"II", _little), (b"MM", _big)):
            _key = (_prefix, _white_is, (_format,), 1, (_bits,), ())
            TiffImagePlugin.OPEN_INFO.setdefault(_key, (_mode, _raw))


def check_kind(image: Image.Image) -> None:
    """Raise RejectedError for a TIFF that is a camera's raw file, whose first image is a thumbnail."""
    if isinstance(image, TiffImageFile) and (raw := _camera_raw(image.tag_v2)):
        raise RejectedError(raw)


def seek(image: Image.Image, frame: int) -> None:
    """Go to a page or frame, also to the one where the image is.

    Raises RejectedError for a page of a TIFF that is not read, and whatever Pillow raises.
    """
    if isinstance(image, TiffImageFile):
        try:
            image.seek(frame)
        except SyntaxError:
            raise RejectedError(f"page {frame} is {_described(image.tag_v2)}") from None
        _correct_order(image)
    elif frame != image.tell():
        image.seek(frame)


def _correct_order(image: TiffImageFile) -> None:
    """Correct how the samples of a page will be decoded.

    libtiff hands out numbers in the machine's byte order, and Pillow expects the file's for all but 16-bit unsigned
    ones; planes of 16 bits a sample are taken for 8.
    """
    wide = 16 in (image.tag_v2.get(258) or ())
    order = {b"II": "L", b"MM": "B"}.get(image.tag_v2.prefix, "N")
    for number, tile in enumerate(image.tile):
        raw, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if tile.codec_name == "libtiff":
            raw = _NATIVE.get(raw, raw)
        elif wide and raw in ("R", "G", "B", "A"):
            raw = f"{raw};16{order}"
        image.tile[number] = tile._replace(args=(raw, *rest))


def unread(stream: BinaryIO) -> str | None:
    """What a TIFF that Pillow does not open is, and what to do; None for what is no TIFF, or damaged."""
    stream.seek(0)
    head = stream.read(8)
    try:
        tags = ImageFileDirectory_v2(head + (stream.read(8) if head[2] == 43 else b""))  # 43: BigTIFF
        stream.seek(tags.next)
        tags.load(stream)
        plausible = len(tags) and 1 <= _first(tags, 277, 1) <= _MOST_CHANNELS
        return (_camera_raw(tags) or _described(tags)) if plausible else None
    except Exception:  # whatever a damaged table raises
        return None


def _camera_raw(tags: ImageFileDirectory_v2) -> str | None:
    thumbnail_first = bool(_first(tags, 254, 0) & 1) and 330 in tags  # and the raw image behind it
    if 50706 in tags or thumbnail_first or _first(tags, 262, 0) in _RAW_PHOTOMETRIC or 50752 in tags:
        name = "a DNG" if 50706 in tags else "a camera's raw"
        return f"{name} file, of which at most a thumbnail can be read: develop it, and save it as JPEG, PNG or TIFF"
    return None


def _described(tags: ImageFileDirectory_v2) -> str:
    samples, bits, kind = _first(tags, 277, 1), _first(tags, 258, 1), _first(tags, 339, 1)
    colours = _COLOURS.get(_first(tags, 262, 0), "")
    compression = _first(tags, 259, 1)
    packed = "" if compression in TiffImagePlugin.COMPRESSION_INFO else f" under compression {compression}"
    what = f"{samples} {colours}channel{'s' * (samples != 1)} of {bits}-bit {_FORMATS.get(kind, 'samples')}{packed}"
    return f"a TIFF of {what}, which is not read: {_CONVERT}"


def _first(tags: ImageFileDirectory_v2, tag: int, default: int) -> int:
    value: Any = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default
