"""Sources that are made instead of read: `sudoku:SIDE:COUNT`, `maze:SIDE:COUNT`, and whole runs of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trm_nb import CapsuleDataset, build
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.params import load_params
from trm_nb.pipeline.splits import group_of
from trm_nb.records import Item, Puzzle
from trm_nb.render.puzzle import PuzzleRenderer
from trm_nb.sources.puzzles.sudoku import relabelled
from trm_nb.sources.reader import Skipped, scan


def config(*sources: str, **fields: object) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig.parse({"source_paths": list(sources), "output_dir": "out", **fields}, "test")


def items(*sources: str, **fields: object) -> list[Item]:
    return [e for reading in scan(config(*sources, **fields)) for e in reading.entries if isinstance(e, Item)]


def test_puzzles_are_items_with_answers_and_images_that_read_back() -> None:
    found = items("sudoku:4:5", "maze:7:3")
    assert [item.item_id for item in found] == [
        *(f"sudoku-4x4/{n:07d}" for n in range(5)), *(f"maze-7x7/{n:07d}" for n in range(3)),
    ]  # fmt: skip
    assert {item.label for item in found[:5]} <= {"easy", "medium", "hard"} and found[5].label is None
    for item in found:
        assert isinstance(item.payload, Puzzle) and item.payload.solution is not None
        image = PuzzleRenderer().render(item.payload)
        assert np.array_equal(PuzzleRenderer().decode(image), item.payload.puzzle)


def test_they_follow_from_the_seed_and_a_larger_count_only_adds() -> None:
    def rendered(source: str, **fields: object) -> list[bytes]:
        return [item.payload.puzzle.tobytes() for item in items(source, **fields)]  # type: ignore[union-attr]

    assert rendered("sudoku:6:4") == rendered("sudoku:6:6")[:4] != rendered("sudoku:6:4", seed=1)
    assert len(items("sudoku:6:6", limit=2)) == 2


def test_few_digits_are_a_source_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = items("sudoku:6:3:10")
    assert [item.item_id for item in found] == [f"sudoku-6x6-10/{n:07d}" for n in range(3)]
    assert all(np.count_nonzero(item.payload.puzzle) <= 10 for item in found)  # type: ignore[union-attr]
    monkeypatch.setattr("trm_nb.sources.puzzles.sudoku.MOST_REPEATS", 10)
    with pytest.raises(UserError, match="sudoku:6:3:8: only 0 different ones were found; ask for as many, or for more"):
        items("sudoku:6:3:8")


def test_more_than_there_are_are_refused_in_the_end() -> None:
    with pytest.raises(UserError, match=r"maze:5:200: only 13\d different ones were found"):
        items("maze:5:200")
    assert len(items("maze:5:130")) == 130


def test_grids_that_are_left_out_are_not_made() -> None:
    (reading,) = scan(config("sudoku:9:1000000", include_grids=False))
    (entry,) = reading.entries
    assert isinstance(entry, Skipped)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("sudoku:5:10", "expected a side of 4, 6 or 9, got 5"),
        ("maze:31:10", "expected a side of 5 to 30, got 31"),
        ("sudoku:4", "expected sudoku:SIDE:COUNT, for example"),
        ("sudoku:4:ten", "expected sudoku:SIDE:COUNT, for example"),
        ("maze:7:10:5", "expected maze:SIDE:COUNT, for example"),
        ("sudoku:9:10:25:1", "expected sudoku:SIDE:COUNT, for example"),
        ("sudoku:9:10:16", "expected 17 to 80 digits, as fewer leave more than one solution, got 16"),
        ("sudoku:4:10:16", "expected 4 to 15 digits"),
        ("maze:7:0", "expected a count of 1 to 10,000,000, got 0"),
    ],
)
def test_users_mistakes(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        items(source)


def test_a_params_file_names_them_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("source_paths: ['sudoku:4:20']\noutput_dir: out\n", encoding="utf-8")
    assert load_params(file).source_paths == ["sudoku:4:20"]


def test_a_run_of_them_builds_continues_and_keeps_solutions_apart(tmp_path: Path) -> None:
    settings = config("sudoku:4:60", "maze:5:10", encoder="tiny", workers=0, batch_size=40, image_size=112)
    settings = settings.with_changes(output_dir=str(tmp_path / "run"))
    build(settings)
    build(settings)  # nothing to do, and nothing has changed
    dataset = CapsuleDataset(tmp_path / "run")
    assert len(dataset) == 70 and set(dataset.splits) == {"train", "val", "test"}
    solution_of = {item.item_id: item.payload.solution for item in items("sudoku:4:60", "maze:5:10")}  # type: ignore[union-attr]
    boards: dict[str, set[bytes]] = {"train": set(), "val": set(), "test": set()}
    for i, (name, split) in enumerate(zip(dataset.sample_ids, dataset.splits, strict=True)):
        (target,) = dataset.target(i)
        assert np.array_equal(target.numpy(), solution_of[name])
        boards[split].add(target.numpy().tobytes())
    assert sum(map(len, boards.values())) == len(set.union(*boards.values())), "each solution is in one split"


@pytest.mark.parametrize(("split_sudokus", "apart"), [("solution", False), ("relabelled", True)])
def test_a_strict_group_holds_solutions_whatever_their_digits_are_called(split_sudokus: str, apart: bool) -> None:
    groups: dict[bytes, set[str]] = {}
    for item in items("sudoku:4:400"):
        assert isinstance(item.payload, Puzzle) and item.payload.solution is not None
        group = group_of(item, 0, names_count=split_sudokus == "solution")
        groups.setdefault(relabelled(item.payload.solution).tobytes(), set()).add(group)
    assert len(set.union(*groups.values())) >= len(groups) == 12
    assert all(len(of) == 1 for of in groups.values()) is apart
