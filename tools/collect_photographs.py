"""Collect the photographs that the shipped denoiser is trained on, from Debian's packages.

    python tools/collect_photographs.py WORK outputs/photographs

WORK keeps the packages (`apt-get download`, about 220 MB). Wallpapers that are rendered are left out; of one in several
sizes the largest is taken. GCompris, a program for children, holds its photographs in Qt's resource files. Each is
made 2 to 4 times smaller, which takes its noise and compression away and leaves colour at the full resolution, and
written as JPEG without subsampling of colour: 151 files, 18 MB. Prints the packages' versions; the licences (CC0,
CC-BY, CC-BY-SA, GPL, public domain) are in WORK/NAME/usr/share/doc/NAME/copyright.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MIN_SIDE = 400
SIDE, SHRINK = 1120, (2.0, 4.0)  # the longer side that is aimed at, and at least and at most so many times smaller
QUALITY = 92
PLASMA = (
    "Autumn BytheWater ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path Shell summer_1am"
)
LOMIRI = "_by_(?!Peter_Nerlich|Abhishek|Jasper|Aury88|_herobrine)"
PACKAGES = {  # -> which of its images are photographs
    "lomiri-wallpapers-16.04": LOMIRI,
    "lomiri-wallpapers-20.04": LOMIRI,
    "mate-backgrounds": "mate/nature",
    "plasma-workspace-wallpapers": f"/({PLASMA.replace(' ', '|')})/",
}
GCOMPRIS = ("details", "erase", "explore_farm_animals", "explore_monuments", "explore_world_animals")


def main() -> None:
    """Fill the second folder given, with the first as the place to work."""
    work, folder = (Path(name) for name in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for package, wanted in PACKAGES.items():
        for image in largest(unpack(work, package), wanted):
            name = re.sub(r"[^\w.]+", "_", str(image.relative_to(work / package / "usr/share")))
            write_reduced(image.read_bytes(), folder / f"{package}__{Path(name).stem}.jpg")
    resources = unpack(work, "gcompris-qt-data") / "usr/share/gcompris-qt/rcc"
    for activity in GCOMPRIS:
        for number, data in enumerate(photographs_in((resources / f"{activity}.rcc").read_bytes())):
            write_reduced(data, folder / f"gcompris__{activity}_{number:02d}.jpg")


def write_reduced(data: bytes, path: Path) -> None:
    """Write an encoded photograph 2 to 4 times smaller, as JPEG with colour at the full resolution."""
    with Image.open(io.BytesIO(data)) as image:
        photograph = image.convert("RGB")
    least, most = SHRINK
    shrink = max(least, min(most, max(photograph.size) / SIDE))
    width, height = (round(length / shrink) for length in photograph.size)
    reduced = photograph.resize((width, height), Image.Resampling.LANCZOS)
    reduced.save(path, quality=QUALITY, subsampling=0, optimize=True)


def unpack(work: Path, package: str) -> Path:
    """Download and unpack a Debian package under `work`."""
    work.mkdir(parents=True, exist_ok=True)
    if not list(work.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "download", "-q", package], cwd=work, check=True, stdout=subprocess.DEVNULL)
    (archive,) = work.glob(f"{package}_*.deb")
    print(archive.name)
    subprocess.run(["dpkg-deb", "-x", archive.name, package], cwd=work, check=True)
    return work / package


def largest(folder: Path, wanted: str) -> list[Path]:
    """The wanted images below a folder, of each only its largest form."""
    best: dict[str, tuple[int, Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()):
        with Image.open(path) as image:
            width, height = image.size
        plasma = path.parent.name.startswith("images")  # NAME/contents/images/WIDTHxHEIGHT.jpg
        name = str(path.parent if plasma else path.parent / re.sub(r"_\d+x\d+$", "", path.stem))
        if path.stem != "screenshot" and re.search(wanted, str(path)) and width * height > best.get(name, (0,))[0]:
            best[name] = (width * height, path)
    return [path for _, path in best.values()]


def photographs_in(resource: bytes) -> Iterator[bytes]:
    """The opaque WebP files in a Qt resource file that are large enough."""
    for found in re.finditer(b"RIFF(....)WEBP", resource, re.DOTALL):
        data = resource[found.start() : found.start() + 8 + int.from_bytes(found[1], "little")]
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "RGB" and min(image.size) >= MIN_SIDE:
                yield data


if __name__ == "__main__":
    main()
