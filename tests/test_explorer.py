"""The explorer: filters, what a look shows, new content, and that no text of the data becomes markup."""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PHOTO, TASK, config_for, make_sources
from PIL import Image

from trm_nb import build
from trm_nb.errors import RejectedError, UserError
from trm_nb.notebook import explore
from trm_nb.notebook.explorer import pieces
from trm_nb.notebook.explorer.collection import Collection, Filter
from trm_nb.notebook.explorer.explorer import Explorer
from trm_nb.notebook.explorer.look import MAX_UPLOAD, Thought, look_at, look_at_file, look_at_text, think
from trm_nb.pipeline.run import open_run
from trm_nb.report.sanitise import clean_piece

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two models, a denoised photograph and hostile names and labels."""
    path = tmp_path_factory.mktemp("explorer")
    sources = make_sources(path)
    (sources / "code" / "heapq.py").unlink()  # long
    (sources / HOSTILE).mkdir()
    for n in range(6):
        (sources / HOSTILE / f"{HOSTILE}{n}.txt").write_text(f"{HOSTILE} {n}" * 9)
    noise = np.random.default_rng(0).normal(0, 30, (224, 224, 3))
    with Image.open(PHOTO) as photo:
        noisy = np.asarray(photo.resize((224, 224)), np.float64) + noise
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(sources / "photos" / "noisy.png")
    settings = {"train_steps": 2, "train_width": 64, "train_batch_size": 16, "test_fraction": 0.4, "use_denoiser": True}
    run = build(config_for(sources, path / "run", **settings)).output_dir
    with closing(open_run(output_dir=run, model="grids", objective="grid")) as other:
        other.train()
    return run


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return Collection(open_run(output_dir=folder))


@pytest.fixture
def explorer(folder: Path) -> Explorer:
    return explore(folder)


def first(collection: Collection, **wanted: str) -> int:
    return int(collection.matching(Filter(**wanted))[0])


@pytest.mark.parametrize(
    ("wanted", "column", "values"),
    [
        (Filter(), "status", {"ok"}),
        (Filter(modality="image"), "modality", {"image"}),
        (Filter(label=HOSTILE), "label", {HOSTILE}),
        (Filter(split="test"), "split", {"test"}),
        (Filter(modality="grid", split="train"), "label", {"tasks"}),
        (Filter(contains="BISECT"), "item_id", {"my sources/code/bisect.py"}),
        (Filter(contains="ALERT(1)>3"), "item_id", {f"my sources/{HOSTILE}/{HOSTILE}3.txt"}),
    ],
    ids=["all", "kind", "label", "split", "two at once", "name", "a name with signs"],
)
def test_a_filter_keeps_what_it_says(collection: Collection, wanted: Filter, column: str, values: set[str]) -> None:
    places = collection.matching(wanted)
    assert len(places)
    assert set(collection.table[column].iloc[places]) == values
    kept = [name for name in ("modality", "label", "split") if getattr(wanted, name) != "any"]
    every = collection.table
    for name in kept:
        every = every[every[name] == getattr(wanted, name)]
    if not wanted.contains:
        assert len(every) == len(places), "a sample that passes was left out"


def test_mistakes_are_those_of_the_last_step(collection: Collection) -> None:
    import pandas as pd

    table = pd.read_parquet(collection.run.paths.model("main").predictions)
    last = table[table["step"] == table["step"].max()]
    expected = sorted(last.loc[last["prediction"] != last["target"], "row"])
    places = collection.matching(Filter(wrong_of="main"))
    assert collection.dataset.rows[places].tolist() == expected != []


def test_neighbours_are_other_samples_by_distance(collection: Collection) -> None:
    for place in (0, 5):
        look = look_at(collection, place)
        assert place not in [one.place for one in look.neighbours]
        distances = [one.distance for one in look.neighbours]
        assert distances == sorted(distances) and len(distances) == 6


def test_a_denoised_photograph_is_shown_before_and_after(collection: Collection) -> None:
    look = look_at(collection, first(collection, contains="noisy"))
    assert look.rendered is not None and (look.rendered != look.image).any() and not look.remarks
    assert "noise" in look.facts
    shown = pieces.images(look)
    assert shown.count("<img") == 3 and "difference" in shown and "no decoder" in shown
    clean = pieces.images(look_at(collection, first(collection, contains="grace_hopper")))
    assert "the denoiser changed nothing" in clean and "difference" not in clean


def test_a_lost_source_is_said(folder: Path, tmp_path: Path) -> None:
    gone = open_run(output_dir=folder)
    elsewhere = gone.config.with_changes(source_paths=[str(tmp_path)])
    collection = Collection(type(gone)(elsewhere, sources_needed=False))
    look = look_at(collection, first(collection, modality="image"))
    assert look.rendered is None and "source is gone" in look.remarks[0]


def test_new_content_is_encoded_as_the_run_was(collection: Collection) -> None:
    photo = look_at_file(collection, "mine.jpg", PHOTO.read_bytes())
    known = look_at(collection, first(collection, modality="image"))
    assert (photo.image == known.image).all() and (photo.capsules == known.capsules).all()
    assert photo.neighbours[0].place == known.place and photo.neighbours[0].distance == pytest.approx(0, abs=1e-3)
    text = look_at_text(collection, f"{HOSTILE} 3" * 9)
    assert text.neighbours[0].distance == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.bin", b"\0\1\2", "binary"),
        ("a.docx", b"PK\3\4" + bytes(40), "ZIP"),
        ("a.png", PHOTO.read_bytes()[:500], None),
        (HOSTILE, b"", None),
        ("../../etc/passwd", b"\0", "binary"),
        ("a.\0", b"\0", "binary"),
        ("huge", bytes(MAX_UPLOAD + 1), "at most 64 MiB"),
    ],
    ids=["binary", "archive", "truncated", "empty", "a path", "a suffix with NUL", "too large"],
)
def test_a_file_that_cannot_be_used_is_one_sentence(
    collection: Collection, name: str, data: bytes, match: str | None
) -> None:
    try:
        look = look_at_file(collection, name, data)
    except (UserError, RejectedError) as error:
        assert match is None or match in str(error)
        assert "trm-nb-" not in str(error), "it names the temporary file"
    else:
        assert match is None and look.image.shape == (224, 224, 3)


def test_an_empty_text_is_refused(collection: Collection) -> None:
    with pytest.raises(UserError, match="expected a text"):
        look_at_text(collection, "  \n")


@pytest.mark.parametrize("model", ["main", "grids"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_predictions_are_recorded_or_computed_alike(collection: Collection, model: str, split: str) -> None:
    place = first(collection, modality="grid", split=split)
    look = look_at(collection, place)
    thought = think(collection, look, model)
    computed = collection.model(model).predict_capsules(look.capsules[None])[0]
    assert [value for value, _ in thought.steps] == [value for value, _ in computed]
    assert thought.remark == ("The model was trained on this sample." if split == "train" else "")
    assert thought.target == ("tasks" if model == "main" else TASK["test"][0]["output"])


def test_a_model_says_what_it_cannot_be_asked(collection: Collection) -> None:
    text = look_at_text(collection, "no puzzle")
    assert think(collection, text, "main").steps
    assert "neither" in think(collection, text, "grids").remark
    assert "no target" in think(collection, look_at(collection, first(collection, modality="text")), "grids").remark


def test_wrong_cells_of_a_board_are_framed() -> None:
    thought = Thought([([[1, 2], [3, 4]], 0.5), ([[1, 2], [4, 4]], 0.9)], [[1, 2], [4, -1]])
    assert pieces.prediction(thought, 1).count("trm-wrong") == 1
    assert "every cell is right" in pieces.prediction(thought, 2)
    unknown = pieces.prediction(Thought([([[1, 2]], 0.5)]), 1)
    assert "not known" in unknown and "trm-wrong" not in unknown


def test_no_text_of_the_data_is_markup(explorer: Explorer) -> None:
    assert explorer.widget
    explorer.label.value = HOSTILE
    assert explorer.look.facts["label"] == HOSTILE
    explorer.show_file(HOSTILE, HOSTILE.encode())
    explorer.contains.value = "nothing has this name <b>"
    shown = [widget.value for widget in _html_of(explorer.widget)] + [explorer._repr_html_()]
    assert any("&lt;img src=x" in text for text in shown)
    assert not [text for text in shown if re.search(r"<img src=x|<b>\W*</div>", text)]


def _html_of(widget: Any) -> list[Any]:
    import ipywidgets

    found = [widget] if isinstance(widget, ipywidgets.HTML) else []
    return found + [one for child in getattr(widget, "children", ()) for one in _html_of(child)]


def test_the_controls_choose_what_is_shown(explorer: Explorer) -> None:
    assert explorer.widget and explorer.position.max == len(explorer.collection.table)
    explorer.kind.value = "image"
    assert explorer.look.facts["kind"] == "image" and explorer.position.max == 2
    explorer.kind.value = "any"
    explorer.next.click()
    assert explorer.look.place == 1 and explorer.position.value == 2
    explorer.previous.click()
    assert explorer.look.place == 0
    explorer.near[2][1].click()
    third = look_at(explorer.collection, 0).neighbours[2].place
    assert explorer.look.place == third == explorer.position.value - 1
    explorer.model.value, explorer.wrong.value = "main", True
    assert explorer.position.max == len(explorer.collection.matching(Filter(wrong_of="main")))
    before = explorer.predicted.value
    explorer.step.value = 1
    assert explorer.predicted.value != before
    explorer.text.value = "typed"
    explorer.text_button.click()
    assert explorer.look.name == "your text" and "your text" in explorer.head.value
    explorer.kind.value = "image"
    explorer.label.value = "tasks"
    assert "no sample passes" in explorer.says.value


def test_an_upload_is_shown(explorer: Explorer) -> None:
    assert explorer.widget
    upload = {"name": "mine.json", "type": "", "size": 9, "content": memoryview(json.dumps(TASK).encode())}
    explorer.upload.value = ({**upload, "last_modified": datetime.now(UTC)},)
    assert explorer.look.facts["kind"] == "grid" and explorer.look.name == "mine.json"
    assert explorer.upload.value == ()


def test_a_point_of_the_map_is_chosen(explorer: Explorer) -> None:
    pytest.importorskip("jscatter")
    assert explorer.widget and explorer.map.scatter is not None
    explorer.map.scatter.selection = np.array([7])
    assert explorer.look.place == int(explorer.collection.mapped[7])
    explorer.choose(3)
    assert explorer.map.scatter.selection.tolist() == [3]


def test_without_the_extra_the_map_is_a_plot(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jscatter", None)
    assert explorer.widget and explorer.map.scatter is None
    assert "pip install 'trm-nb[explore]'" in explorer.map._legend.value
    marks = []
    for place in (0, 3):
        explorer.choose(place)
        marks += re.findall(r'left:([\d.]+)%;top:([\d.]+)%"></span>', explorer.map._plot.value)
    assert len(marks) == 2 and all(0 < float(value) < 100 for mark in marks for value in mark)


def test_what_is_saved_survives_a_report(explorer: Explorer) -> None:
    saved = explorer._repr_html_()
    kept = clean_piece(saved)
    assert kept.count("<img") == saved.count("<img") >= 2
    assert "my sources/code/bisect.py" in kept and "Nearest neighbours" in kept
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", kept)


def test_the_overlays_show_where_a_capsule_attends() -> None:
    from trm_nb.notebook.plots import attention_overlays

    maps = np.zeros((2, 8, 8))
    maps[0, 2, 3] = maps[1, :, :] = 1.0
    shown = attention_overlays(np.full((224, 224, 3), 255, np.uint8), maps)
    red = (shown[0] != 255).any(-1)
    assert red[56:84, 84:112].all() and red.sum() == 28 * 28 and (shown[1] != 255).any(-1).all()


def test_an_unknown_model_and_an_unfinished_run_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of grids, main"):
        explore(folder, model="other")
    with pytest.raises(UserError):
        explore(tmp_path)


def test_a_picture_of_the_difference() -> None:
    one = np.array(Image.new("RGB", (4, 4), (10, 10, 10)))
    assert (pieces.difference(one, one) == 128).all() and (pieces.difference(one, one + 3) == 158).all()
