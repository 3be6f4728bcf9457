"""A trained model used on new content: the evaluation's predictions, and a sentence where there are none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PHOTO, config_for, make_sources
from hostile import damaged_images, disguises, make_corpus, make_part, names
from PIL import Image
from safetensors.torch import load_file, save_file

from trm_nb import ImageCache, Item, Model, TextRenderer, TRMVisionEncoder, build
from trm_nb.cli.main import main
from trm_nb.denoise import SHIPPED, load_denoiser
from trm_nb.errors import UserError
from trm_nb.models import hardware
from trm_nb.models.checkpoints import read_weights, save_weights
from trm_nb.models.tiny_recursive_model import TinyRecursiveModel, TRMConfig
from trm_nb.pipeline.run import open_run
from trm_nb.progress.run_folder import RunPaths
from trm_nb.records import GridTask, Precision
from trm_nb.training.objective import DEEP
from trm_nb.training.state import KIND

MODELS = {"main": "label", "grids": "grid", "pages": "next"}
TOLERANCE = 1e-5  # of probabilities: the rest of the batch is another one


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a model for each objective."""
    folder = tmp_path_factory.mktemp("predict")
    sources = make_sources(folder)
    (sources / "code" / "heapq.py").unlink()
    lines = [[f"Document {n}, line {m}\n" for m in range(30 + 10 * n)] for n in range(6)]
    for n, document in enumerate(lines):
        (sources / "code" / f"document{n}.txt").write_text("".join(document))
    settings = {"train_steps": 3, "train_width": 64, "train_batch_size": 64, "test_fraction": 0.5}
    settings["encoder_precision"] = "float32"  # on all machines, as it is computed by hand below
    path = build(config_for(sources, folder / "run", **settings)).output_dir
    for name, objective in list(MODELS.items())[1:]:
        with closing(open_run(output_dir=path, model=name, objective=objective)) as other:
            other.train()
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return Model.load(run)


def evaluated(run: Path, name: str) -> pd.DataFrame:
    """predictions.parquet with the path and the page of each sample."""
    samples = pd.read_parquet(run / "samples.parquet")
    table = pd.read_parquet(RunPaths(run).model(name).predictions)
    table = table[table["split"] == "test"]
    return table.join(samples[["source", "page"]], on="row").reset_index(drop=True)


def as_rows(run: Path, frame: pd.DataFrame) -> dict[tuple[str, int, int], tuple[str, float]]:
    return {
        (str(row.item_id), int(row.page), int(row.step)): (repr(plain(row.prediction)), row.probability)
        for row in frame.itertuples()
    }


def plain(value: Any) -> Any:
    return np.array([list(row) for row in value]).tolist() if isinstance(value, list | np.ndarray) else value


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_the_dataset_are_predicted_as_by_the_evaluation(run: Path, name: str) -> None:
    there = evaluated(run, name)
    frame = Model.load(run, name).predict([Path(path) for path in dict.fromkeys(there["source"])])
    assert frame["error"].isna().all()
    here = as_rows(run, frame)
    samples = pd.read_parquet(run / "samples.parquet")
    for row in there.itertuples():
        prediction, probability = here.pop((row.source, row.page, row.step))
        wanted = plain(row.prediction)
        if MODELS[name] == "next":
            next_page = samples.iloc[wanted]
            wanted = f"{next_page.source}#{next_page.page}"
        assert prediction == repr(wanted)
        assert probability == pytest.approx(row.probability, abs=TOLERANCE)
    assert not here and len(there) > 6


def test_the_last_page_of_a_document_asks_nothing(run: Path, tmp_path: Path) -> None:
    for name in ("one.txt", "other.txt"):
        (tmp_path / name).write_text("".join(f"{name}, line {n}\n" for n in range(40)))
    paths = [tmp_path / "one.txt", tmp_path / "one.txt", tmp_path / "other.txt"]
    frame = Model.load(run, "pages").predict(paths)
    assert frame["item_id"].tolist() == [str(path) for path in paths for _ in range(4)]
    assert frame["page"].tolist() == [0, 0, 1, 1] * 3
    assert set(frame["prediction"]) <= {f"{path}#{page}" for path in paths for page in (1, 2)}
    assert frame["error"].isna().all()


