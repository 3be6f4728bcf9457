"""The runner, with real papermill runs on tiny notebooks. A run costs seconds, so each serves several checks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from trm_nb.batch.notebooks import find_notebooks, fingerprints, up_to_date
from trm_nb.batch.outcome import Truth, as_bytes, read_notebook, resolve, running_cell
from trm_nb.batch.runner import NotebookEvent, run_notebooks
from trm_nb.errors import UserError
from trm_nb.params import load_params
from trm_nb.progress.model_record import settings_of, write_settings
from trm_nb.progress.tracker import TrainingProgressTracker


def notebook(*sources: str) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_markdown_cell("# A title"), *map(nbformat.v4.new_code_cell, sources)]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {"name": "no-such-kernel", "display_name": "gone", "language": "python"}
    return made


PARAMETERS = "params = 'params/demo.yaml'\noutput_dir = None"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a project in a folder whose name has a space and braces; returns its root, which is the current folder."""

    def make(**notebooks: nbformat.NotebookNode) -> Path:
        root = tmp_path / "a folder {x}"
        (root / "notebooks").mkdir(parents=True)
        (root / "params").mkdir()
        (root / "params" / "demo.yaml").write_text("source_paths: [data]\noutput_dir: outputs/demo\n", encoding="utf-8")
        for name, made in notebooks.items():
            if made.cells[1].source == PARAMETERS:
                made.cells[1].metadata["tags"] = ["parameters"]
            nbformat.write(made, root / "notebooks" / f"{name.removeprefix('n')}.ipynb")
        monkeypatch.chdir(root)
        return root

    return make


def executed(root: Path, name: str) -> dict[str, Any]:
    found = read_notebook(root / "outputs" / "demo" / "notebooks" / f"{name}.ipynb")
    assert found is not None
    return found


def status(cell: dict[str, Any]) -> str:
    return str(cell["metadata"]["papermill"]["status"])


def test_order_parameters_skipping_and_the_fingerprint_chain(
    project: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"  # a python3 that is not this interpreter
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}), encoding="utf-8")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    root = project(
        n01_first=notebook(
            PARAMETERS, "import os, sys\nprint(params, output_dir, os.getcwd(), sys.executable, sep='|')"
        ),
        n02_second=notebook(PARAMETERS, "print('second')"),
    )
    events: list[NotebookEvent] = []
    outcome = run_notebooks("params/demo.yaml", overrides={"limit": 3}, last=1, on_event=events.append)
    assert (outcome.executed, outcome.skipped, outcome.exit_code) == (("01_first",), (), 0)
    assert [e.notebook for e in events if e.status == "done"] == ["01_first"]
    first = executed(root, "01_first")
    printed = "".join(first["cells"][3]["outputs"][0]["text"]).strip().split("|")
    run = root / "outputs" / "demo"
    assert printed == [str(root / "params" / "demo.yaml"), str(run), str(root), sys.executable]
    assert "limit = 3" in "".join(first["cells"][2]["source"])
    assert first["metadata"]["trm_nb"]["status"] == "done"
    assert set(first["metadata"]["trm_nb"]["environment"]) >= {"python", "torch", "trm-nb"}
    assert list((run / "notebooks").glob(".*.ipynb")) == []
    tracker = TrainingProgressTracker(run)
    noted = tracker.get("notebook:01_first")
    tracker.close()
    assert noted["status"] == "done" and noted["seconds"] > 0

    assert run_notebooks("params/demo.yaml", overrides={"limit": 3}, last=1).skipped == ("01_first",)
    # another value, another source or a missing output makes a notebook stale; the later ones follow their elders
    paths = find_notebooks(root)
    prints = fingerprints(paths, load_params("params/demo.yaml", {"limit": 3}))
    other = fingerprints(paths, load_params("params/demo.yaml", {"limit": 4}))
    assert set(prints.values()).isdisjoint(other.values())
    training = [Path("05_inspect.ipynb"), Path("06_train.ipynb")]
    for path in training:
        (root / path).write_bytes(paths[0].read_bytes())
    longer = fingerprints([root / path for path in training], load_params("params/demo.yaml", {"test_steps": 9}))
    asked = fingerprints([root / path for path in training], load_params("params/demo.yaml"))
    assert [longer[path.stem] == asked[path.stem] for path in training] == [True, False]
    assert up_to_date(run, paths[0], prints["01_first"])
    changed = json.loads(paths[0].read_text(encoding="utf-8"))
    changed["cells"][2]["source"] = "print('changed')"
    paths[0].write_text(json.dumps(changed), encoding="utf-8")
    assert set(prints.values()).isdisjoint(fingerprints(paths, load_params("params/demo.yaml", {"limit": 3})).values())
    assert not up_to_date(root / "elsewhere", paths[0], prints["01_first"])
    (run / "notebooks" / "01_first.ipynb").unlink()
    assert not up_to_date(run, paths[0], prints["01_first"])


