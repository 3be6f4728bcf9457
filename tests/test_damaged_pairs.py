"""Two damaged files at once: the tracker or the copy of its settings, and any other file of a small finished run.

Either of the two is what the run would otherwise repair the other file from. A pair takes some 0.3 s.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import config_for
from test_state_machine import HARM, _make_sources

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.run import build
from trm_nb.pipeline.verify import verify

TRACKER, COPY, INDEX = "progress.sqlite", ".frozen.json", "images.zarr/images/receipts/index.sqlite"
FILES = (
    *(TRACKER, COPY, INDEX, "README.md", "dataset_info.json", "quarantine.jsonl", "samples.parquet"),
    *("capsules.zarr/zarr.json", "capsules.zarr/labels/zarr.json", "capsules.zarr/labels/c/0"),
    *("capsules.zarr/capsules/zarr.json", "capsules.zarr/capsules/c/0/0/0"),
    "capsules.zarr/capsules/receipts/00000000.json",
    *("images.zarr/zarr.json", "images.zarr/images/zarr.json"),
    *("images.zarr/images/c/0/0/0/0", "images.zarr/images/receipts/00000000.json"),
    *("images.zarr/images/c/1/0/0/0", "images.zarr/images/receipts/00000001.json"),
)
REMADE = (TRACKER, INDEX, "dataset_info.json", *(name for name in FILES if name.startswith("images.zarr/images/")))
BIT = "a flipped bit"  # SQLite keeps no checksums of values


def _cases() -> list[object]:
    """Each pair with each harm to the second file, and the harms to the first in turn; then three files at once."""
    first = {TRACKER: sorted({*HARM} - {BIT}), COPY: sorted(HARM)}
    cases = [
        ((one, first[one][n % len(first[one])]), (other, how))
        for one in (TRACKER, COPY)
        for other in FILES
        for n, how in enumerate(sorted(HARM))
        if other != one and (other, how) != (TRACKER, BIT)
    ]
    three = [
        ((TRACKER, "NUL-filled"), (COPY, "zero length"), (other, sorted(HARM)[n % len(HARM)]))
        for n, other in enumerate(FILES)
        if other not in (TRACKER, COPY)
    ]
    quick = [
        ((TRACKER, "missing"), ("images.zarr/images/receipts/00000001.json", BIT)),
        ((TRACKER, "truncated"), ("capsules.zarr/capsules/c/0/0/0", BIT)),
        ((COPY, "missing"), ("images.zarr/zarr.json", "zero length")),
        ((TRACKER, "NUL-filled"), (COPY, "zero length"), ("README.md", "missing")),
    ]
    slow = [
        pytest.param(case, id=_named(case), marks=pytest.mark.slow) for case in [*cases, *three] if case not in quick
    ]
    return [*(pytest.param(case, id=_named(case)) for case in quick), *slow]


def _named(case: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name.replace('/', ' ')} {how}" for name, how in case)


@dataclass(frozen=True)
class Whole:
    """A finished run of 22 samples: one chunk of two batches, two shards of images."""

    path: Path
    sources: Path
    digest: str

    def config(self, output: Path) -> MultimodalDatasetConfig:
        return config_for(self.sources, output, batch_size=16, batches_per_chunk=2, micro_batch=16, start_threshold=16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    made = Whole(folder / "run", _make_sources(folder / "sources"), "")
    return Whole(made.path, made.sources, build(made.config(made.path)).content_digest)


def test_all_files_of_the_run_are_damaged(whole: Whole) -> None:
    made = {path.relative_to(whole.path).as_posix() for path in whole.path.rglob("*") if path.is_file()}
    assert {name for name in made if not name.endswith(".lock")} == {*FILES}


@pytest.mark.parametrize("case", _cases())
def test_damage_in_several_files_is_found_and_repaired(
    whole: Whole, tmp_path: Path, case: tuple[tuple[str, str], ...]
) -> None:
    output = shutil.copytree(whole.path, tmp_path / "run")
    for name, how in case:
        data = HARM[how]((output / name).read_bytes())
        if data is None:
            (output / name).unlink()
        else:
            (output / name).write_bytes(data)
    found = verify(output, deep=True)
    harmful = {name for name, _ in case} - {INDEX}  # which is derived, and made again whenever it is looked at
    assert len(found) >= (1 if TRACKER in harmful else len(harmful)), (
        found
    )  # without the tracker nothing can be compared
    assert build(whole.config(output)).content_digest == whole.digest
    assert verify(output, deep=True) == []
    for name in {*FILES} - {*REMADE}:
        assert (output / name).read_bytes() == (whole.path / name).read_bytes(), name
