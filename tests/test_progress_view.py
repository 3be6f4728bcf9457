"""ProgressView on real trackers, and in one real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from trm_nb.notebook.progress_view import ProgressView, _Widgets
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.stats import STALLED_SECONDS, TRAIN_STEPS
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Receipt, Rejected


@pytest.fixture
def tracker(tmp_path: Path) -> Any:
    made = TrainingProgressTracker(tmp_path / "run", create=True)
    yield made
    made.close()


def planned(tracker: TrainingProgressTracker, count: int = 4) -> None:
    rows = [PlannedRow(n, f"s{n}", f"s{n}", "text", "f.txt", 0, 1, None, "train", f"{n:032x}") for n in range(count)]
    tracker.add_rows(rows, [], [Rejected("<img src=x onerror=alert(1)>", "not <b>a</b> image\nat all")])
    tracker.set("plan_frozen", True)
    tracker.set("batch_size", 2)
    tracker.set("batches_per_chunk", 2)


def line(view: ProgressView, stage: str) -> str:
    return next(line for line in view.snapshot().text.splitlines() if line.startswith(stage))


def test_a_new_run_says_so(tracker: TrainingProgressTracker) -> None:
    view = ProgressView(tracker)
    assert view.snapshot().text.startswith("new: 0 samples planned so far")
    assert "waiting" in line(view, "render")
    assert set(view._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_what_it_says_is_what_the_tracker_holds(tracker: TrainingProgressTracker) -> None:
    planned(tracker)
    view = ProgressView(tracker)
    tracker.begin("render")
    tracker.resolve([f"{n:032x}" for n in range(3)], {})
    assert "3 / 4 images" in line(view, "render")
    assert line(view, "render").count("█") == 18 and line(view, "render").count("░") == 6
    tracker.resolve([], {f"{3:032x}": "its worker died twice"})
    tracker.finish("render")
    assert line(view, "render").count("░") == 0 and "done" in line(view, "render")
    tracker.begin("encode")
    tracker.add_batch(Receipt("batch", 0, 2, 10, "x"), 0.5)
    assert "2 / 4 samples" in line(view, "encode")
    tracker.fail("encode", "the disk <is> full\nreally")
    assert view.snapshot().state == "failed"
    assert "failed: the disk <is> full really" in line(view, "encode")
    html = view.snapshot().html
    assert "<b>a</b>" not in html and "&lt;b&gt;a&lt;/b&gt;" in html and "the disk &lt;is&gt; full" in html
    assert "its worker died twice" in view.snapshot().text


def test_a_training_shows_its_loss_as_a_curve_while_it_runs(tracker: TrainingProgressTracker) -> None:
    view = ProgressView(tracker)
    tracker.begin("train", 100)
    tracker.log_step(1)  # no loss yet
    assert "loss" not in view.snapshot().text
    for step, loss in enumerate([8.0, 4.0, 2.0, 1.0], 2):
        tracker.log_step(step, loss=loss)
    assert line(view, "loss of train") == "loss of train: 8 █▄▂▁ 1"
    assert "8 █▄▂▁ 1" in view.snapshot().html


def test_a_silent_run_is_stalled_not_frozen(tracker: TrainingProgressTracker) -> None:
    planned(tracker)
    tracker.begin("render")
    tracker.set("heartbeat", time.time() - STALLED_SECONDS - 60)
    assert ProgressView(tracker).snapshot().text.startswith("stalled since 20")
    assert ProgressView(tracker).watch(timeout=60) == "stalled"


def test_watching_ends_with_the_run_or_the_timeout(
    tracker: TrainingProgressTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tracker)
    tracker.begin("consolidate")
    started = time.monotonic()
    assert ProgressView(tracker).watch(timeout=0.3, poll=0.1) == "running consolidate"
    assert time.monotonic() - started >= 0.3
    other = threading.Timer(0.5, lambda: tracker.finish("consolidate"))
    other.start()
    assert ProgressView(tracker).watch(timeout=30, poll=0.1) == "done"
    other.join()
    assert "done: 4 samples planned" in capsys.readouterr().out


def test_tick_reads_the_tracker_at_most_twice_a_second(
    tracker: TrainingProgressTracker, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tracker)
    reads: list[str] = []
    tracker._db._db.set_trace_callback(lambda query: reads.append(query) if "GROUP BY modality" in query else None)
    with ProgressView(tracker) as view:
        entering = len(reads)
        started = time.monotonic()
        while time.monotonic() < started + 1.2:
            view.tick()
        ticking, seconds = len(reads) - entering, time.monotonic() - started
    assert 1 <= ticking <= 2 * seconds + 1
    assert "4 samples planned" in capsys.readouterr().out


def test_left_is_told_after_some_seconds(tracker: TrainingProgressTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(tracker)
    tracker.begin("render")
    view = ProgressView(tracker)
    assert "left" not in line(view, "render")
    tracker.resolve([f"{0:032x}"], {})
    view._first_seen["render"] = (time.monotonic() - 20, 0)
    assert "running 0 s, 3 images/min, about 1 min left" in line(view, "render")
    view._first_seen["render"] = (time.monotonic() - 20, -199)
    assert "10 images/s, about 0 s left" in line(view, "render")


def test_the_live_widgets_tell_pace_and_time_left_too(
    tracker: TrainingProgressTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clock, now in (("time", time.time()), ("monotonic", time.monotonic())):
        monkeypatch.setattr(time, clock, lambda now=now: now)
    planned(tracker)
    tracker.begin("render")
    tracker.resolve([f"{0:032x}"], {})
    view, widgets = ProgressView(tracker), _Widgets()
    view._widgets = widgets
    view._first_seen["render"] = (time.monotonic() - 20, 0)
    view.tick()
    labels = [row.children[1].value for row in widgets.box.children[1:-1]]
    assert labels[0] == "1 / 4 images, running 0 s, 3 images/min, about 1 min left"
    assert labels[1:] == ["waiting"] * 4
    assert widgets.box.children[0].value.startswith("running render: 4 samples planned")
    widgets.close()


def test_watching_goes_on_between_two_stages(tracker: TrainingProgressTracker) -> None:
    planned(tracker)
    tracker.ask(TRAIN_STEPS, 9)
    tracker.already_done("consolidate")
    other = threading.Timer(0.5, lambda: tracker.begin("train", 9))
    other.start()
    assert ProgressView(tracker).watch(timeout=1.5, poll=0.1) == "running train"
    other.join()


CELL = """
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.notebook.progress_view import ProgressView
tracker = TrainingProgressTracker("run")
with ProgressView(tracker) as view:
    tracker.begin("consolidate")
    view.tick()
    tracker.finish("consolidate")
"""


@pytest.mark.parametrize("live", [False, True], ids=["batch", "live"])
def test_the_saved_notebook_holds_the_final_state_and_no_widget(
    tracker: TrainingProgressTracker, tmp_path: Path, live: bool
) -> None:
    planned(tracker)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL.strip())])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, tmp_path / "in.ipynb")
    environment = {k: v for k, v in os.environ.items() if k != "JPY_SESSION_NAME"} | (
        {"JPY_SESSION_NAME": "x"} if live else {}
    )
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--no-progress-bar"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
    saved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    (output,) = saved.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html"}
    assert output.data["text/plain"].startswith("done: 4 samples planned")


def test_a_training_without_a_dataset_shows_itself_alone(tracker: TrainingProgressTracker) -> None:
    tracker.begin("train", 200)
    tracker.log_step(50, loss=1.0)
    text = ProgressView(tracker).snapshot().text
    assert text.startswith("running train") and "50 / 200 steps" in text
    assert "samples" not in text and "encode" not in text
    tracker.finish("train")
    assert ProgressView(tracker).snapshot().state == "done"
