"""An image that a table names is read there alone, wherever the table is and however it writes the name."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.pipeline import plan
from trm_nb.pipeline.check import source_changes
from trm_nb.pipeline.plan import Planner
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Item, Rejected
from trm_nb.render.renderer import Renderer
from trm_nb.sources.reader import NamedImages, scan

RunPython = Callable[..., subprocess.CompletedProcess[str]]
NFC, NFD = (unicodedata.normalize(form, "Käse") for form in ("NFC", "NFD"))
COLUMNS = {"image_column": "file_name", "label_column": "label"}
KILLED = """
import sys
from trm_nb.pipeline import plan
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.plan import Planner
from trm_nb.render.renderer import Renderer
from trm_nb.progress.tracker import TrainingProgressTracker
plan.BLOCK = 4
config = MultimodalDatasetConfig(source_paths=[sys.argv[1]], output_dir="unused", image_column="file_name",
                                 label_column="label")
planner = Planner(TrainingProgressTracker(sys.argv[2], create=True), Renderer().samples)
print(sum(1 for _ in planner.from_sources(config)))
"""


def png(colour: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (colour, 99, 200)).save(data, "PNG")
    return data.getvalue()


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def photos(folder: Path, table: dict[str, str | bytes] | None = None, suffix: str = ".JPG") -> Path:
    """cats/0, cats/1, dogs/0 and dogs/1, and a table."""
    images = {f"{kind}/{n}{suffix}": png(10 * n + len(kind)) for kind in ("cats", "dogs", "s") for n in range(2)}
    return write(folder, {name: data for name, data in images.items() if name[0] != "s"} | (table or {}))


def config(*paths: Path, **fields: Any) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig(source_paths=[str(p) for p in paths], output_dir="unused", **fields)


def found(*paths: Path, **fields: Any) -> tuple[dict[str, str | None], dict[str, str]]:
    """The labels of the images by id without the source's name, and the reasons of what is quarantined."""
    labels: dict[str, str | None] = {}
    reasons = {}
    for reading in scan(config(*paths, **fields)):
        for entry in reading.entries:
            if isinstance(entry, Item):
                labels[entry.item_id.partition("/")[2]] = entry.label
            elif isinstance(entry, Rejected):
                reasons[entry.path.partition("/")[2]] = entry.reason
    return labels, reasons


ROWS = [("cats/0.JPG", "x"), ("cats/1.JPG", "y"), ("dogs/0.JPG", "x")]
EXPECTED = {"dogs/1.JPG": "dogs", "{}#0": "x", "{}#1": "y", "{}#2": "x"}


def as_csv(rows: list[tuple[str, str]]) -> str:
    return "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in rows)


def as_lines(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in rows)


def as_parquet(rows: list[tuple[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"file_name": [name for name, _ in rows], "label": [label for _, label in rows]}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", as_csv(ROWS)),
        ("metadata.jsonl", as_lines(ROWS)),
        ("metadata.json", as_lines(ROWS)),
        ("metadata.parquet", as_parquet(ROWS)),
        ("a.csv", as_csv(ROWS)),
        ("metadata.csv", as_csv(ROWS).replace(",", ";").replace("\n", "\r")),
        ("metadata.csv", as_csv([(f"./{name}", label) for name, label in ROWS])),
        ("metadata.csv", as_csv([(name.replace("/", "\\"), label) for name, label in ROWS])),
        ("metadata.csv", as_csv([(name.replace("/", "//"), label) for name, label in ROWS])),
    ],
    ids=["csv", "jsonl", "json", "parquet", "table first", "semicolons", "dot", "backslash", "slashes"],
)
def test_the_image_belongs_to_the_table(tmp_path: Path, name: str, content: str | bytes) -> None:
    labels, reasons = found(photos(tmp_path, {name: content}), **COLUMNS)
    assert labels == {key.format(name): label for key, label in EXPECTED.items()}
    assert not reasons


def test_a_table_in_each_split_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        photos(tmp_path / split, {"metadata.csv": as_csv(ROWS)})
    labels, _ = found(tmp_path, **COLUMNS)
    assert labels == {
        "test/dogs/1.JPG": "test", **{f"test/metadata.csv#{n}": label for n, (_, label) in enumerate(ROWS)},
        "train/dogs/1.JPG": "train", **{f"train/metadata.csv#{n}": label for n, (_, label) in enumerate(ROWS)},
    }  # fmt: skip


