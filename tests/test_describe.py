"""How objects show themselves: what they hold, escaped, and never an exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from runs import make_run

from trm_nb import CapsuleDataset, CapsuleStream, TrainingProgressTracker, open_run
from trm_nb.describe import Described, Facts, counted, named
from trm_nb.pipeline.run import Run
from trm_nb.progress.planned import PlannedRow

HOSTILE = '<img src=x onerror="alert(1)">&\x1b[31m\u202e'


class Elements(HTMLParser):
    """Collects what a browser would see: the elements, and the text in cells by its heading."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with hostile labels, in a folder with a hostile name."""
    folder = tmp_path_factory.mktemp("runs") / "a <b>run & more"
    folder.mkdir()
    make_run(folder, [HOSTILE, "b", None, "b"], ["train", "train", "test", "train"])
    rows = [PlannedRow(n, f"s{n}", f"s{n}", "text", "f", 0, 1, HOSTILE, "train", f"{n:032x}") for n in range(3)]
    tracker = TrainingProgressTracker(folder, create=True)
    tracker.add_rows(rows, [], [])
    tracker.close()
    return folder


OBJECTS: dict[str, tuple[Callable[[Path], Described], list[str]]] = {
    "Run": (lambda at: open_run(output_dir=at, source_paths=["x"]), ["at rest", "3 planned so far", "3 train"]),
    "TrainingProgressTracker": (TrainingProgressTracker, ["at rest", "3 planned so far", "3 text", "1: "]),
    "CapsuleDataset": (CapsuleDataset, ["1 test, 3 train", "1 grid, 1 image, 2 text", "2: ", "(4, 12, 512)"]),
    "CapsuleStream": (
        lambda at: CapsuleStream(CapsuleDataset(at), 2, rank=1, world_size=2), ["rank 1 of 2", "epoch 0, sample 0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_what_an_object_shows(folder: Path, name: str) -> None:
    make, expected = OBJECTS[name]
    thing = make(folder)
    text, seen = repr(thing), Elements(thing._repr_html_())
    assert text.splitlines()[0] == name == seen.texts[0]
    for part in [str(folder), *expected]:
        assert part in text and any(part in told for told in seen.texts)
    assert seen.tags == {"div", "strong", "table", "tbody", "tr", "th", "td"}
    assert "\x1b" not in text and "\u202e" not in text and len(max(text.splitlines(), key=len)) < 300
    if isinstance(thing, TrainingProgressTracker):
        thing.close()


@pytest.mark.parametrize("kind", [Run, TrainingProgressTracker, CapsuleDataset, CapsuleStream])
def test_a_half_made_object_shows_itself(kind: type[Described]) -> None:
    assert "cannot be read" in repr(kind.__new__(kind)) and "AttributeError" in kind.__new__(kind)._repr_html_()


def test_a_closed_tracker_and_damaged_files_are_told_of(folder: Path, tmp_path: Path) -> None:
    closed = TrainingProgressTracker(folder)
    closed.close()
    assert "closed database" in repr(closed)
    run = open_run(output_dir=tmp_path / "run", source_paths=["x"])
    assert "new" in repr(run) and not run.path.exists(), "showing a run makes nothing"
    run.path.mkdir()
    (run.path / "progress.sqlite").write_bytes(b"\0" * 4096)
    (run.path / "dataset_info.json").write_text(json.dumps({"counts": 3}))
    assert "DamagedError" in repr(run) and "KeyError" in repr(run)


class Told(Described):
    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def _facts(self) -> Facts:
        return self.facts


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({"a": 1234, "long name": None, "b": "x\ny"}, "Told\n  a  1,234\n  b  x y"),
        ({"a": "x" * 500}, f"Told\n  a  {'x' * 133} … {'x' * 50}"),
        ({"a": True}, "Told\n  a  True"),
        ({}, "Told"),
        (
            {"a": counted({}), "b": counted({"x": 1, "y": 2, "z": 3}, most=1)},
            "Told\n  a  none\n  b  1 x and 2 more",
        ),
        ({"a": named([]), "b": named(["x", "y", "z"], most=2)}, "Told\n  a  none\n  b  3: x, y and 1 more"),
    ],
)
def test_facts_as_text(facts: Facts, shown: str) -> None:
    assert repr(Told(facts)) == shown
