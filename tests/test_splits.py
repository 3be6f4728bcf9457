"""Splits: whole groups of items, stratified by label, whatever the order in which the run was made."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from conftest import config_for

from trm_nb import CapsuleDataset, CapsuleStream, StreamingEncoderBuilder, build
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.errors import UserError
from trm_nb.pipeline.plan import Planner
from trm_nb.pipeline.splits import quotas
from trm_nb.progress.planned import PlannedRow
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.records import Item
from trm_nb.render.renderer import Renderer


def items(labels: dict[str | None, int]) -> list[Item]:
    """So many texts of each label, all different."""
    return [
        Item(f"{label}/{n}", "text", f"text {n} about {label}", label=label)
        for label, count in labels.items()
        for n in range(count)
    ]


def splits(folder: Path, of: list[Item], **fields: float) -> dict[str, str]:
    """The split of each item, planned in a folder of its own."""
    with closing(TrainingProgressTracker(folder, create=True)) as tracker:
        for _ in Planner(tracker, Renderer().samples, **fields).from_items(of):  # type: ignore[arg-type]
            pass
        return {row.item_id: row.split for row in tracker.rows()}


def counts(found: dict[str, str]) -> dict[str, Counter[str]]:
    """Label -> split -> items."""
    by_label: dict[str, Counter[str]] = {}
    for name, split in found.items():
        by_label.setdefault(name.split("/")[0], Counter())[split] += 1
    return by_label


def test_each_label_has_its_part_in_each_split(tmp_path: Path) -> None:
    found = counts(splits(tmp_path, items({"a": 100, "b": 30, "c": 7, None: 20})))
    assert {label: (of["test"], of["val"], of["train"]) for label, of in found.items()} == {
        "a": (20, 10, 70), "b": (6, 3, 21), "c": (1, 1, 5), "None": (4, 2, 14),
    }  # fmt: skip


def test_the_test_split_does_not_depend_on_the_validation_split(tmp_path: Path) -> None:
    of = items({"a": 40, "b": 23})
    one, other = splits(tmp_path / "1", of), splits(tmp_path / "2", of, val_fraction=0.0)
    assert {n for n, split in one.items() if split == "test"} == {n for n, split in other.items() if split == "test"}
    assert "val" in one.values() and "val" not in other.values()


def test_the_order_of_the_items_does_not_matter_and_the_seed_does(tmp_path: Path) -> None:
    of = items({"a": 40, "b": 23, None: 9})
    first = splits(tmp_path / "1", of)
    random.Random(0).shuffle(of)
    assert splits(tmp_path / "2", of) == first
    assert splits(tmp_path / "3", of, seed=1) != first


def test_equal_items_are_in_one_split_also_with_several_labels(tmp_path: Path) -> None:
    copies = [Item(f"{label}/copy{n}", "text", f"text {n}", label=label) for n in range(40) for label in "ba"]
    found = splits(tmp_path, copies)
    assert all(found[f"a/copy{n}"] == found[f"b/copy{n}"] for n in range(40))
    assert counts(found)["a"] == {"train": 28, "test": 8, "val": 4}


CASES = [
    pytest.param([("a", 10)], 0.2, 0.1, [(2, 1)], id="exact"),
    pytest.param([("a", 1)], 0.9, 0.0, [(0, 0)], id="the only group is for training"),
    pytest.param([("a", 2)], 0.5, 0.4, [(1, 0)], id="test comes first"),
    pytest.param([("a", 3)], 0.5, 0.4, [(2, 0)], id="one is left for training"),
    pytest.param([(None, 4), ("a", 4)], 0.2, 0.1, [(1, 0), (1, 1)], id="rounding is made up for"),
    pytest.param([("a", 10)], 0.0, 0.0, [(0, 0)], id="nothing held out"),
    pytest.param([("a", 10)], 0.98, 0.01, [(9, 0)], id="nearly all"),
]


@pytest.mark.parametrize(("groups", "test", "val", "expected"), CASES)
def test_quotas(groups: list[tuple[str | None, int]], test: float, val: float, expected: list[tuple[int, int]]) -> None:
    assert [(for_test, for_val) for _, for_test, for_val in quotas(groups, test, val)] == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_many_small_labels_have_the_right_parts_together(size: int) -> None:
    found = list(quotas([(str(n), size) for n in range(1000)], 0.2, 0.1))
    test, val = (sum(of[part] for of in found) for part in (1, 2))
    assert all(abs(a - 0.2 * size) < 1 and abs(b - 0.1 * size) < 1 and a + b < size for _, a, b in found)
    assert (test, val) == (
        (0, 0) if size == 1 else (pytest.approx(200 * size, abs=1), pytest.approx(100 * size, abs=1))
    )


def test_a_build_of_files_and_one_in_memory_split_alike_in_any_order(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    for n in range(30):
        path = folder / ("first", "second")[n % 2] / f"{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {n}\n")
    one = build(config_for(folder, tmp_path / "one")).output_dir
    parts = [str(folder / "second"), str(folder / "first")]
    other = build(config_for(folder, tmp_path / "other", source_paths=parts, batch_size=7)).output_dir
    texts = [Item(f"{n}", "text", f"text {n}\n", label=("first", "second")[n % 2]) for n in reversed(range(30))]
    StreamingEncoderBuilder(tmp_path / "memory", batch_size=7, workers=0).stream_build(texts)
    tables = [pd.read_parquet(folder / "samples.parquet") for folder in (one, other, tmp_path / "memory")]
    sides = [dict(zip(table["key"], table["split"], strict=True)) for table in tables]
    assert sides[0] == sides[1] == sides[2]
    assert Counter(sides[0].values()) == {"train": 21, "test": 6, "val": 3}
    assert tables[0]["split_group"].nunique() == 30

    dataset = CapsuleDataset(one, split="val")
    assert len(dataset) == 3 and set(dataset.splits) == {"val"} and dataset.info["counts"]["splits"]["val"] == 3
    assert sorted(next(iter(CapsuleStream(dataset, batch_size=3)))["row"].tolist()) == dataset.rows.tolist()
    assert "3 val" in (one / "README.md").read_text(encoding="utf-8")


def test_a_growing_plan_has_no_splits_yet(tmp_path: Path) -> None:
    with closing(TrainingProgressTracker(tmp_path, create=True)) as tracker:
        planner = Planner(tracker, Renderer().samples).from_items(items({"a": 1200}))
        next(planner)
        assert tracker.rows_planned() == 500 and tracker.split_counts() == {}
        assert tracker.rows(0, 1)[0].split == "" and "by split" not in repr(tracker)
        assert sum(1 for _ in planner) == 1199
        assert tracker.split_counts() == {"test": 240, "train": 840, "val": 120}


def test_a_lost_tracker_is_made_again_with_the_same_splits(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(20):
        (folder / f"{n}.txt").write_text(f"text {n}\n")
    config = config_for(folder, tmp_path / "run")
    build(config)
    before = pd.read_parquet(tmp_path / "run" / "samples.parquet")
    (tmp_path / "run" / "progress.sqlite").unlink()
    (tmp_path / "run" / "samples.parquet").unlink()
    build(config)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "samples.parquet"), before)


def test_a_run_without_groups_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    with closing(TrainingProgressTracker(tmp_path, create=True)) as tracker, tracker.transaction() as db:
        db.execute("ALTER TABLE rows DROP COLUMN split_group")
    with pytest.raises(UserError, match="made by an earlier version of trm-nb"):
        TrainingProgressTracker(tmp_path)
    shutil.rmtree(tmp_path)


def test_a_thousand_labels_are_split_in_the_tracker(tmp_path: Path) -> None:
    rows = [
        PlannedRow(n, f"s{n}", f"i{n}", "text", "f", 0, 1, f"l{n % 1000}", "", f"{n:032x}", split_group=f"{n:016x}")
        for n in range(10_000)
    ]
    with closing(TrainingProgressTracker(tmp_path, create=True)) as tracker:
        tracker.add_rows(rows, [], [])
        tracker.set_splits(quotas(tracker.groups_by_label(), 0.2, 0.1))
        assert tracker.split_counts() == {"test": 2000, "train": 7000, "val": 1000}


@pytest.mark.parametrize(("test", "val"), [(0.5, 0.5), (0.95, 0.1), (0.0, 1.0)])
def test_something_must_be_left_to_train_on(test: float, val: float) -> None:
    values = {"source_paths": ["x"], "output_dir": "y", "test_fraction": test, "val_fraction": val}
    with pytest.raises(UserError, match="val_fraction: "):
        MultimodalDatasetConfig.parse(values, "the test")