def test_without_a_label_column_the_label_is_the_folder_of_the_image(tmp_path: Path) -> None:
    rows = "file_name,text\ncats/0.JPG,one\ndogs/0.JPG,two\ntop.png,three\n,four\n"
    labels, _ = found(photos(tmp_path / "p", {"metadata.csv": rows, "top.png": png()}), image_column="file_name")
    assert labels == {
        "cats/1.JPG": "cats", "dogs/1.JPG": "dogs",
        "metadata.csv#0/image": "cats", "metadata.csv#0/text": "cats",
        "metadata.csv#1/image": "dogs", "metadata.csv#1/text": "dogs",
        "metadata.csv#2/image": "p", "metadata.csv#2/text": "p",
        "metadata.csv#3/text": "p",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "labels", "refused"),
    [
        pytest.param({"a.csv": as_csv(ROWS[:1]), "b.csv": as_csv([("cats/0.JPG", "z"), ("cats/0.JPG", "w")])},
                     {"a.csv#0": "x", "b.csv#0": "z", "b.csv#1": "w"}, set(), id="named three times"),
        pytest.param({"a.csv": as_csv([("cats/0.JPG", "l" * 300)])}, {}, {"a.csv#0"}, id="a row that is refused"),
        pytest.param({"a.csv": "file_name\ncats/0.JPG\n"}, {"cats/0.JPG": "cats"}, {"a.csv"}, id="a refused table"),
        pytest.param({".a.csv": as_csv(ROWS[:1])}, {"cats/0.JPG": "cats"}, set(), id="a hidden table"),
        pytest.param({"a.txt": as_csv(ROWS[:1])}, {"cats/0.JPG": "cats", "a.txt": "p"}, set(), id="no table"),
        pytest.param({"a.csv": as_csv([("cats/0.jpg", "x")])}, {"cats/0.JPG": "cats"}, {"a.csv#0"}, id="another case"),
        pytest.param({"cats/a.csv": as_csv([("../cats/0.JPG", "x")])}, {"cats/0.JPG": "cats"}, {"cats/a.csv#0"},
                     id="a path upwards"),
        pytest.param({"a.csv": as_csv([("n.txt", "x")]), "n.txt": "words"}, {"cats/0.JPG": "cats", "n.txt": "p"},
                     {"a.csv#0"}, id="a text"),
        pytest.param({"a.csv": as_csv([("cats/0.JPG", "x"), ("n.png", "x")]), "n.png": "words"}, {"a.csv#0": "x"},
                     {"a.csv#1"}, id="what only claims to be an image"),
    ],
)  # fmt: skip
def test_rows_and_tables_that_are_no_use(
    tmp_path: Path, files: dict[str, str], labels: dict[str, str], refused: set[str]
) -> None:
    got, reasons = found(photos(tmp_path / "p", {**files}), **COLUMNS)
    walk = {"cats/1.JPG": "cats", "dogs/0.JPG": "dogs", "dogs/1.JPG": "dogs"}
    assert got == walk | labels
    assert reasons.keys() == refused


def test_a_struct_of_bytes_and_path(tmp_path: Path) -> None:
    rows = [{"path": "cats/0.JPG", "bytes": None}, {"path": "cats/gone.JPG", "bytes": png()}]
    pq.write_table(pa.table({"image": rows, "label": [3, 10]}), photos(tmp_path) / "t.parquet")
    labels, _ = found(tmp_path, label_column="label")
    assert labels == {
        "cats/1.JPG": "cats", "dogs/0.JPG": "dogs", "dogs/1.JPG": "dogs", "t.parquet#0": "3", "t.parquet#1": "10",
    }  # fmt: skip


@pytest.mark.parametrize("on_disk", [NFC, NFD], ids=["nfc on disk", "nfd on disk"])
@pytest.mark.parametrize("in_table", [f"{NFC}/{NFC}.png", f"{NFD}/{NFD}.png", f"{NFC}/{NFD}.png"], ids=["c", "d", "cd"])
def test_names_in_either_unicode_form(tmp_path: Path, on_disk: str, in_table: str) -> None:
    write(tmp_path, {f"{on_disk}/{on_disk}.png": png(), "t.csv": as_csv([(in_table, NFD)])})
    assert found(tmp_path, **COLUMNS) == ({"t.csv#0": NFC}, {})
    (path,) = [item.payload.path for reading in scan(config(tmp_path, **COLUMNS)) for item in reading.entries]  # type: ignore[union-attr]
    assert path == tmp_path / on_disk / f"{on_disk}.png"


