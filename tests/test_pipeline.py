"""build(config): one dataset whatever the way, the workers, the kills; changed settings and sources are refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from conftest import PHOTO, config_for, make_sources
from PIL import Image

import trm_nb
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.denoise import SHIPPED, load_denoiser
from trm_nb.errors import UserError
from trm_nb.models import hardware
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.pipeline.builder import StreamingEncoderBuilder
from trm_nb.pipeline.check import DENOISED_IN
from trm_nb.pipeline.encode_task import denoiser_precision_of
from trm_nb.pipeline.maintenance import reset
from trm_nb.pipeline.run import Run, build, open_run
from trm_nb.pipeline.verify import verify
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Precision
from trm_nb.storage.files import locked

MakeConfig = Callable[..., MultimodalDatasetConfig]
BUILD = """
import json, sys
from trm_nb import MultimodalDatasetConfig, build
print(build(MultimodalDatasetConfig(**json.loads(sys.argv[1]))).content_digest)
"""


@pytest.fixture(scope="module")
def digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed build of the same sources, elsewhere."""
    folder = tmp_path_factory.mktemp("reference")
    return build(config_for(make_sources(folder), folder / "run")).content_digest


def test_the_dataset_is_whole_and_readable_without_this_package(make_config: MakeConfig) -> None:
    config = make_config()
    report, path = build(config), Path(config.output_dir)
    capsules = zarr.open_array(path / "capsules.zarr" / "capsules", mode="r")
    samples = pandas.read_parquet(path / "samples.parquet")
    assert capsules.shape == (report.rows, 12, 512)
    assert capsules.dtype == np.float16
    assert len(samples) == report.rows
    assert np.isfinite(capsules[:]).all()
    labels = zarr.open_array(path / "capsules.zarr" / "labels", mode="r")[:]
    classes = json.loads((path / "dataset_info.json").read_text())["classes"]
    assert [classes[label] for label in labels] == samples["label"].tolist()
    assert classes == ["code", "photos", "tasks"]
    assert samples.groupby("item_id")["split"].nunique().max() == 1, "an item's pages straddle the splits"
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == [
        "README.md", "capsules.zarr", "dataset_info.json", "images.zarr", "progress.sqlite", "quarantine.jsonl",
        "samples.parquet",
    ]  # fmt: skip
    assert verify(path, deep=True) == []


def test_classes_are_numbered_by_one_rule_everywhere(tmp_path: Path) -> None:
    numbers, names = tmp_path / "numbers", tmp_path / "names"
    for folder in (numbers, *(names / unicodedata.normalize(form, "K\u00e4se") for form in ("NFC", "NFD"))):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(f"words in {len(str(folder))}")
    (numbers / "a.txt").unlink()
    rows = {"text": [f"row {n}" for n in range(12)], "label": list(reversed(range(-1, 11)))}
    pq.write_table(pa.table(rows), numbers / "t.parquet")
    for folder, classes in ((numbers, [str(n) for n in range(-1, 11)]), (names, ["K\u00e4se"])):
        config = config_for(folder, tmp_path / f"run of {folder.name}", label_column="label")
        build(config)
        path = Path(config.output_dir)
        assert json.loads((path / "dataset_info.json").read_text())["classes"] == classes
        assert TrainingProgressTracker(path).label_names() == classes
        dataset = CapsuleDataset(path)
        assert list(dataset.classes) == classes
        labels = zarr.open_array(path / "capsules.zarr" / "labels", mode="r")[:].tolist()
        expected = list(reversed(range(12))) if folder == numbers else [0, 0]
        assert labels == dataset.labels.tolist() == expected


