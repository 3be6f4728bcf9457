"""Whatever happens to a run's files: `verify --deep` finds it, the reader raises, running again repairs it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from conftest import config_for, make_sources

from trm_nb.cache.image_cache import ImageCache
from trm_nb.cli.main import main
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.dataset.capsules import read_capsules
from trm_nb.errors import DamagedError, UserError
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.pipeline.builder import StreamingEncoderBuilder
from trm_nb.pipeline.maintenance import rebuild_tracker, reset
from trm_nb.pipeline.run import BuildReport, Run, build
from trm_nb.pipeline.verify import verify
from trm_nb.progress.tracker import TrainingProgressTracker

BUILD = """
import json, sys
from trm_nb import MultimodalDatasetConfig, build
build(MultimodalDatasetConfig(**json.loads(sys.argv[1])))
"""
IMAGES, LOOSE, CHUNKS = "images.zarr/images", "batches.zarr/capsules", "capsules.zarr/capsules"


@dataclass(frozen=True)
class Runs:
    """A finished run, and one that was killed with four loose batches; the digest of both when they are complete."""

    sources: Path
    whole: Path
    killed: Path
    report: BuildReport

    @property
    def digest(self) -> str:
        return self.report.content_digest

    def copy_of(self, which: str, folder: Path) -> MultimodalDatasetConfig:
        shutil.copytree(self.whole if which == "whole" else self.killed, folder / "run")
        return config_for(self.sources, folder / "run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("originals")
    sources = make_sources(folder)
    (sources / "code" / "bad.txt").write_bytes(b"\0")  # so that there is a line in quarantine.jsonl
    report = build(config_for(sources, folder / "whole" / "run"))
    killed = config_for(sources, folder / "killed" / "run")
    command = [sys.executable, "-c", BUILD, killed.model_dump_json()]
    subprocess.run(command, env={**os.environ, "TRM_NB_FAULT": "batch-recorded:5"}, check=False, capture_output=True)
    return Runs(sources, folder / "whole" / "run", folder / "killed" / "run", report)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _lose_inner_chunk(path: Path) -> None:
    """Mark the first inner chunk of a shard as missing, with a correct checksum of the index."""
    data = path.read_bytes()
    layout_chunks = 3 if "capsules" in path.parts[-5] else 1
    length = layout_chunks * 16 + 4
    index = struct.pack("<QQ", 2**64 - 1, 2**64 - 1) + data[-length + 16 : -4]
    path.write_bytes(data[:-length] + index + struct.pack("<I", google_crc32c.value(index)))


def _lose_receipt(path: Path) -> None:
    array = next(parent for parent in path.parents if parent.name in ("images", "capsules"))
    (array / "receipts" / f"{int(path.relative_to(array).parts[1]):08d}.json").unlink()


def _cut_receipt(path: Path) -> None:
    array = next(parent for parent in path.parents if parent.name in ("images", "capsules"))
    receipt = array / "receipts" / f"{int(path.relative_to(array).parts[1]):08d}.json"
    receipt.write_bytes(receipt.read_bytes()[:-20])


HARM: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,  # a receipt without a file
    "zero length": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "NUL-filled": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a flipped bit": _flip,
    "a lost inner chunk": _lose_inner_chunk,
    "a file without a receipt": _lose_receipt,
    "a cut receipt": _cut_receipt,
}
MATRIX = [
    (which, name, how)
    for which, name in (
        ("whole", f"{IMAGES}/c/1/0/0/0"),
        ("killed", f"{LOOSE}/c/4/0/0"),
        ("whole", f"{CHUNKS}/c/1/0/0"),
    )
    for how in HARM
    if not (name.startswith(LOOSE) and how == "a lost inner chunk")  # a batch is one chunk
]


def _read_all(config: MultimodalDatasetConfig, samples: Sequence[tuple[int, str]]) -> None:
    """Read every image and every capsule there is to be, as a user would."""
    output = Path(config.output_dir)
    cache = ImageCache(output / "images.zarr")
    try:
        cache.get_many([key for _, key in samples])
    finally:
        cache.close()
    read_capsules(output, [row for row, _ in samples])


@pytest.mark.parametrize(("which", "name", "how"), MATRIX, ids=lambda value: str(value).replace("/", " "))
def test_damage_is_found_raises_and_is_mended(runs: Runs, tmp_path: Path, which: str, name: str, how: str) -> None:
    config = runs.copy_of(which, tmp_path)
    output = Path(config.output_dir)
    tracker = TrainingProgressTracker(output)
    encoded = int(tracker.get_stats()["samples_encoded"])
    samples = [(row.row, row.key) for row in tracker.rows(0, encoded)]
    tracker.close()
    _read_all(config, samples)
    HARM[how](output / name)
    assert any(str(output / name) in s or "receipts" in s for s in verify(output, deep=True)), "it was not found"
    with pytest.raises((DamagedError, KeyError)):  # KeyError: an image that no receipt names is not there
        _read_all(config, samples)
    assert build(config).content_digest == runs.digest
    assert verify(output, deep=True) == []
    _read_all(config, samples)


TABLES = ["samples.parquet", "dataset_info.json", "quarantine.jsonl", "README.md", f"{CHUNKS}/zarr.json",
          "capsules.zarr/labels/c/0", "capsules.zarr/labels/zarr.json", f"{IMAGES}/zarr.json"]  # fmt: skip
CASES = [
    pytest.param(name, how, id=f"{name} {how}", marks=() if how == "truncated" else pytest.mark.slow)
    for name in TABLES
    for how in ("truncated", "missing", "a flipped bit")
]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_damaged_tables_and_metadata_are_found_and_written_again(
    runs: Runs, tmp_path: Path, name: str, how: str
) -> None:
    config = runs.copy_of("whole", tmp_path)
    path = Path(config.output_dir) / name
    before = path.read_bytes()
    HARM[how](path)
    found = verify(config.output_dir, deep=True)
    assert any(name.split("/zarr.json")[0] in sentence for sentence in found), found
    assert build(config).content_digest == runs.digest
    if name != "dataset_info.json":  # which names the folder, and this is a copy
        assert path.read_bytes() == before
    assert verify(config.output_dir, deep=True) == []


# -- the tracker -----------------------------------------------------------------------------------------------------

TRACKER: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "zero length": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "NUL in the middle": lambda path: path.write_bytes(
        path.read_bytes()[:4096] + bytes(8 * 4096) + path.read_bytes()[9 * 4096 :]
    ),
}


@pytest.mark.parametrize("how", TRACKER)
@pytest.mark.parametrize("which", ["whole", "killed"])
@pytest.mark.parametrize("mended_by", ["running again", "doctor --rebuild"])
def test_a_lost_tracker_is_made_again_from_the_receipts(
    runs: Runs, tmp_path: Path, how: str, which: str, mended_by: str
) -> None:
    config = runs.copy_of(which, tmp_path)
    output = Path(config.output_dir)
    before = TrainingProgressTracker(output)
    stats = before.get_stats()
    before.close()
    TRACKER[how](output / "progress.sqlite")
    found = verify(output, deep=True)
    assert (found and "progress.sqlite" in found[0]) or "not finished" in found[0]
    if how in ("deleted", "garbage"):
        with pytest.raises(DamagedError, match=r"doctor --rebuild DIR"):
            TrainingProgressTracker(output)
    if mended_by == "doctor --rebuild":
        after = rebuild_tracker(output)
        for name in ("rows_planned", "samples_cached", "batches_built", "samples_encoded", "consolidation"):
            if (which, name) != ("killed", "samples_cached"):  # what was rendered and not yet recorded is counted too
                assert after[name] == stats[name], name
        assert (verify(output, deep=True) == []) == (which == "whole")
    report = build(config)
    assert report.content_digest == runs.digest
    assert report.batches_encoded == runs.report.batches_encoded - stats["batches_built"], (
        "a batch that was durable was encoded again"
    )
    assert verify(output, deep=True) == []


def test_a_lost_tracker_still_refuses_other_settings(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    (Path(config.output_dir) / "progress.sqlite").unlink()
    with pytest.raises(UserError, match="micro_batch=64, not micro_batch=4"):
        build(config.with_changes(micro_batch=4))


def test_a_rebuild_that_cannot_be_says_why(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--rebuild", str(tmp_path / "none")]) == 2
    assert "no run here (no receipts)" in capsys.readouterr().err
    output = Path(runs.copy_of("whole", tmp_path).output_dir)
    assert main(["doctor", "--rebuild", str(output)]) == 0
    assert f"{runs.report.rows} samples planned" in capsys.readouterr().out
    (output / ".frozen.json").write_bytes(b"{")
    assert main(["doctor", "--rebuild", str(output)]) == 2
    assert "run `trm-nb build` with its params file again" in capsys.readouterr().err


def test_a_lost_tracker_and_a_cut_chunk_together_are_mended(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    (Path(config.output_dir) / "progress.sqlite").unlink()
    HARM["truncated"](Path(config.output_dir) / f"{CHUNKS}/c/1/0/0")
    assert build(config).content_digest == runs.digest


def test_damage_that_a_build_meets_is_mended_by_the_next(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("killed", tmp_path)
    for path in (Path(config.output_dir) / f"{IMAGES}/c").rglob("0"):
        if path.is_file():
            _flip(path)
    with pytest.raises(DamagedError, match="crc32c"):
        build(config)
    assert build(config).content_digest == runs.digest


def test_an_altered_index_is_read_again_from_the_receipts(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    index = Path(config.output_dir) / IMAGES / "receipts" / "index.sqlite"
    with sqlite3.connect(index) as database:
        database.execute("UPDATE slots SET slot = 9 - slot WHERE shard = 0")
    database.close()
    assert verify(config.output_dir, deep=True) == []
    run = Run(config)
    key = run.samples().at[0, "key"]
    original = ImageCache(runs.whole / "images.zarr")
    assert np.array_equal(run.cache.get(key), original.get(key))


# -- a cache cleared on purpose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_index", [True, False])
@pytest.mark.parametrize("tracker", ["kept", "lost"])
def test_a_cleared_cache_is_no_damage(runs: Runs, tmp_path: Path, keep_index: bool, tracker: str) -> None:
    config = runs.copy_of("whole", tmp_path)
    run = Run(config)
    images = len(run.cache)
    run.cache.clear(keep_index)
    assert (run.cache.stats()["images"], run.cache.stats()["cleared"]) == (0, images if keep_index else 0)
    run.close()
    assert verify(config.output_dir, deep=True) == []
    if tracker == "lost":
        (Path(config.output_dir) / "progress.sqlite").unlink()
    report = build(config)
    assert report.content_digest == runs.digest
    assert report.images_rendered == (images if (tracker, keep_index) == ("lost", False) else 0)


def test_a_cleared_cache_with_its_index_refills_only_what_is_needed(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("killed", tmp_path)
    run = Run(config)
    rendered, still_needed = len(run.cache), runs.report.rows - 50
    assert rendered > still_needed
    run.cache.clear(keep_index=True)
    run.close()
    report = build(config)
    assert (report.content_digest, report.images_rendered) == (runs.digest, still_needed)


# -- what a fresh reading found --------------------------------------------------------------------------------------


def test_a_lost_tracker_and_another_source_write_the_chunk_anew(runs: Runs, tmp_path: Path) -> None:
    """Some batches of the old chunk fit the new plan and some do not."""
    config = runs.copy_of("whole", tmp_path)
    sources = shutil.copytree(runs.sources, tmp_path / runs.sources.name)
    (sources / "tasks" / "task05b.json").write_text((sources / "tasks" / "task05.json").read_text())
    config = config.with_changes(source_paths=[str(sources)])
    (Path(config.output_dir) / "progress.sqlite").unlink()
    (Path(config.output_dir) / ".frozen.json").unlink()
    report = build(config)
    assert report.rows == runs.report.rows + 1
    assert 0 < report.batches_encoded < runs.report.batches_encoded
    assert verify(config.output_dir, deep=True) == []
    elsewhere = build(config.with_changes(output_dir=str(tmp_path / "elsewhere")))
    assert report.content_digest == elsewhere.content_digest


def test_an_index_that_is_damaged_behind_its_first_page_is_made_again(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    index = Path(config.output_dir) / IMAGES / "receipts" / "index.sqlite"
    data = index.read_bytes()
    index.write_bytes(data[:4096] + bytes(byte ^ 0x55 for byte in data[4096:]))
    assert verify(config.output_dir, deep=True) == []
    index.write_bytes(data[:4096] + bytes(byte ^ 0x55 for byte in data[4096:]))
    assert build(config).content_digest == runs.digest


def test_a_cache_that_lost_its_metadata_keeps_the_size_of_its_shards(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    reset(config.output_dir)
    (Path(config.output_dir) / IMAGES / "zarr.json").unlink()
    report = build(config.with_changes(batch_size=7, micro_batch=7))
    assert report.images_rendered == 0
    assert verify(config.output_dir, deep=True) == []


def test_reset_leaves_a_folder_that_can_be_used(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    rebuild_tracker(config.output_dir)
    (Path(config.output_dir) / "progress.sqlite").unlink()
    reset(config.output_dir, keep_cache=False)
    assert [path.name for path in Path(config.output_dir).iterdir() if not path.name.startswith(".lock")] == []
    assert build(config).content_digest == runs.digest


def test_a_rebuild_that_fails_puts_the_tracker_back(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    sources = shutil.copytree(runs.sources, tmp_path / runs.sources.name)
    held = TrainingProgressTracker(config.output_dir)
    held.set("mark", "mine")
    with held.transaction() as db:
        db.execute("UPDATE frozen SET value = ? WHERE field = 'source_paths'", (json.dumps([str(sources)]),))
    held.freeze("free", {})  # writes the copy
    held.close()
    for part in list(sources.iterdir()):
        shutil.rmtree(part)
    with pytest.raises(UserError, match="expected files in it"):
        rebuild_tracker(config.output_dir)
    assert TrainingProgressTracker(config.output_dir).get("mark") == "mine"
    shutil.rmtree(sources)
    with pytest.raises(UserError, match="this source is gone"):
        rebuild_tracker(config.output_dir)
    assert TrainingProgressTracker(config.output_dir).get("mark") == "mine"


def test_a_kill_while_the_tracker_is_made_again_costs_no_image(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    run = Run(config)
    run.cache.clear(keep_index=True)
    run.close()
    (Path(config.output_dir) / "progress.sqlite").unlink()
    command = [sys.executable, "-c", BUILD, config.model_dump_json()]
    subprocess.run(command, env={**os.environ, "TRM_NB_FAULT": "rows-planned"}, check=False, capture_output=True)
    report = build(config)
    assert (report.content_digest, report.images_rendered) == (runs.digest, 0)


def test_a_cleared_cache_is_not_filled_again_after_a_kill(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("killed", tmp_path)
    run = Run(config)
    run.cache.clear()
    run.close()
    command = [sys.executable, "-c", BUILD, config.model_dump_json()]
    subprocess.run(command, env={**os.environ, "TRM_NB_FAULT": "images-renamed"}, check=False, capture_output=True)
    report = build(config)
    assert (report.content_digest, report.images_rendered) == (runs.digest, runs.report.rows - 50)


def test_an_image_that_cannot_be_drawn_again_leaves_its_encoded_row_alone(runs: Runs, tmp_path: Path) -> None:
    output = Path(runs.copy_of("whole", tmp_path).output_dir)
    tracker = TrainingProgressTracker(output)
    row = tracker.rows(0, 1)[0]
    tracker.make_pending([row.key])
    tracker.resolve([], {row.key: "no memory"})
    assert tracker.rows(0, 1)[0].status == "ok"
    tracker.close()
    assert verify(output, deep=True) == []


def test_damaged_metadata_hides_no_damaged_shard(runs: Runs, tmp_path: Path) -> None:
    output = Path(runs.copy_of("whole", tmp_path).output_dir)
    (output / IMAGES / "zarr.json").write_bytes(b"{")
    _flip(output / f"{IMAGES}/c/2/0/0/0")
    found = verify(output, deep=True)
    assert len(found) == 2 and "c/2" in found[1]


def test_stream_build_gets_past_a_damaged_image(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(30)]

    def builder() -> StreamingEncoderBuilder:
        return StreamingEncoderBuilder(tmp_path / "run", 10, encoder=TRMVisionEncoder("tiny"), workers=0)

    builder().stream_build(samples=texts)
    (tmp_path / "run" / f"{CHUNKS}/c/0/0/0").unlink()  # so that the images are needed once more
    _flip(tmp_path / "run" / f"{IMAGES}/c/1/0/0/0")
    with pytest.raises(DamagedError, match="crc32c"):
        builder().stream_build(samples=texts)
    assert builder().stream_build(samples=texts).rows == 30


def test_what_verify_found_is_repaired_before_a_finished_run_is_used(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    _flip(Path(config.output_dir) / f"{CHUNKS}/c/1/0/0")
    assert len(verify(config.output_dir, deep=True)) == 1
    run = Run(config)
    run.complete()
    run.close()
    assert verify(config.output_dir, deep=True) == []


def test_clearing_a_cache_with_a_damaged_receipt_works(runs: Runs, tmp_path: Path) -> None:
    config = runs.copy_of("whole", tmp_path)
    HARM["a cut receipt"](Path(config.output_dir) / f"{IMAGES}/c/1/0/0/0")
    run = Run(config)
    run.cache.clear(keep_index=True)
    assert run.cache.stats()["images"] == 0
    run.close()
    assert build(config).content_digest == runs.digest


def test_an_altered_checkpoint_is_refused(tmp_path: Path) -> None:
    TRMVisionEncoder("tiny").save(tmp_path / "encoder.pt")
    assert TRMVisionEncoder.load(tmp_path / "encoder.pt").preset == "tiny"
    _flip(tmp_path / "encoder.pt")
    with pytest.raises(UserError, match=r"encoder\.pt: .*the checksum of .* is wrong"):
        TRMVisionEncoder.load(tmp_path / "encoder.pt")


# -- a dataset that cannot be written ----------------------------------------------------------------------------------

READ = """
import json, sys
from pathlib import Path
from trm_nb import CapsuleDataset, ImageCache, TrainingProgressTracker
from trm_nb.cli.main import main
from trm_nb.pipeline.run import open_run
whole, damaged = map(Path, sys.argv[1:])
try:
    (whole / "written").touch()
    sys.exit("it can be written")
