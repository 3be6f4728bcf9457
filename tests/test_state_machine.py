"""Any order of steps, kills, damage and clearing ends in the same dataset: a Hypothesis state machine over one run.

Each step is done by a forked child, which a fault point may kill by SIGKILL; so nothing of it lives on but its files.
The machine has a process of its own, in which torch has not computed anything: after that, forking is not safe.
`python tests/test_state_machine.py 100` runs a hundred examples.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from conftest import TASK, config_for
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from trm_nb import durable
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline import Run, build
from trm_nb.records import DamagedError, UserError
from trm_nb.verify import verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="steps are done by forked children")
STEPS = ("render", "encode", "consolidate", "build")
FAULTS = [f"{what}-{when}" for what in ("images", "batch", "chunk") for when in ("staged", "renamed", "receipt")]
FAULTS += ["rows-planned", "images-settled", "batch-recorded", "chunk-recorded", "dataset-files"]
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
            durable._passed.clear()
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
                getattr(Run(self.config), step)()

        code = _in_a_child(do, fault and f"{fault}:{passing}")
        allowed = {DONE, KILLED} if fault else {DONE}
        assert code in allowed | ({DAMAGED} if self.harmed else set()), code

    @precondition(lambda self: (self.output / "progress.sqlite").exists())
    @rule(which=st.integers(0, 10_000), how=st.sampled_from(sorted(HARM)))
    def damage(self, which: int, how: str) -> None:
        """Some file of the run. Single bits of SQLite's files are left alone: it keeps no checksums of values."""
        files = [path for path in self._files() if not (path.suffix == ".sqlite" and how == "a flipped bit")]
        path = files[which % len(files)]
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
        """However it went: what is damaged is found, and running again, at most three times, mends all."""
        try:
            if self.output.exists():
                assert _in_a_child(lambda: verify(self.output, deep=True)) in {DONE, REFUSED}
            codes = [_in_a_child(lambda: build(self.config)) for _ in range(3 if self.harmed else 1)]
            assert codes[-1] == DONE, codes
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


def main(examples: int) -> None:
    """Run the machine; raises what Hypothesis found."""
    with tempfile.TemporaryDirectory(prefix="machine-") as folder:
        Storage.sources = _make_sources(Path(folder) / "sources")
        config, digest = _config(Storage.sources, Path(folder) / "whole"), Path(folder) / "digest"
        assert _in_a_child(lambda: digest.write_text(build(config).content_digest)) == DONE
        Storage.digest = digest.read_text()
        run_state_machine_as_test(
            Storage,
            settings=settings(
                max_examples=examples, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


@pytest.mark.parametrize(
    "examples", [3, pytest.param(15, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)]
)
def test_any_order_of_steps_kills_and_damage_ends_in_the_same_dataset(examples: int) -> None:
    done = subprocess.run([sys.executable, __file__, str(examples)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]


if __name__ == "__main__":
    main(int(sys.argv[1]))
