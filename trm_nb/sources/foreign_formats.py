"""Names formats that are not read, so that a file is refused with what it is and with what to do about it.

A format is recognised by its first bytes alone. Those that are text (SVG, PostScript, HTML) are named only where an
image is expected: elsewhere they are texts like any other. A pointer that Git LFS or git-annex keeps in the place of a
file is never taken for the text that it is.
Cost: some comparisons of the first bytes.
"""

from __future__ import annotations

import re

from PIL import features

HEAD_BYTES = 4096  # enough to recognise every format

_CONVERT = "convert it to JPEG or PNG"
_EXPORT = "export it as JPEG, PNG or TIFF"
_DEVELOP = "develop it, and save it as JPEG, PNG or TIFF"
_DEEP = "convert it to a 16-bit PNG or TIFF"
_ARRAY = "save its images as PNG or TIFF files, or its rows as Parquet or JSON Lines"
_TABLE = "export it as Parquet, CSV or JSON Lines"
_UNPACK = "unpack it into a folder"
_FRAMES = "save its frames as images (for example `ffmpeg -i FILE frames/%06d.png`)"
_NO_SOUND = "only texts, images and grids are rendered"
_DOCUMENT = "save it as text, or its pages as PNG"
_OFFICE = "save it as text or CSV, or its pages as PNG"
_PDF = "put the file itself among the sources, or save its pages as images (`pdftoppm -png FILE page`)"
_JP2 = f"{_CONVERT} (for example `opj_decompress -i FILE -o image.png`)"
_JXL = f"{_CONVERT} (for example `djxl FILE image.png`)"
_SVG = f"{_CONVERT} (for example `rsvg-convert -o image.png FILE`)"
_EPS = f"{_CONVERT} (for example `gs -sDEVICE=png16m -o image.png FILE`)"

