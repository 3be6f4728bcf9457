"""`trm-nb run` on the real notebooks: killed in every stage and continued, it is the dataset that `build` makes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trm_nb.cli.main import main
from trm_nb.pipeline.verify import verify
from trm_nb.progress.tracker import TrainingProgressTracker

ROOT = Path(__file__).parents[1]
SMOKE = str(ROOT / "params" / "smoke.yaml")


def _command(*arguments: str, fault: str | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"TRM_NB_FAULT": fault} if fault else {})}
    command = [sys.executable, "-m", "trm_nb.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def _digest(output: Path) -> str:
    return str(json.loads((output / "dataset_info.json").read_text(encoding="utf-8"))["content_digest"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed `trm-nb build` of the smoke params, with another number of workers."""
    output = tmp_path_factory.mktemp("a folder") / "built"
    done = _command("build", SMOKE, "--output-dir", str(output), "-p", "workers=1")
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.slow(minutes=1)
def test_a_run_whose_kernel_is_killed_and_that_is_continued_equals_a_build(built: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run = ("run", SMOKE, "--output-dir", str(output), "--to", "04")  # the others change no digest
    killed = _command(*run, fault="chunk-renamed:2")
    assert killed.returncode == 1, killed.stdout + killed.stderr
    assert "03_encode" in killed.stderr
    assert "kernel" in killed.stderr
    done = _command(*run)
    assert done.returncode == 0, done.stderr
    assert _digest(output) == _digest(built)
    assert verify(output, deep=True) == []
    names = sorted(path.name for path in (output / "notebooks").glob("*.ipynb"))
    assert names == sorted(path.name for path in (ROOT / "notebooks").glob("0[1-4]_*.ipynb"))
    assert (output / "report" / "index.html").is_file()

    started = time.monotonic()
    again = _command(*run)
    seconds = time.monotonic() - started
    assert again.returncode == 0
    print(f"a complete run returned in {seconds:.2f} s")
    stages = TrainingProgressTracker(output).get_stats()["stages"]
    assert [stages[name]["status"] for name in ("render", "encode", "consolidate")] == ["done"] * 3


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for everything the command started, kernels with sessions of their own too."""
    tree = [process.pid]
    for pid in tree:
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
        tree += [int(child) for child in re.findall(r"\d+", children.stdout)]
    for pid in tree:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.slow
@pytest.mark.parametrize("room", ["40k", "900k"])
def test_a_full_disk_is_one_sentence_and_the_build_continues_when_there_is_room(
    built: Path, tmp_path: Path, room: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)], check=True)
    try:
        full = _command("build", SMOKE, "--output-dir", str(disk / "run"))
        assert full.returncode == 2, full.stderr
        assert "Traceback" not in full.stderr
        assert re.search("full", full.stderr) and "run again, it continues" in full.stderr
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        done = _command("build", SMOKE, "--output-dir", str(disk / "run"))
        assert done.returncode == 0, done.stderr
        assert _digest(disk / "run") == _digest(built)
        assert verify(disk / "run", deep=True) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


POINTS = [f"{what}-{when}" for what in ("images", "batch", "chunk") for when in ("staged", "renamed", "receipt")]
POINTS += ["rows-planned", "images-resolved", "batch-recorded", "chunk-recorded", "dataset-files", "train-step"]


@pytest.mark.soak
@pytest.mark.parametrize("command", ["build", "run"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_it_continues(built: Path, tmp_path: Path, command: str, point: str) -> None:
    output = tmp_path / "killed"
    killed = _command(command, SMOKE, "--output-dir", str(output), fault=point)
    assert killed.returncode == (1 if command == "run" else -signal.SIGKILL), killed.stdout + killed.stderr
    _continues(command, output, built)


@pytest.mark.soak
@pytest.mark.parametrize("moment", range(50))
def test_killed_at_a_random_moment_it_continues(built: Path, tmp_path: Path, moment: int) -> None:
    command, seconds = ("build", 9) if moment % 2 else ("run", 40)  # about as long as they take here
    after = random.Random(moment).uniform(0.3, seconds)
    output = tmp_path / "killed"
    arguments = [sys.executable, "-m", "trm_nb.cli", command, SMOKE, "--output-dir", str(output)]
    process = subprocess.Popen(arguments, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    held = [path.name for path in output.glob("*")]
    print(f"{command} killed after {after:.2f} s, {'done' if process.poll() == 0 else f'there: {sorted(held)}'}")
    _kill_session(process)
    _continues(command, output, built)


def _continues(command: str, output: Path, built: Path) -> None:
    """Run again: the same digest, nothing damaged, each sample once."""
    done = _command(command, SMOKE, "--output-dir", str(output))
    assert done.returncode == 0, done.stderr
    assert _digest(output) == _digest(built)
    assert verify(output, deep=True) == []
    samples = pq.read_table(output / "samples.parquet")["sample_id"].to_pylist()
    assert len(samples) == len(set(samples)) == len(pq.read_table(built / "samples.parquet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nowhere.yaml"], r"params file not found: nowhere\.yaml"),
        (["build", SMOKE, "-p", "batchsize=5"], "unknown parameter 'batchsize', did you mean 'batch_size'"),
        (["run", SMOKE, "-p", "batch_size=five"], "batch_size: .*got 'five'"),
        (["build", SMOKE, "-p", "source_paths=[/no/such/place]"], "/no/such/place"),
        (["status", "/no/such/run"], "/no/such/run: no run here"),
        (["verify", "/no/such/run"], "/no/such/run: no run here"),
        (["run", SMOKE, "-p", "output_dir=/dev/null"], "/dev/null cannot be written: it is a file"),
        (["build", SMOKE, "-p", "batch_size=0"], "the override: batch_size: .* got 0"),
        (["build", SMOKE, "-p", "device=cuda:9"], "device 'cuda:9' cannot be used here"),
        (["build", SMOKE, "-p", "device=banana"], "device: .*got 'banana'"),
        (["build", SMOKE, "-p", "objective=lable"], "objective: expected one of .*got 'lable', did you mean 'label'"),
        (["build", SMOKE, "-p", f"encoder_path={__file__}"], r"test_run\.py: expected a checkpoint of the"),
        (
            ["build", SMOKE, "-p", "use_denoiser=true", "-p", f"denoiser_path={__file__}"],
            r"test_run\.py: expected a chec",
        ),
        (["run", SMOKE, "--output-dir", str(ROOT)], "is not empty .* and holds no run"),
        (
            ["build", SMOKE, "-p", f"source_paths=[{ROOT}]", "-p", f"output_dir={ROOT}/outputs/overlap"],
            "lies in the source path",
        ),
    ],
    ids=[
        "no params",
        "misspelt",
        "wrong type",
        "no source",
        "no run to show",
        "no run to verify",
        "output is a file",
        "out of range",
        "no such device",
        "no device",
        "no objective",
        "garbage encoder",
        "garbage denoiser",
        "not empty",
        "overlap",
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "build" in arguments and "output_dir" not in " ".join(arguments):
        arguments = [*arguments, "--output-dir", str(tmp_path / "o")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert len(said.strip().splitlines()) == 1


def test_in_a_process_of_its_own_a_users_mistake_is_one_sentence_too() -> None:
    done = _command("build", SMOKE, "-p", "device=banana")
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search("device: .*got 'banana'", done.stderr) and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow(minutes=1)
def test_puzzles_go_from_images_to_answers(tmp_path: Path) -> None:
    """Through notebooks, with an encoder that is fitted and a TRM that fills in grids; far too short to solve one."""
    short = ["source_paths=[sudoku:4:80]", "image_size=112", "fit_steps=6", "fit_batch_size=4", "train_steps=20"]
    overrides = [part for value in (*short, "train_batch_size=8") for part in ("-p", value)]
    late = ("--from", "05")  # which makes what the earlier ones would; they are executed in other tests
    done = _command("run", str(ROOT / "params" / "sudoku4.yaml"), "--output-dir", str(tmp_path), *late, *overrides)
    assert done.returncode == 0, done.stderr
    tracker = TrainingProgressTracker(tmp_path)
    stages, summary = tracker.get_stats()["stages"], tracker.get("summary:06_train")
    tracker.close()
    assert {name: stage["status"] for name, stage in stages.items()} == dict.fromkeys(stages, "done")
    assert stages["fit"]["done"] == 6 and (summary["objective"], summary["steps"]) == ("grid", 20)
    page = (tmp_path / "report" / "06_train.html").read_text(encoding="utf-8")
    assert "held-out answer grids are exactly right" in page and "wrong cells framed" in page
    card = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "held-out answer grids are exactly right" in card and "the answer of the nearest training sample" in card
    assert "Nothing is trained" not in card
