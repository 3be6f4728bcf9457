"""Planning streams through a file: the same rows after a kill in the middle of it, and a refusal when it changed."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PHOTO

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.pipeline import plan
from trm_nb.pipeline.check import source_changes
from trm_nb.pipeline.plan import Planner
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import ImageBytes, Item
from trm_nb.render.renderer import Renderer
from trm_nb.sources.memory import as_items

RunPython = Callable[..., subprocess.CompletedProcess[str]]
ROWS, BLOCK = 350, 100
KILLED = """
import sys
from trm_nb.pipeline import plan
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.plan import Planner
from trm_nb.render.renderer import Renderer
from trm_nb.progress.tracker import TrainingProgressTracker
plan.BLOCK = 100
config = MultimodalDatasetConfig(source_paths=[sys.argv[1]], output_dir=sys.argv[2])
planner = Planner(TrainingProgressTracker(sys.argv[2], create=True), Renderer().samples)
print(sum(1 for _ in planner.from_sources(config)))
"""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "BLOCK", BLOCK)


def write_sources(folder: Path, bad: tuple[int, ...] = (7, 150, 340)) -> Path:
    """A text, a table with bad rows in the blocks 0, 1 and 3, an unusable file, and a table behind it."""
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("words")
    lines = ["no JSON" if n in bad else json.dumps({"text": f"row {n}"}) for n in range(ROWS)]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    (folder / "c.bin").write_bytes(b"\0")
    (folder / "d.csv").write_text("text\nlast\n")
    return folder


def config_for(sources: Path, **fields: Any) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig(source_paths=[str(sources)], output_dir="unused", **fields)


def planned(tracker: TrainingProgressTracker, config: MultimodalDatasetConfig) -> int:
    return sum(1 for _ in Planner(tracker, Renderer().samples).from_sources(config))


def state(tracker: TrainingProgressTracker) -> list[Any]:
    files = tracker.query("SELECT name, size, sha256, first_row, rows, items, left_out FROM files ORDER BY name")
    return [tracker.rows(), files, tracker.rejected(), tracker.get("plan_frozen")]


@pytest.mark.parametrize("fault", ["rows-planned:1", "rows-planned:2", "rows-planned:3", "rows-planned:4"])
def test_killed_in_the_middle_of_a_file_the_plan_comes_out_the_same(
    tmp_path: Path, run_python: RunPython, fault: str
) -> None:
    sources = write_sources(tmp_path / "sources")
    whole = TrainingProgressTracker(tmp_path / "whole", create=True)
    assert planned(whole, config_for(sources)) == ROWS - 3 + 2
    killed = run_python(KILLED, str(sources), str(tmp_path / "killed"), fault=fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    tracker = TrainingProgressTracker(tmp_path / "killed")
    recorded = tracker.rows_planned()
    assert recorded >= 90 * int(fault[-1]) or recorded == ROWS - 3 + 2
    assert (tracker.file(f"{sources.name}/b.jsonl.gz") is None) == (recorded < ROWS - 3), "recorded with its last row"
    assert planned(tracker, config_for(sources)) == ROWS - 3 + 2, "every sample is handed on again, none twice"
    assert state(tracker) == state(whole)
    assert planned(tracker, config_for(sources)) == ROWS - 3 + 2
    assert state(tracker) == state(whole), "a frozen plan with rows waiting is walked again and stays"


def test_a_file_that_changed_after_the_kill_is_refused(tmp_path: Path, run_python: RunPython) -> None:
    sources = write_sources(tmp_path / "sources")
    run_python(KILLED, str(sources), str(tmp_path / "run"), fault="rows-planned:2")
    tracker = TrainingProgressTracker(tmp_path / "run")
    write_sources(sources, bad=(8, 150, 340))
    with pytest.raises(UserError, match=r"row 8 was sources/b.jsonl.gz#8 and is now sources/b.jsonl.gz#7"):
        planned(tracker, config_for(sources))


def test_what_was_mended_behind_the_last_recorded_row_is_no_longer_quarantined(
    tmp_path: Path, run_python: RunPython
) -> None:
    sources = write_sources(tmp_path / "sources", bad=tuple(range(90, 110)))
    run_python(KILLED, str(sources), str(tmp_path / "run"), fault="rows-planned:1")
    tracker = TrainingProgressTracker(tmp_path / "run")
    before = [entry.path for entry in tracker.rejected()]
    assert before
    assert tracker.rows_planned() + len(before) == BLOCK - 1  # the text file is the last one of the block
    write_sources(sources, bad=())
    planned(tracker, config_for(sources))
    assert [entry.path for entry in tracker.rejected()] == ["sources/c.bin"]
    assert tracker.rows_planned() == ROWS + 2


def test_rows_are_handed_on_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources")
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    samples = Planner(tracker, Renderer().samples).from_sources(config_for(sources))
    next(samples)
    assert 90 < tracker.rows_planned() <= BLOCK


def test_images_held_in_memory_close_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "BLOCK_BYTES", 2 * PHOTO.stat().st_size)
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    items = (Item(f"p{n}", "image", ImageBytes(PHOTO.read_bytes())) for n in range(100))
    next(Planner(tracker, Renderer().samples).from_items(items))
    assert tracker.rows_planned() == 2


def test_limits_count_across_files_and_resume(tmp_path: Path, run_python: RunPython) -> None:
    sources = write_sources(tmp_path / "sources")
    config = config_for(sources, limit=200)
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    assert planned(tracker, config) == 200
    assert state(tracker)[1][1][4:6] == (199, 199)
    whole = state(tracker)
    assert planned(tracker, config) == 200
    assert state(tracker) == whole


def test_a_table_that_changed_is_named(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "sources")
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    planned(tracker, config_for(sources))
    source_changes(config_for(sources), tracker)
    write_sources(sources, bad=())
    with pytest.raises(UserError, match=r"sources/b.jsonl.gz changed; a run's plan is fixed"):
        source_changes(config_for(sources), tracker)


def test_items_in_memory_with_any_name_keep_their_quarantine(tmp_path: Path) -> None:
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    items = [Item("a#1", "image", ImageBytes(b"no image")), Item("b", "text", "words")]
    for _ in range(2):
        list(Planner(tracker, Renderer().samples).from_items(as_items(items)))
        assert [entry.path for entry in tracker.rejected()] == ["a#1"]
