"""tracker.py, tables.py, stats.py: counts are what the tables hold, settings are frozen, readers may come and go."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trm_nb.errors import DamagedError, UserError
from trm_nb.notebook.progress_view import ProgressView
from trm_nb.progress.planned import PlannedFile, PlannedRow
from trm_nb.progress.stats import NOTEBOOKS, TRAIN_STEPS
from trm_nb.progress.stats_text import state_text
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Receipt, Rejected
from trm_nb.storage.files import locked


def _rows(first: int, count: int, modality: str = "text") -> list[PlannedRow]:
    return [
        PlannedRow(i, f"s{i}", f"i{i // 2}", modality, "src", i % 2, 2, "a" if i % 3 else None, "train", f"{i:032x}")
        for i in range(first, first + count)
    ]


def _tracker(path: Path) -> TrainingProgressTracker:
    tracker = TrainingProgressTracker(path, create=True)
    tracker.freeze("encode", {"batch_size": 4, "batches_per_chunk": 2})
    tracker.add_rows(_rows(0, 10), [PlannedFile("f", 5, 6, "sha", 0, 10, 5, 1)], [Rejected("bad.txt", "no text")])
    return tracker


def test_stats_are_the_tables(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    tracker.resolve([f"{i:032x}" for i in range(8)], {f"{8:032x}": "it broke"})
    tracker.add_batch(Receipt("batch", 0, 4, 100, "x"), 1.5)
    tracker.add_batch(Receipt("batch", 1, 4, 100, "y"), 2.5)
    tracker.add_chunk(Receipt("chunk", 0, 8, 200, "z", parts=[Receipt("batch", i, 4, 100, "") for i in (0, 1)]))
    tracker.log_step(20, loss=0.5, chunk_progress=0.25)
    before = tracker.get_stats()
    assert (before["batches_total"], before["stages"]["encode"]["total"]) == (None, None), "the plan still grows"
    tracker.set("plan_frozen", True)
    stats = TrainingProgressTracker(tmp_path).get_stats()
    expected = {
        "rows_planned": 10, "samples_cached": 8, "samples_quarantined": 1, "items_quarantined": 1, "samples_encoded": 8,
        "batches_built": 2, "batches_total": 3, "global_step": 20, "chunk_progress": 0.25, "modalities": {"text": 10},
        "consolidation": {"total_batches_consolidated": 2, "chunks_built": 1, "chunks_total": 2},
        "quarantine_by_reason": {"it broke": 1, "no text": 1},
    }  # fmt: skip
    assert {name: stats[name] for name in expected} == expected
    assert stats["disk_usage_gb"] > 0
    assert tracker.batch_seconds() == [1.5, 2.5]


def test_a_failing_transaction_changes_nothing(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        tracker.add_rows([*_rows(10, 2), *_rows(0, 1)], [], [])
    assert tracker.rows_planned() == 10


def test_bound_fields_refuse_another_value_and_name_it(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    tracker.freeze("encode", {"batch_size": 4})
    with pytest.raises(UserError, match="made with batch_size=4, not batch_size=5"):
        tracker.freeze("encode", {"batch_size": 5})


@pytest.mark.parametrize(
    ("stages", "state"),
    [
        ([], "stopped"),
        ([("render", "running")], "running render"),
        ([("render", "done"), ("encode", "failed")], "failed"),
        ([("render", "done"), ("consolidate", "done")], "done"),
    ],
)
def test_state(tmp_path: Path, stages: list[tuple[str, str]], state: str) -> None:
    tracker = _tracker(tmp_path)
    for name, status in stages:
        tracker.begin(name)
        {
            "running": tracker.beat,
            "done": lambda n=name: tracker.finish(n),
            "failed": lambda n=name: tracker.fail(n, "x"),
        }[status]()
    assert tracker.get_stats()["state"] == state


FOUR = {"01_render": "done", "04_consolidate": "done", "05_inspect": None, "06_train": None}


@pytest.mark.parametrize(
    ("asked", "notebooks", "trained", "model", "state", "text"),
    [
        pytest.param(0, {}, 0, False, "done", "done", id="no-training-asked-for"),
        pytest.param(9, {}, 0, False, "stopped", "dataset complete; training pending", id="not-trained-yet"),
        pytest.param(9, {}, 9, True, "done", "done", id="trained"),
        pytest.param(9, {}, 9, False, "stopped", "dataset complete; training pending", id="model-removed"),
        pytest.param(12, {}, 9, True, "stopped", "dataset complete; training pending", id="more-steps-asked-for"),
        pytest.param(
            0, FOUR, 0, False, "stopped", "dataset complete; stopped after 04_consolidate", id="run-to-04-no-training"
        ),
        pytest.param(
            9, FOUR, 0, False, "stopped", "dataset complete; stopped after 04_consolidate; training pending",
            id="run-to-04",
        ),
        pytest.param(9, {"06_train": "done"}, 0, False, "done", "done", id="nothing-to-learn-from"),
        pytest.param(9, {"06_train": "done"}, 9, False, "stopped", "dataset complete; training pending", id="retrain"),
        pytest.param(0, {"05_inspect": "failed"}, 0, False, "failed", "failed in 05_inspect", id="a-notebook-failed"),
        pytest.param(0, {"05_inspect": "interrupted"}, 0, False, "stopped", "stopped: interrupted", id="interrupted"),
        pytest.param(0, {"05_inspect": "running"}, 0, False, "stopped", "stopped: interrupted", id="runner-is-gone"),
    ],
)  # fmt: skip
def test_a_complete_dataset_is_done_when_nothing_is_pending(
    tmp_path: Path, asked: int, notebooks: dict[str, str | None], trained: int, model: bool, state: str, text: str
) -> None:
    tracker = _tracker(tmp_path)
    tracker.ask(TRAIN_STEPS, asked)
    tracker.ask(NOTEBOOKS, list(notebooks))
    for name, status in notebooks.items():
        tracker.set(f"notebook:{name}", status and {"status": status})
    for stage in ("render", "encode", "consolidate"):
        tracker.already_done(stage)
    if trained:
        tracker.log_step(trained)
        tracker.already_done("train")
    if model:
        for path in tracker.paths.model("main").results:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    stats = tracker.get_stats()
    assert (stats["state"], state_text(stats)) == (state, text)
    if state != "done":
        with locked(tmp_path / "notebooks", "trm-nb run"):  # which is between two stages, or at another notebook
            assert tracker.get_stats()["state"] == "running"


def test_a_killed_process_is_gone_at_once(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from trm_nb.storage.files import locked\n"
        "from trm_nb.progress.tracker import TrainingProgressTracker as T\n"
        "with locked(Path(sys.argv[1]), 'building'):\n    T(sys.argv[1]).begin('encode')\n    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    assert killed.wait() == -9
    stats, name = tracker.get_stats(), f"process {killed.pid} (building)"
    assert (stats["state"], stats["gone"], stats["stages"]["encode"]["status"]) == ("stopped", name, "stopped")
    assert ProgressView(tracker).snapshot().text.startswith(f"stopped: {name} is gone, 10 samples planned so far; run")
    assert ProgressView(tracker).watch(timeout=60) == "stopped"
    with locked(tmp_path, "verifying"):  # whoever has the lock next records it
        tracker.end_stages_of_the_dead()
    assert tracker.get_stats()["state"] == "stopped"
    assert tracker.stage_status("encode") == "stopped"


def test_a_silent_run_is_stalled(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    tracker.begin("encode")
    tracker.set("heartbeat", tracker.get("heartbeat") - 1000)
    assert tracker.get_stats()["state"] == "stalled"


def test_no_run_and_no_tracker_are_by_noise_group(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        TrainingProgressTracker(tmp_path)
    (tmp_path / "progress.sqlite").write_bytes(b"garbage that is no database at all, but longer than a header" * 20)
    with pytest.raises(DamagedError, match=r"progress\.sqlite: damaged .* made anew from the receipts"):
        TrainingProgressTracker(tmp_path)


def test_readers_see_whole_states_while_a_writer_works(tmp_path: Path) -> None:
    tracker, seen = _tracker(tmp_path), []
    reader = TrainingProgressTracker(tmp_path)

    def write() -> None:
        for step in range(30):
            with tracker.transaction():
                tracker.log_step(2 * step)
                tracker.log_step(2 * step + 1)

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        seen.append(len(reader.training_curve()))
    thread.join()
    assert all(count % 2 == 0 for count in seen)
    assert len(reader.training_curve()) == 60


def test_steps_beyond_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    tracker = _tracker(tmp_path)
    for step in (10, 20, 30):
        tracker.log_step(step, loss=1 / step)
    tracker.forget_steps(after=20)
    assert [metrics["global_step"] for metrics in tracker.training_curve()] == [10, 20]
