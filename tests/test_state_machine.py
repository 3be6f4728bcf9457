"""Any order of steps, kills, damage and clearing ends in the same dataset: a Hypothesis state machine over one run.

Each step is done by a forked child, which a fault point may kill by SIGKILL; so nothing of it lives on but its files.
The machine has a process of its own, in which torch has not computed anything: after that, forking is not safe.
`python tests/test_state_machine.py 400` runs 400 examples from a seed of its own, which it prints; `... 20 SEED` runs
the 20 examples of that seed, the same ones each time. A failing example is shown as it was found: making it shorter
would take hundreds of builds.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas
import pytest
from conftest import TASK, config_for
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import trm_nb.models.vision_encoder  # noqa: F401 - so that no child has to import torch
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import DamagedError, UserError
from trm_nb.pipeline.run import Run, build
from trm_nb.pipeline.verify import verify
from trm_nb.storage import files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="steps are done by forked children")
STEPS = ("render", "encode", "export", "build")
FAULTS = [f"{what}-{when}" for what in ("images", "batch", "chunk") for when in ("staged", "renamed", "receipt")]
FAULTS += ["rows-planned", "images-resolved", "batch-recorded", "chunk-recorded", "dataset-files"]
FILES = (
    *("progress.sqlite", ".frozen.json", "samples.parquet", "quarantine.jsonl", "README.md", "dataset_info.json"),
    *("images.zarr/zarr.json", "images.zarr/images/zarr.json", "images.zarr/images/receipts/index.sqlite"),
    *("capsules.zarr/zarr.json", "capsules.zarr/capsules/zarr.json", "batches.zarr/capsules/zarr.json"),
    *("capsules.zarr/labels/zarr.json", "capsules.zarr/labels/c/0"),
    *(f"images.zarr/images/{name}" for n in range(9) for name in (f"c/{n}/0/0/0", f"receipts/{n:08d}.json")),
    *(f"capsules.zarr/capsules/{name}" for n in range(3) for name in (f"c/{n}/0/0", f"receipts/{n:08d}.json")),
    *(f"batches.zarr/capsules/{name}" for n in range(6) for name in (f"c/{n}/0/0", f"receipts/{n:08d}.json")),
)
BLOCK = 20  # examples of one process: what has to be run again to see a failure again
DONE, DAMAGED, REFUSED = 0, 3, 4
KILLED = -signal.SIGKILL
HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "zero length": lambda data: b"",
    "truncated": lambda data: data[: len(data) * 3 // 4],
    "NUL-filled": lambda data: bytes(len(data)),
    "a flipped bit": lambda data: _flipped(data),
}


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 4 for byte in data[middle : middle + 1]) + data[middle + 1 :]


def _make_sources(folder: Path) -> Path:
    """22 samples, two of them equal, and a file that cannot be used."""
    for name in ("texts", "tasks"):
        (folder / name).mkdir(parents=True)
    for i in range(12):
        (folder / "texts" / f"{i:02d}.txt").write_text(f"text {i % 11}\n" * 5)
    for i in range(10):
        train = [*TASK["train"], {"input": [[i]], "output": [[0]]}]
        (folder / "tasks" / f"{i}.json").write_text(json.dumps({**TASK, "train": train}))
    (folder / "texts" / "bad.txt").write_bytes(b"\0")
    return folder


def _config(sources: Path, output: Path) -> MultimodalDatasetConfig:
    return config_for(sources, output, batch_size=4, batches_per_chunk=2, micro_batch=4, start_threshold=4)


def _in_a_child(work: Callable[[], object], fault: str | None = None) -> int:
    """Its exit code: DONE, DAMAGED, REFUSED, or KILLED by the fault point. Anything else is a bug, and shown."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ.pop("TRM_NB_FAULT", None)
            if fault:
                os.environ["TRM_NB_FAULT"] = fault
            files._passed.clear()
            work()
            code = DONE
        except DamagedError:
            code = DAMAGED
        except UserError as error:
            print(error)
            code = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Storage(RuleBasedStateMachine):
    """One run, and what can happen to it."""

    sources: Path
    digest: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine-"))
        self.output = self.folder / "run"
        self.config = _config(self.sources, self.output)
        self.harmed = False

    def _files(self) -> list[Path]:
        found = (path for path in self.output.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
        return sorted(found)

    @rule(step=st.sampled_from(STEPS), fault=st.sampled_from([None, *FAULTS]), passing=st.integers(1, 4))
    def work(self, step: str, fault: str | None, passing: int) -> None:
        """A stage, or all of them, to its end or to a kill."""

        def do() -> None:
            if step == "build":
                build(self.config)
            else:
                Run(self.config).up_to(step)

        code = _in_a_child(do, fault and f"{fault}:{passing}")
        allowed = {DONE, KILLED} if fault else {DONE}
        assert code in allowed | ({DAMAGED} if self.harmed else set()), code

    @precondition(lambda self: (self.output / "progress.sqlite").exists())
    @rule(which=st.sampled_from(FILES), how=st.sampled_from(sorted(HARM)))
    def damage(self, which: str, how: str) -> None:
        """A file of the run, or the next that is there: the example does not depend on when a kill came.

        Single bits of SQLite's files are left alone: it keeps no checksums of values.
        """
        at = FILES.index(which)
        paths = [self.output / name for name in FILES[at:] + FILES[:at]]
        there = [path for path in paths if path.is_file() and (path.suffix, how) != (".sqlite", "a flipped bit")]
        if not there:
            return
        path = there[0]
        data = HARM[how](path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        self.harmed = True

    @precondition(lambda self: self.output.exists())
    @rule(deep=st.booleans())
    def look(self, deep: bool) -> None:
        code = _in_a_child(lambda: verify(self.output, deep=deep))
        assert code in {DONE, REFUSED}, code

    @precondition(lambda self: (self.output / "images.zarr").exists())
    @rule(keep_index=st.booleans())
    def clear_the_cache(self, keep_index: bool) -> None:
        assert _in_a_child(lambda: Run(self.config).cache.clear(keep_index)) == DONE

    def teardown(self) -> None:
        """However it went: `verify --deep` finds what is damaged, and running again repairs all of it."""
        try:
            if self.output.exists():
                assert _in_a_child(lambda: verify(self.output, deep=True)) in {DONE, REFUSED}
            assert _in_a_child(lambda: build(self.config)) == DONE
            assert _in_a_child(self._is_whole) == DONE
        finally:
            shutil.rmtree(self.folder)

    def _is_whole(self) -> None:
        assert build(self.config).content_digest == self.digest
        assert verify(self.output, deep=True) == []
        samples = pandas.read_parquet(self.output / "samples.parquet")
        assert len(samples) == samples["sample_id"].nunique() == 22
        assert not [path for path in self._files() if path.suffix == ".tmp"]
        assert not (self.output / "batches.zarr").exists()


def _lost_settings(state: Storage) -> None:
    """The tracker and the copy of its settings are lost, and so is a third file."""
    state.work(step="build", fault=None, passing=1)
    state.damage(which="progress.sqlite", how="NUL-filled")
    state.damage(which=".frozen.json", how="zero length")
    state.damage(which="README.md", how="missing")
    state.damage(which="images.zarr/images/receipts/00000002.json", how="truncated")


def _altered_chunk(state: Storage) -> None:
    """A chunk is altered, and with the tracker lost and the images cleared it is taken over only at the end."""
    state.work(step="build", fault=None, passing=1)
    state.damage(which="capsules.zarr/capsules/c/2/0/0", how="a flipped bit")
    state.damage(which="progress.sqlite", how="missing")
    state.clear_the_cache(keep_index=False)


def _altered_receipt(state: Storage) -> None:
    """An image receipt is altered and the tracker lost before anything is encoded."""
    state.work(step="render", fault=None, passing=1)
    state.damage(which="progress.sqlite", how="zero length")
    state.damage(which="images.zarr/images/receipts/00000000.json", how="a flipped bit")


def _altered_info(state: Storage) -> None:
    """A chunk is lost and the run killed while it is made again; then dataset_info.json is altered."""
    state.work(step="build", fault=None, passing=1)
    state.damage(which="capsules.zarr/capsules/c/2/0/0", how="missing")
    state.work(step="encode", fault="batch-recorded", passing=1)
    state.damage(which="dataset_info.json", how="a flipped bit")


EXAMPLES = (_lost_settings, _altered_chunk, _altered_receipt, _altered_info)


def main(examples: int, number: int) -> None:
    """Run the written examples and those that follow from a seed; raises what they found."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        Storage.sources = _make_sources(Path(folder) / "sources")
        config, digest = _config(Storage.sources, Path(folder) / "whole"), Path(folder) / "digest"
        assert _in_a_child(lambda: digest.write_text(build(config).content_digest)) == DONE
        Storage.digest = digest.read_text()
        for example in EXAMPLES:
            state = Storage()
            try:
                example(state)
            finally:
                state.teardown()
        run_state_machine_as_test(
            seed(number)(Storage),
            settings=settings(
                max_examples=examples,
                stateful_step_count=12,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"seed {number}: {examples} examples in {time.monotonic() - started:.0f} s")


def campaign(examples: int, first: int) -> bool:
    """Many examples in blocks of their own seeds, in two processes; tells what failed and how to see it again."""

    def block(number: int) -> bool:
        command = [sys.executable, __file__, str(min(BLOCK, examples - BLOCK * number)), str(first + number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = f"FAILED, again by: {' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-5000:]}"
        print(failed if done.returncode else done.stdout.splitlines()[-1], flush=True)
        return done.returncode == 0

    print(f"python {__file__} {examples} {first}", flush=True)
    with ThreadPoolExecutor(2) as threads:
        return all(list(threads.map(block, range(-(-examples // BLOCK)))))


@pytest.mark.parametrize(
    ("examples", "number"),
    [pytest.param(2, 0, id="quick"), pytest.param(8, 1, id="slow", marks=pytest.mark.slow(minutes=1))],
)
def test_any_order_of_steps_kills_and_damage_ends_in_the_same_dataset(examples: int, number: int) -> None:
    command = [sys.executable, __file__, str(examples), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]


@pytest.mark.soak
def test_it_holds_for_many_orders() -> None:
    assert campaign(400, secrets.randbelow(10**6))


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    if len(numbers) == 2 and numbers[0] <= BLOCK:
        main(*numbers)
    else:
        sys.exit(not campaign(numbers[0], numbers[1] if len(numbers) > 1 else secrets.randbelow(10**6)))