def test_puzzles_are_solved_where_it_is_asked_for(project: Callable[..., Path]) -> None:
    root = project(n06_train=notebook("1"), n07_compare=notebook("2"), n08_solve=notebook("3"))
    assert [path.stem for path in find_notebooks(root)] == ["06_train"]
    assert [path.stem for path in find_notebooks(root, solves=True)] == ["06_train", "08_solve"]
    with pytest.raises(UserError, match="no notebook numbered 07 to 08"):
        run_notebooks("params/demo.yaml", first=7)


def test_puzzles_are_solved_again_for_another_number_of_them_but_not_for_another_model(
    project: Callable[..., Path],
) -> None:
    root = project(n06_train=notebook("1"), n08_solve=notebook("3"))
    paths = find_notebooks(root, solves=True)

    def print_of(**fields: int) -> str:
        return fingerprints(paths, load_params("params/demo.yaml", fields))["08_solve"]

    assert print_of(solve_puzzles=5) == print_of(solve_puzzles=5, train_steps=9) != print_of(solve_puzzles=6)


def test_a_model_that_was_removed_is_trained_again_in_any_way(project: Callable[..., Path]) -> None:
    root = project(n06_train=notebook("print('trains')"))
    run, path = root / "outputs" / "demo", root / "notebooks" / "06_train.ipynb"
    tracker = TrainingProgressTracker(run, create=True)
    tracker.freeze("encode", {"micro_batch": 64})
    tracker.set("summary:06_train", {"model": "main", "trained": True})
    config, model = load_params("params/demo.yaml"), tracker.paths.model("main")
    write_settings(model, settings_of(config, "a digest"))
    for made in (run / "notebooks" / path.name, model.checkpoint, *model.results):
        made.parent.mkdir(exist_ok=True)
        made.write_bytes(path.read_bytes())
    same = fingerprints([path], config)["06_train"]
    tracker.set("notebook:06_train", {"status": "done", "fingerprint": same})
    assert run_notebooks("params/demo.yaml").skipped == ("06_train",)
    with pytest.raises(
        UserError, match=r"models/main: this model was trained with learning_rate=0.001, not .*0.01; .*"
    ):
        run_notebooks("params/demo.yaml", {"learning_rate": 0.01})
    other = load_params("params/demo.yaml", {"model": "other", "learning_rate": 0.01})
    assert fingerprints([path], other)["06_train"] != same, "another model makes the notebook stale"

    model.card.unlink()
    assert not up_to_date(run, path, same)
    shutil.rmtree(model.root)
    assert not up_to_date(run, path, same)
    with pytest.raises(UserError, match="made with micro_batch=64"):
        run_notebooks("params/demo.yaml", {"micro_batch": 8, "learning_rate": 0.01})
    assert run_notebooks("params/demo.yaml", {"learning_rate": 0.01}).executed == ("06_train",)
    assert tracker.get_stats()["notebooks"] == {"06_train": "done"}
    tracker.close()


@pytest.mark.slow
def test_a_failing_cell_stops_the_order_and_the_next_run_continues_there(project: Callable[..., Path]) -> None:
    root = project(
        n01_first=notebook("print('ok')"),
        n02_second=notebook("print('before')", "raise ValueError('line one\\nboom <script>')", "print('never')"),
        n03_third=notebook("print('third')"),
    )
    outcome = run_notebooks("params/demo.yaml")
    assert (outcome.executed, outcome.exit_code) == (("01_first",), 1)
    assert outcome.failure is not None
    assert outcome.failure.sentence.startswith("02_second.ipynb, cell 4: ValueError: boom <script> (the executed ")
    made = executed(root, "02_second")
    assert len(made["cells"]) == 5  # the injected one, and no banners
    assert [status(cell) for cell in made["cells"]] == ["completed", "completed", "completed", "failed", "pending"]
    assert made["metadata"]["trm_nb"]["cell"] == 3
    assert not (root / "outputs/demo/notebooks/03_third.ipynb").exists()

    # a user's error is told apart
    raises = notebook("from trm_nb.errors import UserError", "raise UserError('expected a, got b')")
    nbformat.write(raises, root / "notebooks" / "02_second.ipynb")
    outcome = run_notebooks("params/demo.yaml")
    assert (outcome.executed, outcome.skipped, outcome.exit_code) == ((), ("01_first",), 2)
    assert outcome.failure is not None and outcome.failure.message == "expected a, got b"
    (shown,) = executed(root, "02_second")["cells"][3]["outputs"]
    assert (shown["ename"], shown["evalue"]) == ("UserError", "expected a, got b")
    assert shown["traceback"] == ["\x1b[0;31mUserError\x1b[0m: expected a, got b"], "one sentence, no traceback"