def test_each_row_is_the_capsules_of_its_own_image(make_config: MakeConfig) -> None:
    import torch

    config = make_config(encoder_precision="float32")
    build(config)
    run = Run(config)
    samples = pandas.read_parquet(run.path / "samples.parquet")
    capsules = zarr.open_array(run.path / "capsules.zarr" / "capsules", mode="r")
    for row in (0, len(samples) // 2, len(samples) - 1):
        image = torch.from_numpy(run.cache.get(samples["key"][row])[None].copy())
        with torch.inference_mode():
            expected = run.encoder(image)[0].numpy()
        assert np.allclose(capsules[row], expected, atol=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": 2},
        {"start_threshold": 1},
        {"batches_per_chunk": 100},
        {"start_threshold": 10_000},
        {"torch_threads": 3, "micro_batch": 4},
    ],
    ids=str,
)
def test_what_cannot_change_bytes_does_not(make_config: MakeConfig, digest: str, changes: dict[str, object]) -> None:
    assert build(make_config("other", **changes)).content_digest == digest


def test_stage_after_stage_gives_the_same_as_build(make_config: MakeConfig, digest: str) -> None:
    run = Run(make_config("stages", batches_per_chunk=4))
    assert run.up_to("render") > 0
    assert run.tracker.get_stats()["stages"]["render"]["status"] == "done"
    assert run.up_to("denoise") == 0
    assert run.up_to("encode") > 0
    assert run.up_to("consolidate") > 0
    assert run.up_to("export") == 1
    assert run.info()["content_digest"] == digest
    assert [stage["status"] for stage in run.tracker.get_stats()["stages"].values()] == ["done"] * 4 + ["waiting"]


