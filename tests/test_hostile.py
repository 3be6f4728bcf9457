"""Damaged and hostile files do no harm: no crash, no hang, no flood of memory, and each of them is accounted for."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from conftest import config_for
from damage import Named
from hostile import damaged_images, disguises, json_files, make_corpus, make_part, names, texts

from trm_nb.records import Item, Rejected
from trm_nb.render.renderer import RejectedError, Renderer
from trm_nb.sources.files import Skipped
from trm_nb.sources.reader import scan
from trm_nb.sources.roots import printable

MEMORY = 2 * 2**30  # of all processes together, resident; the corpus unpacked would take 50 times that
SECONDS = 1200


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    for part in (damaged_images, texts, json_files, names, disguises):
        assert list(part(random.Random(0))) == list(part(random.Random(0)))
    assert dict(damaged_images(random.Random(0))) != dict(damaged_images(random.Random(1)))


@pytest.mark.parametrize("part", [damaged_images, texts, names, disguises], ids=lambda part: part.__name__)
def test_each_file_becomes_images_or_a_reason(tmp_path: Path, part: Callable[[random.Random], Named]) -> None:
    made = list(make_part(tmp_path / "corpus", part))
    for name in made[2::3]:  # the slow test takes them all
        (tmp_path / "corpus" / name).unlink()
    left = {f"corpus/{printable(name)}" for name in {*made} - {*made[2::3]} if not hidden(name)}
    renderer = Renderer()
    for reading in scan(config_for(tmp_path / "corpus", tmp_path / "run")):
        entries = list(reading.entries)
        assert entries, reading.file.name
        for entry in entries:
            assert_usable_or_refused(renderer, entry)
        left.discard(reading.file.name)
    assert not left


def hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def assert_usable_or_refused(renderer: Renderer, entry: Item | Rejected | Skipped) -> None:
    if not isinstance(entry, Item):
        assert entry.reason and entry.reason.isprintable()
        return
    try:
        samples = renderer.samples(entry)
    except RejectedError as error:
        assert str(error)
        return
    _, failed = renderer.rasterise(samples[:3])
    assert all(failed.values())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The whole corpus, and the run that `trm-nb build` made of it within the limits."""
    folder = tmp_path_factory.mktemp("hostile")
    made = make_corpus(folder / "corpus")
    assert len(made) > 400
    values = {
        "source_paths": [str(folder / "corpus")], "output_dir": str(folder / "run"), "encoder": "tiny",
        "batch_size": 500, "start_threshold": 500, "workers": 2,
    }  # fmt: skip
    (folder / "params.yaml").write_text(json.dumps(values))
    code, peak, seconds = watched(folder, "build", str(folder / "params.yaml"))
    output = (folder / "output.txt").read_text(errors="replace")
    print(f"{len(made)} files: exit code {code}, {seconds:.0f} s, at most {peak / 2**30:.2f} GiB resident")
    assert code == 0, f"exit code {code} after {seconds:.0f} s and {peak / 2**30:.2f} GiB: {output[-3000:]}"
    assert "Traceback" not in output
    assert "\x1b" not in output
    yield folder, made


def watched(folder: Path, *arguments: str) -> tuple[int, int, float]:
    """Run trm-nb with its output in a file: exit code, peak resident bytes of all its processes, seconds.

    A run that takes more than MEMORY or SECONDS is killed, so that it harms nothing beside it: exit code -9.
    """
    with (folder / "output.txt").open("wb") as output:
        command = [sys.executable, "-m", "trm_nb.cli", *arguments]
        process = psutil.Popen(command, stdout=output, stderr=output, start_new_session=True)
    started, peak = time.monotonic(), 0
    while process.poll() is None:
        peak = max(peak, resident(process))
        if peak > MEMORY or time.monotonic() - started > SECONDS:
            for child in [*process.children(recursive=True), process]:
                child.kill()
        time.sleep(0.02)
    return process.wait(), peak, time.monotonic() - started


def resident(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


@pytest.mark.slow(minutes=1)
def test_each_file_is_accounted_for_and_the_build_repeats(built: tuple[Path, list[str]]) -> None:
    folder, made = built
    rows = pq.read_table(folder / "run" / "samples.parquet", columns=["item_id", "source"]).to_pydict()
    lines = [json.loads(line) for line in (folder / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert all(line["path"].isprintable() and line["reason"] and line["reason"].isprintable() for line in lines)
    assert all(source.startswith(str(folder / "corpus")) for source in rows["source"])
    used, refused = ({name.partition("#")[0] for name in named}
                     for named in (rows["item_id"], [line["path"] for line in lines]))  # fmt: skip
    assert not [name for name in made if f"corpus/{printable(name)}" not in used | refused and not hidden(name)]
    print(f"{len(made)} files: {len(used)} used, {len(refused)} refused whole or in part")
    digest = (folder / "run" / "dataset_info.json").read_bytes()
    for arguments in (["verify", str(folder / "run"), "--deep"], ["build", str(folder / "params.yaml")]):
        code, _, _ = watched(folder, *arguments)
        assert code == 0, (folder / "output.txt").read_text(errors="replace")[-3000:]
    assert (folder / "run" / "dataset_info.json").read_bytes() == digest
