"""Memory is bounded by the config, not by the number of samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, resource, sys
from trm_nb import MultimodalDatasetConfig, build
report = build(MultimodalDatasetConfig(**json.loads(sys.argv[1])))
print(json.dumps([report.rows, *(resource.getrusage(who).ru_maxrss / 1024
                                 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))]))
"""


def _peaks(folder: Path, samples: int) -> tuple[float, float]:
    """Peak RSS in MB of a build's process, and of the largest of its workers."""
    rows = (json.dumps({"text": f"sample {i}\n" * (1 + i % 4), "label": str(i % 7)}) for i in range(samples))
    source = folder / f"{samples}.jsonl"
    source.write_text("\n".join(rows))
    config = {
        "source_paths": [str(source)], "output_dir": str(folder / f"run{samples}"), "encoder": "tiny",
        "batch_size": 250, "batches_per_chunk": 4, "start_threshold": 500, "workers": 1, "label_column": "label",
        "image_size": 112,  # what grows with the number of samples does so whatever their size
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, own, worker = json.loads(done.stdout.splitlines()[-1])
    print(f"{samples:,} samples: peak {own:.0f} MB, its worker {worker:.0f} MB")
    assert count == samples
    return own, worker


@pytest.mark.parametrize(
    "many", [pytest.param(6_000, marks=pytest.mark.slow), pytest.param(100_000, marks=pytest.mark.soak)]
)
def test_peak_memory_does_not_grow_with_the_samples(tmp_path: Path, many: int) -> None:
    few_own, few_worker = _peaks(tmp_path, 1_000)
    many_own, many_worker = _peaks(tmp_path, many)
    assert many_own < 1.1 * few_own
    assert many_worker < 1.1 * few_worker