except OSError:
    pass
codes = [main(arguments.split() + [str(whole)]) for arguments in ("verify", "verify --deep", "status", "cache stats")]
assert codes == [0, 0, 0, 0], codes
dataset, tracker, run = CapsuleDataset(whole), TrainingProgressTracker(whole), open_run(output_dir=whole)
keys = run.samples()["key"].tolist()
assert len(dataset) == dataset.all()[0].shape[0] == len(keys) == tracker.get_stats()["rows_planned"]
assert ImageCache(whole / "images.zarr").get_many(keys).shape == run.cache.get_many(keys).shape
assert main(["verify", "--deep", str(damaged)]) == 1
"""


def _leave_half_a_transaction(path: Path) -> None:
    """As a kill does: some of its pages are written, and the journal to undo them lies beside the file."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    with sqlite3.connect(copy, isolation_level=None) as database:
        database.execute("PRAGMA cache_size=1")
        database.execute("BEGIN")
        database.execute("UPDATE rows SET label = hex(zeroblob(3000))")
        shutil.copy(copy, path)
        shutil.copy(f"{copy}-journal", f"{path}-journal")
        database.execute("ROLLBACK")
    database.close()
    copy.unlink()


@pytest.fixture(params=["permissions", pytest.param("mounted", marks=pytest.mark.slow)])
def read_only(request: pytest.FixtureRequest, runs: Runs, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder with the whole run twice, in which nothing can be written, and what a command there has to begin with.

    root is bound by permissions only without the capability to override them.
    """
    folder, root = tmp_path / "read-only", os.name == "posix" and os.geteuid() == 0
    for name in ("whole", "damaged"):
        shutil.copytree(runs.whole, folder / name)
    _leave_half_a_transaction(folder / "whole" / "progress.sqlite")
    _flip(folder / "damaged" / f"{CHUNKS}/c/1/0/0")
    (folder / "damaged" / IMAGES / "receipts" / "index.sqlite").unlink()
    if request.param == "mounted":
        if not root:
            pytest.skip("mounting needs root")
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield folder, []
        subprocess.run(["umount", "--lazy", folder], check=True)
        return
    without = ["--bounding-set", "-dac_override", "--inh-caps", "-dac_override"]
    if root and not shutil.which("setpriv"):
        pytest.skip("permissions do not bind root, and there is no setpriv to give the privilege up")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder, ["setpriv", *without] if root else []
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_read_only_dataset_is_read_and_verified(read_only: tuple[Path, list[str]]) -> None:
    folder, prefix = read_only
    command = [*prefix, sys.executable, "-c", READ, folder / "whole", folder / "damaged"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CHUNKS}/c/1/0/0: its bytes are not those that were written" in done.stdout
    assert done.stdout.count("run again to repair") == 1
    assert "cannot be written, so the damage is not noted" in done.stderr