def test_a_copy_elsewhere_is_predicted_alike(run: Path, tmp_path: Path, model: Model) -> None:
    first = evaluated(run, "main").iloc[0]
    copy = tmp_path / f"under another name{Path(first.source).suffix}"
    shutil.copy(first.source, copy)
    frame = model.predict(copy)
    assert frame["item_id"].unique().tolist() == [str(copy)]
    assert frame["prediction"].iloc[0] == first.prediction
    assert frame["probability"].iloc[0] == pytest.approx(first.probability, abs=TOLERANCE)


# -- content that is not in the dataset, computed in another way ------------------------------------------------------


def by_hand(run: Path, name: str, images: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Classes and probabilities after each step, from the public encoder and the file of weights alone."""
    with torch.inference_mode():
        capsules = TRMVisionEncoder("tiny")(torch.from_numpy(images)).half().float()
    path = RunPaths(run).model(name).weights
    network = TinyRecursiveModel(TRMConfig(**read_weights(path, KIND)[1]["architecture"])).eval()
    network.load_state_dict(load_file(path))
    batch = {"capsules": capsules}
    carry = network.initial_carry(batch)
    classes, probabilities = [], []
    for _ in range(network.config.halt_max_steps):
        with torch.inference_mode():
            carry, outputs = network(carry, batch)
        logits = outputs["logits"].double().numpy()
        s = np.where(logits < 0, 1 / (1 - logits), logits + 1)
        classes.append(logits.argmax(-1))
        probabilities.append((s / s.sum(-1, keepdims=True)).max(-1).prod(-1))
    return classes, probabilities


def new_task(folder: Path) -> Path:
    path = folder / "new task.json"
    pairs = [{"input": [[7, 7], [1, 2]], "output": [[2, 1], [7, 7]]}]
    path.write_text(json.dumps({"train": pairs, "test": [{"input": [[3, 4], [4, 3]]}]}))
    return path


def new_photo(folder: Path) -> Path:
    path = folder / "new photo.png"
    Image.open(PHOTO).crop((100, 50, 324, 274)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    return path


@pytest.mark.parametrize("kind", ["text", "image", "task"])
def test_new_content_is_predicted_as_its_images_say(run: Path, tmp_path: Path, model: Model, kind: str) -> None:
    text = "A text that the dataset does not hold.\n" * 40
    if kind == "text":
        path, images = tmp_path / "new.txt", TextRenderer().render_pages(text)
        path.write_text(text)
    elif kind == "image":
        path = new_photo(tmp_path)  # 224x224, so that nothing is scaled
        images = np.array(Image.open(path).convert("RGB"))[None]
    else:
        path = new_task(tmp_path)
        cache = ImageCache(tmp_path / "cache")
        task = GridTask(((np.array([[7, 7], [1, 2]]), np.array([[2, 1], [7, 7]])),), (np.array([[3, 4], [4, 3]]),))
        images = cache.get_many(cache.populate([task]).keys)
    frame = model.predict([path])
    assert len(frame) == 2 * len(images) and (len(images) > 1) == (kind == "text")
    classes, probabilities = by_hand(run, "main", images)
    for step in (1, 2):
        here = frame[frame["step"] == step]
        names = [model.objective.dataset.classes[number] for number in classes[step - 1][:, 0]]
        assert here["prediction"].tolist() == names
        np.testing.assert_allclose(here["probability"], probabilities[step - 1], atol=TOLERANCE)


def test_a_new_task_is_answered_by_a_grid(run: Path, tmp_path: Path) -> None:
    model = Model.load(run, "grids")
    frame = model.predict([new_task(tmp_path)])
    cache = ImageCache(tmp_path / "cache")
    image = cache.get_many(cache.populate(items_of(new_task(tmp_path), run)).keys)
    classes, probabilities = by_hand(run, "grids", image)
    shape, outside = model.objective.shape, model.objective.outside
    for step, (wanted, probability) in enumerate(zip(classes, probabilities, strict=True), 1):
        (row,) = frame[frame["step"] == step].itertuples()
        grid = np.where(wanted[0] == outside, -1, wanted[0]).reshape(shape)
        assert row.prediction == grid.tolist()
        assert row.probability == pytest.approx(probability[0], abs=TOLERANCE)


def items_of(path: Path, run: Path) -> list[Item]:
    from trm_nb.pipeline.prediction.contents import contents_of

    with closing(open_run(output_dir=run)) as opened:
        return [content.item for content in contents_of([path], opened.config) if content.item]


def test_an_image_of_a_task_is_answered_as_the_task(run: Path, tmp_path: Path) -> None:
    path = new_task(tmp_path)
    cache = ImageCache(tmp_path / "cache")
    Image.fromarray(cache.get(cache.populate(items_of(path, run)).keys[0])).save(tmp_path / "task.png")
    frame = Model.load(run, "grids").predict([path, tmp_path / "task.png"])
    task, image = (frame[frame["item_id"] == str(name)] for name in (path, tmp_path / "task.png"))
    assert task["prediction"].tolist() == image["prediction"].tolist() and len(task) == DEEP["halt_max_steps"]


def test_values_in_memory_are_predicted_as_the_files_of_them(tmp_path: Path, model: Model) -> None:
    (tmp_path / "a.txt").write_text("One line.\n")
    photo, grid = new_photo(tmp_path), [[1, 2], [3, 4]]
    (tmp_path / "g.json").write_text(json.dumps(grid))
    image = Image.open(photo).convert("RGB")
    in_memory = model.predict(["One line.\n", image, np.asarray(image), grid, Item("mine", "text", "One line.\n")])
    from_files = model.predict([tmp_path / "a.txt", photo, photo, tmp_path / "g.json", tmp_path / "a.txt"])
    columns = ["page", "step", "prediction", "probability"]
    pd.testing.assert_frame_equal(in_memory[columns], from_files[columns])
    names = ["text-00000000", "image-00000001", "image-00000002", "grid-00000003", "mine"]
    assert in_memory["item_id"].tolist() == [name for name in names for _ in range(2)]


@pytest.mark.parametrize("lone", ["text\n", np.zeros((30, 30, 3), np.uint8), new_photo], ids=["str", "array", "path"])
def test_one_value_needs_no_list(tmp_path: Path, model: Model, lone: Any) -> None:
    assert len(model.predict(lone(tmp_path) if callable(lone) else lone)) == 2


def test_the_columns_are_the_same_whatever_there_is(tmp_path: Path, model: Model) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    frames = [model.predict(contents) for contents in ([], ["text"], [tmp_path / "broken.png"])]
    kinds = {"item_id": "object", "page": "Int64", "step": "Int64", "prediction": "object", "error": "object"}
    for frame in frames:
        assert frame.dtypes.astype(str).to_dict() == kinds | {"probability": "float64"}
    assert [len(frame) for frame in frames] == [0, 2, 1]


def test_the_documented_example_runs(run: Path, tmp_path: Path) -> None:
    documented = (Path(__file__).parents[1] / "docs/how-to/train.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", documented, re.DOTALL) if "Model.load(" in block)
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    found: dict[str, Any] = {}
    exec(code.replace('"outputs/smoke"', repr(str(run))).replace("photo.jpg", str(tmp_path / "photo.jpg")), found)
    assert len(found["frame"]) == 6 and found["frame"]["error"].isna().all()


# -- what cannot be predicted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Path("nowhere/at all.txt"), "no 'nowhere' in"),
        (3.5, "as a list of paths, texts or images, got float"),
        ([3.5], "sample 0: expected text, a PIL image, an integer grid or an Item, got float"),
        (["fine", {"a": 1}], "sample 1: expected text"),
        (["fine", str(PHOTO)], r"sample 1: the text '.*' is the name of a file; give pathlib.Path"),
    ],
)
def test_a_mistake_in_the_contents_is_one_sentence(model: Model, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        model.predict(value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("grids", "text", "predicts the answer grids of puzzles and tasks, and this is neither"),
        ("grids", [[1, 2]], "predicts the answer grids of puzzles and tasks, and this is neither"),
        ("grids", GridTask((), (np.ones((2, 2), int),) * 2), "this task has 2 test inputs"),
        ("grids", GridTask(((np.ones((2, 2), int),) * 2,), ()), "this task has 0 test inputs"),
        ("pages", "one page", "which page of a document is the next one, and this has one page"),
    ],
)
def test_what_the_objective_does_not_ask_has_its_reason(run: Path, name: str, value: Any, said: str) -> None:
    frame = Model.load(run, name).predict([value])
    assert len(frame) == 1 and said in frame["error"][0]


def test_a_file_that_belongs_to_another_is_not_passed_over(tmp_path: Path, model: Model) -> None:
    task = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}
    (tmp_path / "a_challenges.json").write_text(json.dumps({"00000001": task}))
    (tmp_path / "a_solutions.json").write_text(json.dumps({"00000001": [[[4]]]}))
    frame = model.predict([tmp_path / "a_solutions.json", tmp_path])
    assert (
        frame["item_id"].tolist()
        == [str(tmp_path / "a_solutions.json")] + [f"{tmp_path}/a_challenges.json#00000001"] * 2
    )
    assert "belongs to another file" in frame["error"][0] and frame["error"][1:].isna().all()


def test_damaged_files_have_their_reason_and_the_others_are_predicted(tmp_path: Path, model: Model) -> None:
    for part in (damaged_images, names, disguises):
        for name in list(make_part(tmp_path / "corpus", part))[1:]:
            if hash_of(name) % 4:  # the soak takes them all
                (tmp_path / "corpus" / name).unlink()
    (tmp_path / "corpus" / "good.txt").write_text("A line.\n")
    assert_accounted_for(model.predict([tmp_path / "corpus"]), tmp_path / "corpus")


def hash_of(name: str) -> int:
    return sum(name.encode("utf-8", "surrogateescape"))


def assert_accounted_for(frame: pd.DataFrame, corpus: Path) -> None:
    usable = frame["error"].isna()
    assert usable.any() and (~usable).any()
    assert frame["prediction"][usable].notna().all() and frame["prediction"][~usable].isna().all()
    assert all(error and error.isprintable() for error in frame["error"][~usable])
    assert all(name.isprintable() for name in frame["item_id"])
    assert str(corpus / "good.txt") in set(frame["item_id"][usable])
    files = sum(path.is_file() and not path.is_symlink() for path in corpus.rglob("*"))
    assert frame["item_id"].nunique() >= files


@pytest.mark.soak
def test_the_whole_hostile_corpus_is_accounted_for(tmp_path: Path, model: Model) -> None:
    assert len(make_corpus(tmp_path / "corpus")) > 400
    (tmp_path / "corpus" / "good.txt").write_text("A line.\n")
    frame = model.predict([tmp_path / "corpus"])
    usable = frame["error"].isna()
    assert usable.any() and all(error and error.isprintable() for error in frame["error"][~usable])
    assert str(tmp_path / "corpus" / "good.txt") in set(frame["item_id"][usable])


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_line_for_each_sample(
    run: Path, tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, text = new_photo(tmp_path), tmp_path / "two pages.txt"
    text.write_text("A line.\n" * 20)
    assert main(["predict", str(run), str(photo), str(text)]) == 0
    frame = model.predict([photo, text])
    last = frame[frame["step"] == 2]
    names = [str(photo), f"{text}#0", f"{text}#1"]
    wanted = [
        f"{name:{len(names[-1])}}  {row.prediction}  {row.probability:.1%}"
        for name, row in zip(names, last.itertuples(), strict=True)
    ]
    assert capsys.readouterr().out.splitlines() == wanted


def test_the_command_prints_json_of_all_steps_and_says_what_failed(
    run: Path, tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, photo = tmp_path / "broken.png", new_photo(tmp_path)
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert main(["predict", str(run), "--json", str(broken), str(photo)]) == 1
    said = capsys.readouterr()
    first, *rest = json.loads(said.out)
    assert first["prediction"] is None and first["error"] and first["step"] is None
    assert [(row["item_id"], row["step"], row["error"]) for row in rest] == [(str(photo), n, None) for n in (1, 2)]
    assert [row["prediction"] for row in rest] == model.predict(photo)["prediction"].tolist()
    assert said.err.splitlines() == [f"{broken}: {first['error']}"]


def test_the_command_prints_a_grid_in_its_rows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = new_task(tmp_path)
    assert main(["predict", str(run), str(path), "--model", "grids"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    grid = Model.load(run, "grids").predict(path)["prediction"].iloc[-1]
    assert first.startswith(str(path))
    assert [[int(cell) for cell in row.split()] for row in rows] == [
        [cell for cell in row if cell >= 0] for row in grid if max(row) >= 0
    ]


# -- models that cannot be used ---------------------------------------------------------------------------------------


def truncated(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:5000])


def without_header(weights: Path) -> None:
    save_file({"a": torch.zeros(3)}, weights)


def changed(**values: Any) -> Callable[[Path], None]:
    def change(weights: Path) -> None:
        held, header = read_weights(weights, KIND)
        save_weights(weights, KIND, held, header | values)

    return change


def of_another_size(weights: Path) -> None:
    held, header = read_weights(weights, KIND)
    save_weights(weights, KIND, held, header | {"architecture": header["architecture"] | {"hidden_size": 128}})


def without_a_weight(weights: Path) -> None:
    held, header = read_weights(weights, KIND)
    held.pop("lm_head.weight")
    save_weights(weights, KIND, held, header)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "got a file that cannot be read"),
    "no header": (without_header, "expected a checkpoint of the reasoning TRM, got one of None"),
    "not finished": (lambda weights: weights.unlink(), "is not finished; `trm-nb train` continues it"),
    "of another dataset": (changed(content_digest="0123"), "dataset='0123', not .* belongs to another dataset"),
    "of another size": (of_another_size, "hidden_size=128, not 64"),
    "no sizes": (changed(architecture=[1]), "vocab_size=None, not"),
    "a setting of another type": (changed(train_width="wide"), "models/main: .*train_width"),
    "an unknown objective": (changed(objective="no such"), "expected one of label, grid, next, got 'no such'"),
    "a missing weight": (without_a_weight, r"'lm_head.weight' expected \(\d+, 64\), got nothing"),
    "damaged settings": (
        lambda weights: (weights.parent / "config.yaml").write_text("[") and None,
        "expected the settings of a training",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_model_is_one_sentence(
    run: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("images.zarr")))
    (tmp_path / "a.txt").write_text("text")
    do, said = DAMAGES[damage]
    do(RunPaths(folder).model("main").weights)
    with pytest.raises(UserError, match=said):
        Model.load(folder)
    assert main(["predict", str(folder), str(tmp_path / "a.txt")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("folder", "name", "said"),
    [
        ("", "mian", "expected one of grids, main, pages, got 'mian'"),
        ("", "../run/models/main", "got '../run/models/main'"),
        ("models", "main", "no run here|progress.sqlite|holds no run"),
    ],
)
def test_a_model_that_is_not_there_is_named(run: Path, folder: str, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Model.load(run / folder, name)


def small_run(folder: Path, **settings: Any) -> Path:
    """A run of eight texts of two classes with a model."""
    for n, label in enumerate("aabbaabb"):
        (folder / "texts" / label).mkdir(parents=True, exist_ok=True)
        (folder / "texts" / label / f"{n}.txt").write_text(f"{label} {n}\n" * 5)
    settings |= {"train_steps": 1, "train_width": 64, "test_fraction": 0.4, "encoder_precision": "float32"}
    return build(config_for(folder / "texts", folder / "run", **settings)).output_dir


def test_another_encoder_than_the_datasets_is_refused(tmp_path: Path) -> None:
    TRMVisionEncoder("tiny", seed=1).save(tmp_path / "encoder.pt")
    run = small_run(tmp_path, encoder_path=str(tmp_path / "encoder.pt"))
    assert len(Model.load(run).predict(["new\n"])) == 2
    TRMVisionEncoder("tiny", seed=2).save(tmp_path / "encoder.pt")
    with pytest.raises(UserError, match="the capsules were made by the encoder"):
        Model.load(run)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_noisy_image_is_denoised_as_the_runs_are(tmp_path: Path, precision: Precision) -> None:
    shutil.copy(Path(SHIPPED["base"]), tmp_path / "denoiser.pt")
    given = {"use_denoiser": True, "denoiser_path": str(tmp_path / "denoiser.pt")}
    run = small_run(tmp_path, **given, denoiser_precision=precision)
    clean = np.asarray(Image.open(new_photo(tmp_path)).convert("RGB"), np.float64)
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 25, clean.shape), 0, 255).astype(np.uint8)
    denoiser = load_denoiser(tmp_path / "denoiser.pt", precision=precision)
    assert denoiser
    restored, _ = denoiser.restore_images(noisy[None])
    assert np.square(restored[0] - clean).mean() < np.square(noisy - clean).mean() / 3
    frame = Model.load(run).predict([noisy])
    _, probabilities = by_hand(run, "main", restored)
    np.testing.assert_allclose(frame["probability"], np.concatenate(probabilities), atol=TOLERANCE)
    (tmp_path / "denoiser.pt").unlink()
    with pytest.raises(UserError, match=r"denoised by [0-9a-f]+, and here that is nothing"):
        Model.load(run).predict([noisy])


def test_the_large_denoiser_is_chosen_by_its_name_and_computes_as_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, use_denoiser=True, denoiser="large")
    info = json.loads((run / "dataset_info.json").read_text(encoding="utf-8"))
    large = load_denoiser(SHIPPED["large"], precision=info["denoiser_computed_in"])
    assert large is not None
    assert info["denoiser"] == large.fingerprint
    fast = hardware.fast_in_bfloat16("cpu")
    monkeypatch.setattr(hardware, "fast_in_bfloat16", lambda device: not fast)
    assert len(Model.load(run).predict([np.full((64, 64, 3), 99, np.uint8)])) == 2  # a row for each step
