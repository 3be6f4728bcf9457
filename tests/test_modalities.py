"""The table of modalities: a further one takes its module and one line, from recognising a file to training on it.

Its code is the example in CONTRIBUTING.md, so the test is the proof of that text too.
"""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from runs import walk_through

from trm_nb import CapsuleDataset
from trm_nb.pipeline.verify import verify
from trm_nb.records import GridTask, ImageBytes, ImageFile, Puzzle, StoredFile
from trm_nb.render.modalities import MODALITIES, is_untrusted, kind_of, kind_of_file, kind_of_page

ROOT = Path(__file__).parents[1]
RATE = 8000

BUILD = """
import json, sys
import {module}
from trm_nb import MultimodalDatasetConfig, build
report = build(MultimodalDatasetConfig(**json.loads(sys.argv[1])))
print(report.rows, report.quarantined, len(report.training.predictions.rows))
"""


def wav(tone: float, seconds: float = 0.5, *, seed: int = 0, rate: int = RATE) -> bytes:
    """A noisy tone, 16 bits, one channel."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 300, len(time))
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes((8000 * np.sin(2 * np.pi * tone * time) + noise).astype("<i2").tobytes())
    return out.getvalue()


def with_field(data: bytes, offset: int, form: str, value: int) -> bytes:
    """The same file, with another number in its header."""
    return data[:offset] + struct.pack(form, value) + data[offset + struct.calcsize(form) :]


TONE = wav(440)
GARBAGE = random.Random(0).randbytes(5000)
HOSTILE = {  # file's name -> its bytes, and how its reason begins
    "truncated.wav": (TONE[:3000], "truncated or empty: its header promises 8,000 bytes"),
    "header-alone.wav": (TONE[:20], "the sound cannot be decoded: EOFError"),
    "data-of-4-gib.wav": (with_field(TONE, 40, "<I", 2**32 - 4), "truncated or empty: its header promises 4,294,967,2"),
    "format-of-4-gib.wav": (with_field(TONE, 16, "<I", 2**32 - 2), "the sound cannot be decoded: RuntimeError"),
    "no-sound.wav": (wav(440, 0), "truncated or empty: its header promises 0 bytes"),
    "no-channels.wav": (with_field(TONE, 22, "<H", 0), "the sound cannot be decoded: bad # of channels"),
    "compressed.wav": (with_field(TONE, 20, "<H", 85), "the sound cannot be decoded: unknown format"),
    "rate-0.wav": (with_field(TONE, 24, "<I", 0), "expected 8 or 16 bits at 1 to 400 kHz, got 16 bits at 0 Hz"),
    "64-bits.wav": (with_field(TONE, 34, "<H", 64), "expected 8 or 16 bits at 1 to 400 kHz, got 64 bits"),
    "garbage-behind-riff.wav": (b"RIFF\xff\xff\xff\xffWAVE" + GARBAGE, "the sound cannot be decoded"),
    "no-wav.wav": (b"\x01\0" + GARBAGE, "neither text nor an image: binary"),  # by its content it is no sound at all
}


def write_tones(folder: Path, each: int) -> None:
    """Two folders of tones, low and high; the last file of `low` is 25 seconds long: three images."""
    for label, tone in (("low", 300), ("high", 2500)):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            (folder / label / f"{number:02d}.wav").write_bytes(wav(tone + 7 * number, seed=number))
    (folder / "low" / "long.wav").write_bytes(wav(300, 25))
    for name, (data, _) in HOSTILE.items():
        (folder / "high" / name).write_bytes(data)


@pytest.mark.parametrize(
    "each",
    [
        pytest.param(12, id="in the run's own process", marks=pytest.mark.slow),
        pytest.param(30, id="in worker processes", marks=pytest.mark.slow),
    ],
)
def test_the_example_of_a_modality_is_built_verified_and_trained_on(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]], each: int
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "spectrograms.py").write_text(walk_through("Add a modality"), encoding="utf-8")
    write_tones(tmp_path / "tones", each)
    values = {
        "source_paths": [str(tmp_path / "tones")], "output_dir": str(tmp_path / "run"), "encoder": "tiny",
        "batch_size": 40, "workers": 2, "torch_threads": 1, "train_steps": 60, "train_width": 64,
        "train_batch_size": 16, "test_fraction": 0.3,
    }  # fmt: skip
    path = f"{tmp_path / 'modules'}:{ROOT}"
    done = run_python(BUILD.format(module="spectrograms"), json.dumps(values), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    rows, quarantined, judged = map(int, done.stdout.split()[-3:])
    assert (rows, quarantined) == (2 * each + 3, len(HOSTILE)) and judged > 3
    assert verify(tmp_path / "run", deep=True) == []
    samples = pq.read_table(tmp_path / "run" / "samples.parquet").to_pylist()
    assert {(row["modality"], row["status"]) for row in samples} == {("audio", "ok")}
    assert [row["pages"] for row in samples if "long" in row["item_id"]] == [3, 3, 3]
    reasons = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    given = {Path(line["path"]).name: line["reason"] for line in reasons}
    assert given.keys() == HOSTILE.keys()
    assert not {name: given[name] for name, (_, reason) in HOSTILE.items() if not given[name].startswith(reason)}
    assert CapsuleDataset(tmp_path / "run").classes == ("high", "low")


def test_the_table_knows_each_payload_page_and_file() -> None:
    grid = np.zeros((2, 2), int)
    payloads = {
        "text": ["x"], "image": [ImageFile(Path("a"), "00"), ImageBytes(b"")],
        "grid": [grid, GridTask(((grid, grid),), ()), Puzzle("maze", grid)],
    }  # fmt: skip
    for kind, some in payloads.items():
        assert {kind_of(payload) for payload in some} == {kind}
    assert kind_of(StoredFile(Path("a"), "00")) is None and kind_of_page(object()) is None
    assert [is_untrusted(content) for content in (ImageBytes(b""), object())] == [True, False]
    assert kind_of_file(b"words") is None and kind_of_file(b"\x89PNG\r\n\x1a\n") is None


@pytest.mark.parametrize("kind", MODALITIES)
def test_no_two_lines_of_the_table_take_the_same_class(kind: str) -> None:
    mine, others = MODALITIES[kind], [entry for name, entry in MODALITIES.items() if name != kind]
    assert not {c for c in mine.payloads for entry in others for other in entry.payloads if issubclass(c, other)}