def test_a_killed_kernel_is_the_truth_in_the_notebook(project: Callable[..., Path]) -> None:
    die = "import os, time\nprint('last words', flush=True)\ntime.sleep(0.3)\nos.kill(os.getpid(), 9)"
    root = project(n01_first=notebook("print('before')", die, "print('never')"))
    outcome = run_notebooks("params/demo.yaml")
    assert outcome.exit_code == 1
    assert outcome.failure is not None and outcome.failure.cell == 4 and "kernel died" in outcome.failure.message
    made = executed(root, "01_first")
    assert [status(cell) for cell in made["cells"]] == ["completed", "completed", "completed", "failed", "pending"]
    assert made["metadata"]["papermill"]["exception"] is True
    assert "last words" in "".join(made["cells"][3]["outputs"][0]["text"])


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


SLEEPS = "from pathlib import Path\nimport os, time\nPath('started').write_text(str(os.getpid()))\ntime.sleep(600)"
RUN = "import sys; from trm_nb.batch.runner import run_notebooks as r; sys.exit(r('params/demo.yaml').exit_code)"
IN_BACKGROUND = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {RUN}"  # as a shell's & does


@pytest.mark.parametrize(
    ("command", "whom", "signum", "said"),
    [
        pytest.param(RUN, "runner", signal.SIGINT, "interrupted", id="runner-interrupted"),
        pytest.param(RUN, "runner", signal.SIGKILL, None, id="runner-killed"),
        pytest.param(
            IN_BACKGROUND, "runner", signal.SIGKILL, None, marks=pytest.mark.slow, id="runner-in-the-background-killed"
        ),
        pytest.param(RUN, "child", signal.SIGKILL, "failed", marks=pytest.mark.slow, id="child-killed"),
    ],
)
def test_kills_leave_no_process_and_no_half_written_notebook(
    project: Callable[..., Path], command: str, whom: str, signum: int, said: str | None
) -> None:
    root = project(n01_first=notebook("print('before')", SLEEPS, "print('never')"))
    runner = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    wait_for((root / "started").is_file)
    wait_for((root / "started").read_text)
    kernel = int((root / "started").read_text())
    (child,) = children_of(runner.pid)
    os.kill(runner.pid if whom == "runner" else child, signum)
    assert runner.wait(timeout=30) != 0
    wait_for(lambda: not (Path("/proc") / str(child)).exists() and not (Path("/proc") / str(kernel)).exists())
    target = root / "outputs/demo/notebooks/01_first.ipynb"
    if said is None:
        assert not target.exists()  # only the partial one, which the next run throws away
        return
    made = executed(root, "01_first")
    assert made["metadata"]["trm_nb"]["status"] == said
    assert [status(cell) for cell in made["cells"]] == ["completed", "completed", "completed", "failed", "pending"]


def test_the_user_hears_what_is_wrong_before_anything_runs(project: Callable[..., Path], tmp_path: Path) -> None:
    root = project()
    with pytest.raises(UserError, match="expected notebooks named"):
        run_notebooks("params/demo.yaml")
    nbformat.write(notebook(), root / "notebooks" / "01_first.ipynb")
    with pytest.raises(UserError, match="there are 01_first"):
        run_notebooks("params/demo.yaml", first=5)
    with pytest.raises(UserError, match="did you mean 'limit'"):
        run_notebooks("params/demo.yaml", overrides={"limt": 1})
    (root / "notebooks" / "01_first.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="expected a Jupyter notebook"):
        run_notebooks("params/demo.yaml")
    assert not (root / "outputs").exists()


def test_settle_and_its_helpers_on_plain_json(tmp_path: Path) -> None:
    made: dict[str, Any] = json.loads(nbformat.writes(notebook("a", "b")))
    for cell, noted in zip(made["cells"], ["completed", "running", "pending"], strict=True):
        cell["metadata"]["papermill"] = {"status": noted}
    assert running_cell(made) == 1
    resolve(made, Truth("failed", 1, "gone"), seconds=1.5)
    assert [status(cell) for cell in made["cells"]] == ["completed", "failed", "pending"]
    assert made["metadata"]["trm_nb"] == {
        "status": "failed", "cell": 1, "message": "gone", "user_error": False, "seconds": 1.5,
    }  # fmt: skip
    path = tmp_path / "x.ipynb"
    path.write_bytes(as_bytes(made)[:-20])
    assert read_notebook(path) is None
    path.write_bytes(as_bytes(made))
    assert read_notebook(path) == made
    assert running_cell(made) is None


def test_the_runner_is_light() -> None:
    heavy = "{'torch', 'zarr', 'papermill', 'IPython'}"
    code = f"import sys, trm_nb.batch.runner; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
