"""The last words of a command: what came out, on 80 columns."""

from __future__ import annotations

import io
import sys
from contextlib import closing
from pathlib import Path

import nbformat
import numpy as np
import pytest

from trm_nb.cli.sweep_view import SweepView
from trm_nb.cli.terminal import TerminalView, result_of, say_what_came_out
from trm_nb.notebook.prose import finding
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Rejected
from trm_nb.storage.files import locked
from trm_nb.training.objectives import objective_named
from trm_nb.training.predictions import Predictions
from trm_nb.training.results import Result
from trm_nb.training.verdicts import accuracy, paired

HOSTILE = "<b>a*b_c</b> \x1b[31m & `d`"


def executed(run: Path, name: str, markdown: str, status: str = "done") -> None:
    output = nbformat.v4.new_output("display_data", data={"text/markdown": markdown})
    cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell("say()", outputs=[output])]
    made = nbformat.v4.new_notebook(cells=cells, metadata={"trm_nb": {"status": status, "cell": 1, "message": "x"}})
    nbformat.write(made, run / "notebooks" / f"{name}.ipynb")


def test_a_run_ends_with_its_findings_the_quarantine_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "demo"
    tracker = TrainingProgressTracker(run, create=True)
    tracker.add_rows([], [], [Rejected("a", "b")])
    tracker.close()
    (run / "notebooks").mkdir()
    (run / "report").mkdir()
    for path in (run / "quarantine.jsonl", run / "report" / "index.html"):
        path.touch()
    long = "Accuracy **{right:.1%}** on {rows:,} held-out samples of all (95 %: {low:.1%} to {high:.1%})."
    executed(run, "06_train", finding(long, right=0.3125, rows=1234, low=0.1416, high=0.5559))
    executed(run, "01_render", finding("**{n:,}** samples of {what}", n=1234, what=HOSTILE))
    executed(run, "07_mine", "not to be said", status="failed")
    say_what_came_out(run, new=False)
    assert capsys.readouterr().out.splitlines() == [
        r"01_render  1,234 samples of <b>a*b_c</b> \x1b[31m & `d`",
        "06_train   Accuracy 31.2 % on 1,234 held-out samples of all (95 %: 14.2 % to",
        "           55.6 %).",
        "07_mine    failed",
        "1 quarantined, reasons: outputs/demo/quarantine.jsonl",
        "report: outputs/demo/report/index.html",
    ]


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("encoding", "bars"), [("ascii", "...."), ("cp1252", "...."), ("utf-8", "░░░░")])
def test_bars_that_are_redrawn_are_of_characters_that_the_terminal_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, bars: str
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(shown, encoding))
    monkeypatch.setenv("TERM", "xterm")
    with closing(TrainingProgressTracker(tmp_path / "run", create=True)) as tracker, TerminalView(tracker, "x") as view:
        for _ in range(2):  # at the first time, rich puts its own output in the place of sys.stdout
            view._next = 0
            view.tick()
        sys.stdout.flush()
        text = shown.getvalue().decode(encoding)
    assert text.count(bars) > 1 and "\\u25" not in text


@pytest.mark.parametrize(("encoding", "bars"), [("ascii", "...."), ("cp1252", "...."), ("utf-8", "░░░░")])
def test_so_are_those_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, bars: str) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(shown, encoding))
    monkeypatch.setenv("TERM", "xterm")
    training = RunPaths(tmp_path / "run").model("a").root
    with closing(TrainingProgressTracker(tmp_path / "run", create=True)) as tracker:
        training.mkdir(parents=True)
        with locked(training, "training"), tracker.stage("train/a", 10), SweepView(tracker, ["a"]) as view:
            for _ in range(2):
                view._next = 0
                view.tick()
            sys.stdout.flush()
            text = shown.getvalue().decode(encoding)
    assert text.count(bars) > 1 and "\\u25" not in text


@pytest.mark.parametrize(
    ("objective", "targets", "correct", "constant"),
    [
        (
            "label",
            [[0], [0], [1], [2]],
            "labels are predicted correctly",
            "always predicting the most common label: 50.0%",
        ),
        (
            "grid",
            [[0, 1], [1, 0], [1, 1], [1, 0]],
            "answer grids are exactly right",
            "always predicting the most common grid: 50.0%",
        ),
        ("next", [[0], [1], [2], [3]], "next pages are found", "guessing: 25.0%"),
    ],
)
def test_a_training_ends_with_its_result_and_what_needs_no_model(
    objective: str, targets: list[list[int]], correct: str, constant: str
) -> None:
    exact, asked = np.array([[True, True, True, False]]), np.array(targets, np.int32)
    answers = Predictions(exact, exact.astype(float), asked[None], asked, np.arange(4), (1, asked.shape[1]))
    same, measured = paired(exact[-1], exact[-1], np.arange(4)), accuracy(exact[-1])
    found = Result(objective_named(objective), answers, measured, (), None, same, ())  # type: ignore[arg-type]
    lines = result_of(found, Path.cwd() / "outputs" / "demo" / "models" / "main").splitlines()
    assert lines == [
        f"trained: 75.0% of 4 held-out {correct}",
        "  (95 % interval 30.1% to 95.4%;",
        f"  {constant})",
        f"model: {Path('outputs/demo/models/main')}",
    ]
    assert max(map(len, lines)) <= 80