def test_a_complete_run_does_nothing_and_says_what_it_found(
    make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    first = build(config)
    capsys.readouterr()
    again = build(config)
    batches, chunks = -(-first.rows // 10), -(-first.rows // 30)
    assert capsys.readouterr().out == f"Found existing progress: {batches} batches + {chunks} chunks\n"
    assert (again.images_rendered, again.batches_encoded, again.content_digest) == (0, 0, first.content_digest)


QUICK = ["rows-planned", "images-renamed:2", "batch-receipt:2", "chunk-renamed", "chunk-recorded"]
SLOW = ["images-staged", "images-receipt:3", "images-resolved:2", "batch-staged:2", "batch-renamed:4",
        "batch-recorded:3", "chunk-staged:2", "chunk-receipt:2", "dataset-files", "dataset-info"]  # fmt: skip


def test_every_fault_point_of_the_write_path_is_killed_at() -> None:
    source = "".join(path.read_text() for path in Path(trm_nb.__file__).parent.rglob("*.py"))
    points = set(re.findall(r'fault_point\("([a-z-]+)"\)', source))
    killed_at = {fault.split(":")[0] for fault in (*QUICK, *SLOW)}
    elsewhere = {"train-step", "train-checkpoint", "pretrain-step", "pretrain-checkpoint"}
    assert points - killed_at == elsewhere  # test_reasoning.py, test_run.py, test_pretraining.py


@pytest.mark.parametrize("fault", [*QUICK, *(pytest.param(fault, marks=pytest.mark.slow) for fault in SLOW)])
def test_killed_and_continued_it_is_the_same(
    make_config: MakeConfig, digest: str, run_python: Callable[..., subprocess.CompletedProcess[str]], fault: str
) -> None:
    config = make_config("killed")
    killed = run_python(BUILD, config.model_dump_json(), fault=fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert verify(config.output_dir), "a killed run is not whole"
    assert build(config).content_digest == digest
    assert verify(config.output_dir, deep=True) == []


def test_the_precision_of_the_first_batch_is_kept(
    make_config: MakeConfig, digest: str, run_python: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where the run goes on with a torch or on a machine for which "auto" stands for the other one."""
    config = make_config("begun")
    killed = run_python(BUILD, config.model_dump_json(), fault="batch-recorded")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    fast = hardware.fast_in_bfloat16("cpu")
    monkeypatch.setattr(hardware, "fast_in_bfloat16", lambda device: not fast)
    assert build(config).content_digest == digest
    other = make_config("other")
    assert build(other).content_digest != digest
    info = json.loads((Path(other.output_dir) / "dataset_info.json").read_text())
    assert info["encoder"]["computed_in"] == ("float32" if fast else "bfloat16")


@pytest.mark.parametrize(
    ("frozen", "use_denoiser", "expected"),
    [
        pytest.param({}, True, "bfloat16", id="not planned yet"),
        pytest.param({}, False, "float32", id="nothing to denoise"),
        pytest.param({"renderers": {}}, True, "float32", id="planned before there was a choice"),
        pytest.param({"renderers": {}, DENOISED_IN: "float32"}, True, "float32", id="planned elsewhere"),
        pytest.param({"renderers": {}, DENOISED_IN: "bfloat16"}, True, "bfloat16", id="planned here"),
    ],
)
def test_the_denoisers_precision_is_that_of_the_plan(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, frozen: dict[str, object], use_denoiser: bool,
    expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(hardware, "fast_in_bfloat16", lambda device: True)
    assert denoiser_precision_of(frozen, make_config(use_denoiser=use_denoiser)) == expected


def test_a_run_goes_on_denoising_in_the_precision_that_it_began_with(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(use_denoiser=True, include_text=False, include_grids=False)
    monkeypatch.setattr(hardware, "fast_in_bfloat16", lambda device: False)
    begun = Run(config)
    begun.up_to("render")
    begun.close()
    monkeypatch.setattr(hardware, "fast_in_bfloat16", lambda device: True)
    other = make_config("other", use_denoiser=True, include_text=False, include_grids=False)
    expected: list[tuple[MultimodalDatasetConfig, Precision]] = [(config, "float32"), (other, "bfloat16")]
    for one, precision in expected:
        build(one)
        info = json.loads((Path(one.output_dir) / "dataset_info.json").read_text())
        denoiser = load_denoiser(SHIPPED["base"], precision=precision)
        assert denoiser is not None
        assert (info["denoiser"], info["denoiser_computed_in"]) == (denoiser.fingerprint, precision)
        assert f"computed in {precision}" in (Path(one.output_dir) / "README.md").read_text()


def test_a_lost_image_does_not_bring_a_quarantined_sample_back(make_config: MakeConfig, sources: Path) -> None:
    photo = sources / "photos" / "second.jpg"
    photo.write_bytes(PHOTO.read_bytes()[:20_000])
    config = make_config()
    first = build(config).content_digest
    for shard in (Path(config.output_dir) / "images.zarr/images/c").iterdir():
        shutil.rmtree(shard)
    assert build(config).content_digest == first
    assert verify(config.output_dir, deep=True) == []


def test_a_read_error_is_not_remembered_against_the_content(make_config: MakeConfig, sources: Path) -> None:
    config = make_config()
    run = Run(config)
    planned = list(run._planned())
    photo = sources / "photos" / PHOTO.name
    photo.rename(sources / "away.jpg")
    failures: dict[str, str] = {}
    run.cache.fill(iter(planned), lambda keys, failed: failures.update(failed))
    assert len(failures) == 1 and "cannot be read" in next(iter(failures.values()))
    (sources / "away.jpg").rename(photo)
    assert run.cache.failure(next(iter(failures))) is None
    build(config)
    assert verify(config.output_dir, deep=True) == []


@pytest.mark.parametrize("fault", ["rows-planned", "images-staged:2"])
def test_a_limit_counts_the_same_after_a_kill(
    make_config: MakeConfig, sources: Path, run_python: Callable[..., subprocess.CompletedProcess[str]], fault: str
) -> None:
    (sources / "code" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")  # an item that cannot be laid out
    for i in range(6):
        (sources / "code" / f"t{i}.txt").write_text(f"text {i}\n" * 40)
    whole, killed = make_config("whole", limit=5), make_config("killed", limit=5)
    run_python(BUILD, killed.model_dump_json(), fault=fault)
    assert build(killed).content_digest == build(whole).content_digest


@pytest.mark.parametrize("fault", ["images-resolved", "batch-recorded:9", "chunk-recorded:3"])
def test_no_stage_is_running_for_ever_after_a_kill(
    make_config: MakeConfig, run_python: Callable[..., subprocess.CompletedProcess[str]], fault: str
) -> None:
    config = make_config("killed")
    assert run_python(BUILD, config.model_dump_json(), fault=fault).returncode == -signal.SIGKILL
    build(config)
    assert TrainingProgressTracker(config.output_dir).get_stats()["state"] == "done"


def test_an_interruption_is_a_stop_and_not_a_failure(make_config: MakeConfig) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    config = make_config()
    with pytest.raises(KeyboardInterrupt):
        build(config, on_progress=interrupt)
    assert TrainingProgressTracker(config.output_dir).get_stats()["state"] == "stopped"
    build(config)


def test_build_is_a_function_whatever_was_imported_before(
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = "from trm_nb import open_run; import trm_nb.pipeline.run; from trm_nb import build; print(callable(build))"
    assert run_python(code).stdout == "True\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 20}, "batch_size=10, not batch_size=20"),
        ({"font_size": 8}, "font_size=12, not font_size=8"),
        ({"encoder": "base"}, "encoder='tiny', not encoder='base'"),
        ({"seed": 5}, "seed=0, not seed=5"),
    ],
    ids=lambda value: str(value),
)
def test_settings_that_would_mix_data_are_refused(
    make_config: MakeConfig, changes: dict[str, object], message: str
) -> None:
    build(make_config())
    with pytest.raises(UserError, match=message):
        build(make_config(**changes))


def _add(sources: Path) -> None:
    (sources / "code" / "added.py").write_text("x = 1\n")


def _change(sources: Path) -> None:
    (sources / "code" / "heapq.py").write_text("x = 1\n")


def _remove(sources: Path) -> None:
    (sources / "tasks" / "task03.json").unlink()


@pytest.mark.parametrize(
    ("edit", "message"),
    [(_add, r"my sources/code/added\.py added"), (_change, r"code/heapq\.py changed"), (_remove, r"task03\.json gone")],
    ids=["added", "changed", "gone"],
)
def test_sources_that_changed_are_refused(
    make_config: MakeConfig, sources: Path, edit: Callable[[Path], None], message: str
) -> None:
    build(make_config())
    edit(sources)
    with pytest.raises(UserError, match=message):
        build(make_config())


def test_a_touched_file_is_no_change(make_config: MakeConfig, sources: Path) -> None:
    build(make_config())
    (sources / "code" / "heapq.py").touch()
    assert build(make_config()).batches_encoded == 0


def test_broken_files_are_quarantined_and_the_rest_is_built(make_config: MakeConfig, sources: Path) -> None:
    (sources / "photos" / "cut.jpg").write_bytes(PHOTO.read_bytes()[:20_000])
    (sources / "photos" / "no.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (sources / "code" / "binary.txt").write_bytes(b"caf\0")
    (sources / "tasks" / "cut.json").write_text('{"train": [')
    config = make_config()
    build(config)
    lines = [json.loads(line) for line in (Path(config.output_dir) / "quarantine.jsonl").read_text().splitlines()]
    names = [Path(line["path"]).name for line in lines]
    assert names == ["binary.txt", "cut.jpg", "no.png", "cut.json"]
    samples = pandas.read_parquet(Path(config.output_dir) / "samples.parquet")
    failed = samples[samples["status"] == "quarantined"]
    assert failed["item_id"].tolist() == ["my sources/photos/cut.jpg"], "only what was planned has a row"
    capsules = zarr.open_array(Path(config.output_dir) / "capsules.zarr" / "capsules")[:]
    assert np.isnan(capsules[failed.index]).all()
    assert np.isfinite(capsules[samples.index.difference(failed.index)]).all()
    assert verify(config.output_dir, deep=True) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_paths": ["/nowhere/at/all"]}, "/nowhere/at/all"),
        ({"include_text": False, "include_images": False, "include_grids": False}, "nothing usable in the sources"),
        ({"max_errors": 0}, "1 quarantined, and max_errors is 0; the first: .*bad.txt"),
        ({"encoder_path": "/no/encoder.pt"}, r"/no/encoder\.pt"),
    ],
    ids=["missing path", "all left out", "too many errors", "no such encoder"],
)
def test_a_users_mistake_is_one_sentence(
    make_config: MakeConfig, sources: Path, changes: dict[str, object], message: str
) -> None:
    (sources / "code" / "bad.txt").write_bytes(b"\0")
    with pytest.raises(UserError, match=message) as error:
        build(make_config(**changes))
    assert "\n" not in str(error.value)


MISTAKES: list[dict[str, object]] = [
    {"source_paths": ["/nowhere/at/all"]}, {"include_text": False, "include_images": False, "include_grids": False},
    {"encoder_path": __file__}, {"max_errors": 0}, {"device": "cuda:9"},
]  # fmt: skip


@pytest.mark.parametrize("changes", MISTAKES, ids=lambda changes: next(iter(changes)))
def test_a_mistake_binds_nothing_so_that_it_can_be_corrected(
    make_config: MakeConfig, sources: Path, digest: str, changes: dict[str, object]
) -> None:
    bad = sources / "code" / "bad.txt"
    bad.write_bytes(b"\0")
    with pytest.raises(UserError):
        build(make_config(**changes))
    bad.unlink()
    report = build(make_config())
    assert (report.content_digest, report.quarantined) == (digest, 0)


def test_an_objective_with_nothing_to_learn_fixes_nothing(make_config: MakeConfig) -> None:
    values = {"train_steps": 1}  # neither of the two documents is held out
    with pytest.raises(UserError, match="training on next pages needs"):
        Run(make_config(objective="next", **values)).train()
    Run(make_config(objective="label", **values)).train()
    with pytest.raises(UserError, match=r"learning_rate=0\.001, not learning_rate=0\.01"):
        Run(make_config(objective="label", learning_rate=0.01, **values)).train()
    shutil.rmtree(Path(make_config().output_dir) / "models" / "main")
    Run(make_config(objective="label", learning_rate=0.01, **values)).train()


def test_what_is_not_a_runs_folder_is_left_alone(make_config: MakeConfig, tmp_path: Path) -> None:
    theirs = tmp_path / "run" / "thesis.tex"
    theirs.parent.mkdir()
    theirs.write_text("years of work")
    with pytest.raises(UserError, match=r"run is not empty \(thesis\.tex\) and holds no run"):
        build(make_config())
    with pytest.raises(UserError, match="no run here"):
        reset(theirs.parent)
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis.tex"]


def test_an_output_folder_among_the_sources_is_refused(make_config: MakeConfig, sources: Path) -> None:
    with pytest.raises(UserError, match="lies in the source path"):
        build(make_config(output_dir=str(sources / "out")))


def test_samples_are_those_of_samples_parquet(make_config: MakeConfig, sources: Path) -> None:
    (sources / "top.txt").write_text("has no folder of its own, so no label")
    run = Run(make_config(source_paths=[str(sources), "sudoku:4:2"]))
    run.up_to("export")
    samples, written = run.samples(), pq.read_table(run.path / "samples.parquet").drop_columns("target")
    run.close()
    assert samples.index.tolist() == list(range(written.num_rows)) and samples.index.name == "row"
    assert {name: str(samples.dtypes[name]) for name in ("sample_id", "page", "noise")} == {
        "sample_id": "str", "page": "int32", "noise": "float32",
    }  # fmt: skip
    assert samples["noise"].isna().all() and samples["edit"].isna().all()
    values = samples.astype(object).where(samples.notna(), None)
    assert values.to_dict("list") == written.to_pydict()


def test_every_page_of_a_scan_is_a_sample(make_config: MakeConfig, sources: Path) -> None:
    with Image.open(PHOTO) as photo:
        pages = [photo.resize((60, 70)), photo.resize((90, 50)), photo.resize((40, 80))]
    pages[0].save(sources / "photos" / "scan.tiff", save_all=True, append_images=pages[1:])
    run = Run(make_config())
    run.up_to("render")
    samples = run.samples()
    scan = samples[samples["item_id"].str.endswith("scan.tiff")]
    assert scan["page"].tolist() == [0, 1, 2]
    assert len({run.cache.get(key).tobytes() for key in scan["key"]}) == 3


def test_tables_globs_and_puzzles_go_through_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "more").mkdir(parents=True)
    (folder / "t.jsonl").write_text('{"text": "words", "kind": "a"}\nno JSON\n{"text": "more", "kind": "b"}\n')
    pq.write_table(pa.table({"image": [PHOTO.read_bytes()], "kind": ["photo"]}), folder / "more/p.parquet")
    (folder / "more/s.csv").write_text(f"puzzle,solution,kind\n{'0' * 15}1,,sudoku\n")
    (folder / "left.txt").write_text("no part of the glob")
    sources = [str(folder / "*.jsonl"), str(folder / "*" / "*.*")]
    config = config_for(folder, tmp_path / "run", source_paths=sources, label_column="kind", batch_size=4)
    build(config)
    samples = pandas.read_parquet(tmp_path / "run/samples.parquet")
    assert samples["item_id"].tolist() == ["in/t.jsonl#0", "in/t.jsonl#2", "in~2/more/p.parquet#0", "in~2/more/s.csv#0"]
    assert samples["label"].tolist() == ["a", "b", "photo", "sudoku"]
    assert samples["status"].tolist() == ["ok"] * 4
    lines = (tmp_path / "run/quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["in/t.jsonl#1"]
    assert build(config).batches_encoded == 0
    with pytest.raises(UserError, match="lies in the source path"):
        build(config.with_changes(output_dir=str(folder / "run")))


def test_a_folder_of_nothing_but_trouble_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"\0")
    with pytest.raises(UserError, match=r"nothing usable in the sources: 1 quarantined, the first in/a\.txt"):
        build(MultimodalDatasetConfig(source_paths=[str(tmp_path / "in")], output_dir=str(tmp_path / "out")))


def test_two_builds_on_one_folder_the_second_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    with (
        locked(Path(config.output_dir), "the first"),
        pytest.raises(UserError, match=r"is being written by .*the first"),
    ):
        build(config)


def test_reset_keeps_the_images_and_nothing_else_is_touched(make_config: MakeConfig, digest: str) -> None:
    config = make_config()
    build(config)
    path = Path(config.output_dir)
    (path / "mine.txt").write_text("keep")
    assert "capsules.zarr" in reset(path)
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == ["images.zarr", "mine.txt"]
    report = build(config)
    assert (report.content_digest, report.images_rendered) == (digest, 0)
    with pytest.raises(UserError, match="no run here"):
        reset(path / "elsewhere")


def test_stream_build_takes_samples_from_memory_and_resumes(tmp_path: Path) -> None:
    with Image.open(PHOTO) as photo:
        samples = [*(f"text {i}" for i in range(23)), photo.copy(), [[1, 2], [3, 4]]]
    for encoded in (3, 0):
        builder = StreamingEncoderBuilder(
            tmp_path / "run", batch_size=10, micro_batch=8, workers=0, encoder=TRMVisionEncoder("tiny")
        )
        report = builder.stream_build(samples=samples, renderer=None, start_threshold=5)
        assert (report.rows, report.batches_encoded, report.batches_total, report.chunks_total) == (25, encoded, 3, 1)
        assert verify(tmp_path / "run", deep=True) == []
    with pytest.raises(UserError, match="the sources changed"):
        builder.stream_build(samples=["other", *samples[1:]])


def test_an_error_while_drawing_ends_the_build_and_is_recorded(make_config: MakeConfig, sources: Path) -> None:
    for i in range(40):
        (sources / "code" / f"bad{i}.txt").write_bytes(b"\0")
    config = make_config(max_errors=5)
    with pytest.raises(UserError, match="max_errors is 5"):
        build(config)
    stats = TrainingProgressTracker(config.output_dir).get_stats()
    assert stats["state"] == "failed"
    assert "max_errors is 5" in stats["stages"]["render"]["message"]


def test_open_run_takes_a_params_file_and_overrides(make_config: MakeConfig, tmp_path: Path) -> None:
    params = tmp_path / "my params.yaml"
    params.write_text(json.dumps(make_config().model_dump()))
    run = open_run(params, tmp_path / "elsewhere", batch_size=7)
    assert (run.path, run.config.batch_size) == (tmp_path / "elsewhere", 7)
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    with pytest.raises(UserError, match=r"params file not found: nowhere\.yaml"):
        open_run("nowhere.yaml")