def test_other_sources_and_links(tmp_path: Path) -> None:
    photos(tmp_path / "data", {"labels.csv": as_csv(ROWS[:2])})
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "data/dogs/copy.png").symlink_to("../cats/0.JPG")
    labels, _ = found(tmp_path / "link/cats", tmp_path / "data/dogs", tmp_path / "data/labels.csv", **COLUMNS)
    assert labels == {
        "0.JPG": "dogs", "1.JPG": "dogs", "copy.png": "dogs", "labels.csv#0": "x", "labels.csv#1": "y",
    }, "a link to a file is a file of its own"  # fmt: skip
    (tmp_path / "data/labels.csv").write_text(as_csv([("dogs/copy.png", "z")]))
    labels, _ = found(tmp_path / "data", **COLUMNS)
    assert labels == {"cats/1.JPG": "cats", "dogs/0.JPG": "dogs", "dogs/1.JPG": "dogs", "labels.csv#0": "z"}


def test_nothing_is_looked_for_where_images_are_left_out(tmp_path: Path) -> None:
    folder = photos(tmp_path, {"t.csv": as_csv(ROWS)})
    assert folder / "cats/0.JPG" in NamedImages(config(folder, **COLUMNS))
    assert folder / "cats/0.JPG" not in NamedImages(config(folder, include_images=False, **COLUMNS))


# ------------------------------------------------------------------------------------- in the plan


def planned(tracker: TrainingProgressTracker, config: MultimodalDatasetConfig) -> int:
    return sum(1 for _ in Planner(tracker, Renderer().samples).from_sources(config))


def state(tracker: TrainingProgressTracker) -> list[Any]:
    files = tracker.query("SELECT name, size, sha256, first_row, rows, items, left_out FROM files ORDER BY name")
    return [tracker.rows(), files, tracker.rejected(), tracker.get("plan_frozen")]


def many(folder: Path) -> Path:
    rows = [(f"b/{n:02}.png", str(n % 3)) for n in range(10)]
    images: dict[str, str | bytes] = {f"b/{n:02}.png": png(n) for n in range(12)}
    return write(folder, {**images, "a.csv": as_csv(rows[:5]), "c.csv": as_csv(rows[5:]), "d.txt": "words"})


@pytest.mark.parametrize("fault", ["rows-planned:1", "rows-planned:2", "rows-planned:3"])
def test_killed_and_resumed_the_plan_comes_out_the_same(tmp_path: Path, run_python: RunPython, fault: str) -> None:
    sources = many(tmp_path / "sources")
    whole = TrainingProgressTracker(tmp_path / "whole", create=True)
    assert planned(whole, config(sources, **COLUMNS)) == 10 + 2 + 1
    assert {name: rows for name, *_, rows, _, _ in state(whole)[1] if not rows} == {
        f"sources/b/{n:02}.png": 0 for n in range(10)
    }, "they are files of the plan, without rows"
    killed = run_python(KILLED, str(sources), str(tmp_path / "killed"), fault=fault)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    tracker = TrainingProgressTracker(tmp_path / "killed")
    assert tracker.rows_planned() < 13
    planned(tracker, config(sources, **COLUMNS))
    assert state(tracker) == state(whole)
    source_changes(config(sources, **COLUMNS), tracker)


@pytest.mark.parametrize("name", ["sources/b/03.png", "sources/b/11.png", "sources/a.csv"])
def test_what_changes_afterwards_is_named(tmp_path: Path, name: str) -> None:
    sources = many(tmp_path / "sources")
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    planned(tracker, config(sources, **COLUMNS))
    (tmp_path / name).write_bytes(png(200))
    with pytest.raises(UserError, match=f"{name} changed; a run's plan is fixed"):
        source_changes(config(sources, **COLUMNS), tracker)


def test_a_table_added_after_the_kill_does_not_make_two_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK", 1)
    sources = photos(tmp_path / "sources", {"z.txt": "words"})
    tracker = TrainingProgressTracker(tmp_path / "run", create=True)
    samples = Planner(tracker, Renderer().samples).from_sources(config(sources, **COLUMNS))
    rendered = [next(samples).key for _ in range(2)]
    tracker.resolve(rendered, {})
    (sources / "y.csv").write_text(as_csv(ROWS[:1]))
    with pytest.raises(UserError, match=r"the sources changed: row 0 was sources/cats/0.JPG and is now sources/cats/1"):
        planned(tracker, config(sources, **COLUMNS))


def test_a_format_that_is_not_read_is_quarantined_once_with_its_row(tmp_path: Path) -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    write(tmp_path, {"cats/0.heic": heic, "metadata.csv": as_csv([("cats/0.heic", "x")])})
    labels, reasons = found(tmp_path, **COLUMNS)
    assert labels == {} and list(reasons) == ["metadata.csv#0"]
    assert "HEIC" in reasons["metadata.csv#0"]