_CONTROL = re.compile(rb"[\0-\x08\x0e-\x19\x1c-\x1f]")  # bytes that no text has
_BINARY = (  # name, advice, where its first bytes are, and what they may be
    ("a JPEG 2000 image", _JP2, 0, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    ("a JPEG XL image", _JXL, 0, (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")),
    ("a JPEG XR image", _CONVERT, 0, (b"II\xbc",)),
    ("a Photoshop document", _EXPORT, 0, (b"8BPS",)),
    ("a GIMP image", _EXPORT, 0, (b"gimp xcf",)),
    ("an OpenEXR image", _DEEP, 0, (b"v/1\x01",)),
    ("an icon", _CONVERT, 0, (b"\0\0\1\0",)),
    ("a DirectDraw surface", _CONVERT, 0, (b"DDS ",)),
    ("a QOI image", _CONVERT, 0, (b"qoif",)),
    ("a DICOM image", f"{_DEEP} (for example with pydicom)", 128, (b"DICM",)),
    ("a NIfTI volume", "save its slices as PNG or TIFF (for example with nibabel)", 344, (b"n+1\0",)),
    ("a Zeiss CZI file", _EXPORT, 0, (b"ZISRAWFILE",)),
    ("a camera's raw file", _DEVELOP, 0, (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")),
    ("an IDX file, as those of MNIST", _ARRAY, 0, (b"\0\0\x08\x01", b"\0\0\x08\x03", b"\0\0\x08\x04")),
    ("a NumPy array", _ARRAY, 0, (b"\x93NUMPY",)),
    ("an HDF5 file", _ARRAY, 0, (b"\x89HDF\r\n\x1a\n",)),
    ("a NetCDF file", _ARRAY, 0, (b"CDF\1", b"CDF\2", b"CDF\5")),
    ("a MATLAB file", _ARRAY, 0, (b"MATLAB 5.0 MAT-file",)),
    ("a Python pickle", _ARRAY, 0, (b"\x80\x02", b"\x80\x03", b"\x80\x04\x95", b"\x80\x05\x95")),
    ("a Parquet file", "give it a name that ends in .parquet", 0, (b"PAR1",)),
    ("an Arrow file", _TABLE, 0, (b"ARROW1\0\0", b"\xff\xff\xff\xff", b"FEA1")),
    ("an ORC file", _TABLE, 0, (b"ORC",)),
    ("an Avro file", _TABLE, 0, (b"Obj\1",)),
    ("an LMDB database", _TABLE, 16, (b"\xde\xc0\xef\xbe",)),
    ("an SQLite database", _TABLE, 0, (b"SQLite format 3\0",)),
    ("an old Microsoft Office document", _OFFICE, 0, (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
    ("a DjVu document", _DOCUMENT, 0, (b"AT&TFORM",)),
    ("a tar archive", _UNPACK, 257, (b"ustar",)),
    ("a gzip file", "unpack it; only tables are read packed", 0, (b"\x1f\x8b",)),
    ("a Zstandard file", "unpack it; only tables are read packed", 0, (b"\x28\xb5\x2f\xfd",)),
    ("a bzip2 file", "unpack it", 0, (b"BZh",)),
    ("an xz file", "unpack it", 0, (b"\xfd7zXZ\0",)),
    ("a 7-Zip archive", _UNPACK, 0, (b"7z\xbc\xaf\x27\x1c",)),
    ("a RAR archive", _UNPACK, 0, (b"Rar!\x1a\x07",)),
    ("a sound", _NO_SOUND, 0, (b"ID3", b"OggS", b"fLaC")),
    ("a Matroska or WebM video", _FRAMES, 0, (b"\x1aE\xdf\xa3",)),
    ("an MPEG video", _FRAMES, 0, (b"\0\0\1\xba", b"\0\0\1\xb3")),
)
_READ_UNDER = {".gz": "a gzip file", ".zst": "a Zstandard file", ".parquet": "a Parquet file"}
_ZIPPED = (  # the names of a ZIP archive's first file, and of what kind the archive is then
    (re.compile(rb"\[Content_Types\]\.xml|_rels/|docProps/|word/|xl/|ppt/"), "a Microsoft Office document", _OFFICE),
    (re.compile(rb"mimetypeapplication/(epub|vnd\.oasis)"), "an EPUB or OpenDocument file", _DOCUMENT),
    (re.compile(rb"[^/]{1,100}\.npy"), "an archive of NumPy arrays", _ARRAY),
    (re.compile(rb"[^/]{1,100}/data\.pkl"), "a PyTorch file", _ARRAY),
)
_TEXTS = (
    (re.compile(rb"\s*<(svg|(\?xml|!--|!DOCTYPE svg).{0,4000}?<svg)[\s>]", re.S), "an SVG file", _SVG),
    (
        re.compile(rb"\s*<(!doctype html|html)[\s>]", re.I),
        "an HTML page",
        "the download failed, or needs a login",
    ),
    (re.compile(rb"\s*<\?xml"), "an XML file", "it may be an error message of a download; look into it"),
    (re.compile(rb"%!PS"), "a PostScript file", _EPS),
)
_IMAGES = (  # images whose first bytes are text
    (re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d+\s+(#[^\n]*\n\s*)*\d+\s"), "a Netpbm image", _CONVERT),
    (re.compile(rb"P[fF]\s+\d+\s+\d+\s"), "a PFM image", _DEEP),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), "a Radiance HDR image", _DEEP),
)
_SUFFIXES = {  # binary files that nothing else tells
    ".tga": ("a TGA image", _CONVERT), ".dcm": ("a DICOM image", f"{_DEEP} (for example with pydicom)"),
    ".tfrecord": ("a TFRecord file", _TABLE), ".tfrecords": ("a TFRecord file", _TABLE),
}  # fmt: skip
_TEXT_IMAGES = {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".hdr"}
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2", b"miaf"}
_READS_AVIF = bool(features.check("avif"))  # the wheels of Pillow do


def is_avif(head: bytes) -> bool:
    """Whether a file that begins with `head` is an AVIF image that can be read."""
    major, *others = _brands(head) or [b""]
    coded = major in _AVIF or (major in (b"mif1", b"msf1") and bool(_AVIF & set(others)))
    return _READS_AVIF and coded


def foreign(head: bytes, suffix: str = "") -> str | None:
    """What a file that begins with `head` is and what to do, where its format is not read; else None.

    `suffix` is its name's, in lower case: what is read under a suffix is not foreign there (a gzip file under .gz), and
    some formats that look like text are recognised by their suffix (a Netpbm image under .ppm).
    """
    if head.startswith((b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")):
        return "a Git LFS pointer in place of the file: run `git lfs pull` in the repository that it was cloned from"
    if re.match(rb"/annex/objects/\S+\s*\Z", head[:1000]):
        return "a git-annex pointer in place of the file: run `git annex get` in the repository"
    found = _container(head)
    if found is None and _CONTROL.search(head[:HEAD_BYTES]):
        found = next(((name, todo) for name, todo, at, starts in _BINARY if head.startswith(starts, at)), None)
        found = found or _SUFFIXES.get(suffix)
        if found is not None and _READ_UNDER.get(suffix) == found[0]:
            return None
    if found is None and (suffix in _TEXT_IMAGES or b"\0" in head):
        found = _text(head, _IMAGES)
    return None if found is None else f"{found[0]}, which is not read: {found[1]}"


def no_image(head: bytes, where: str = "") -> str:
    """What a file that should be an image is instead, and what to do; `where` follows "no image"."""
    if not head:
        return f"no image{where}: it is empty"
    if (other := foreign(head)) is not None:
        return other
    if (found := _text(head, _IMAGES + _TEXTS)) is not None:
        return f"{found[0]}, which is not read as an image: {found[1]}"
    return f"no image{where}: its first bytes are those of no known format"


def _brands(head: bytes) -> list[bytes]:
    """The brands of a file of the ISO base media format (AVIF, HEIC, MP4), the major one first; none for others."""
    if head[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(head[:4], "big"), 256, len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]


def _container(head: bytes) -> tuple[str, str] | None:
    """Formats that share a container with others, and formats whose first bytes cannot begin a text."""
    if (brands := set(_brands(head))) and not is_avif(head):
        if brands & _AVIF:
            return "an AVIF image", f"install a Pillow with AVIF, or {_CONVERT}"
        if b"crx " in brands:
            return "a Canon raw file (CR3)", _DEVELOP
        if brands & _HEIC:
            return "a HEIC image", f"{_CONVERT} (for example `heif-convert FILE image.jpg`)"
        return "an MP4 or QuickTime file", _FRAMES
    if head.startswith(b"PK\3\4"):
        return next(((n, todo) for start, n, todo in _ZIPPED if start.match(head, 30)), ("a ZIP archive", _UNPACK))
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
        return ("an AVI video", _FRAMES) if head[8:12] == b"AVI " else ("a sound", _NO_SOUND)
    if head.startswith(b"%PDF-"):
        return "a PDF document", _PDF  # in a table's column; a file of its own is read
    if head.startswith(b"SIMPLE  =                    T"):
        return "a FITS file", "save its images as TIFF (for example with astropy)"
    return None


def _text(head: bytes, kinds: tuple[tuple[re.Pattern[bytes], str, str], ...]) -> tuple[str, str] | None:
    return next(((name, todo) for start, name, todo in kinds if start.match(head[:HEAD_BYTES])), None)
