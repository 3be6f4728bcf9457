"""Forms of an ARC task: the same rule in other colours and directions, and never on the other side of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trm_nb import CapsuleDataset, build
from trm_nb.config import MultimodalDatasetConfig
from trm_nb.pipeline.splits import group_of
from trm_nb.records import GridTask, Item
from trm_nb.sources.arc.augment import SYMMETRIES, common_form, forms, task_bytes, turned
from trm_nb.sources.files import Skipped
from trm_nb.sources.reader import list_files, read_items

ARC = Path(__file__).parents[1] / "trm_nb" / "assets" / "demo" / "arc"
GRIDS = arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 9))
TASKS = st.builds(
    lambda one, other, asked, answer: GridTask(((one, other),), (asked,), (answer,)), GRIDS, GRIDS, GRIDS, GRIDS
)


def config_for(folder: Path, **changes: object) -> MultimodalDatasetConfig:
    return MultimodalDatasetConfig(source_paths=[str(ARC)], output_dir=str(folder), **changes)  # type: ignore[arg-type]


def test_there_are_eight_symmetries() -> None:
    grid = np.arange(6).reshape(2, 3)
    assert len({turned(grid, s).tobytes() + bytes(turned(grid, s).shape) for s in range(SYMMETRIES)}) == 8


@given(TASKS, st.integers(0, 3))
def test_a_form_changes_all_grids_alike_and_has_the_task_s_common_form(task: GridTask, seed: int) -> None:
    made = list(forms(task, 3, seed))
    assert len({task_bytes(form) for form in (task, *made)}) == 1 + len(made)
    assert [task_bytes(form) for form in made] == [task_bytes(form) for form in forms(task, 3, seed)]
    for form in made:
        assert common_form(form) == common_form(task)
        for before, after in zip(
            (*task.train[0], *task.test_inputs, *task.test_outputs),
            (*form.train[0], *form.test_inputs, *form.test_outputs),
            strict=True,
        ):
            assert after.dtype == np.int8 and sorted(after.shape) == sorted(before.shape)
            assert (after == 0).sum() == (before == 0).sum(), "0 stays"
            counts = [sorted(np.bincount(grid.flatten(), minlength=10)) for grid in (before, after)]
            assert counts[0] == counts[1], "colours change places"


def test_the_answer_is_changed_as_the_question_is() -> None:
    grid = np.array([[1, 2, 0], [0, 3, 3]], np.int8)
    task = GridTask(((grid, np.rot90(grid)),), (grid,), (np.where(grid == 3, 5, grid).astype(np.int8),))
    for form in forms(task, 20, 0):
        one, other = form.train[0]
        assert any(np.array_equal(other, turned(one, s)) for s in (1, 3)), "a quarter turn, mirrored or not, stays one"
        asked, answer = form.test_inputs[0], form.test_outputs[0]
        assert ((asked != answer).sum(), len(np.unique(answer[asked != answer]))) == (2, 1)


def test_forms_are_items_of_their_own_in_their_task_s_group(tmp_path: Path) -> None:
    plain, augmented = config_for(tmp_path), config_for(tmp_path, arc_forms=4)
    before, after = (
        [item for file in list_files(config) for item in read_items(file, config) if isinstance(item, Item)]
        for config in (plain, augmented)
    )
    assert [item.item_id for item in after if "@" not in item.item_id] == [item.item_id for item in before]
    assert len({item.item_id for item in after}) == len(after) == 5 * len(before)
    groups: dict[str, set[str]] = {}
    for item in after:
        groups.setdefault(item.item_id.split("@")[0], set()).add(group_of(item, 0, forms_count=False))
    assert all(len(of) == 1 for of in groups.values())
    assert len(set.union(*groups.values())) == len(groups), "each task has a group of its own"
    assert len({group_of(item, 0) for item in after}) == len(after), "by their content alone forms are apart"


@pytest.mark.parametrize(("side", "forms_each"), [(10, 0), (10, 2), (3, 0), (30, 1)])
def test_tasks_with_a_larger_grid_are_left_out_with_their_forms(tmp_path: Path, side: int, forms_each: int) -> None:
    everything = config_for(tmp_path)
    largest: dict[str, int] = {}
    for file in list_files(everything):
        for item in read_items(file, everything):
            if isinstance(item, Item) and isinstance(item.payload, GridTask):
                task = item.payload
                shown = [grid for pair in task.train for grid in pair]
                largest[item.item_id] = max(max(g.shape) for g in (*shown, *task.test_inputs, *task.test_outputs))
    config = config_for(tmp_path, arc_side=side, arc_forms=forms_each)
    entries = [entry for file in list_files(config) for entry in read_items(file, config)]
    kept = {entry.item_id.split("@")[0] for entry in entries if isinstance(entry, Item)}
    left_out = {entry.path: entry.reason for entry in entries if isinstance(entry, Skipped)}
    assert kept >= {name for name, most in largest.items() if most <= side}
    assert left_out == {
        name: f"a grid of {most} rows or columns; arc_side is {side}" for name, most in largest.items() if most > side
    }
    assert not kept & left_out.keys() and (left_out or side == 30)
    tasks = [entry for entry in entries if isinstance(entry, Item) and isinstance(entry.payload, GridTask)]
    assert len(tasks) == (1 + forms_each) * (len(largest) - len(left_out))


@pytest.mark.slow
def test_the_pipeline_runs_on_forms(tmp_path: Path) -> None:
    fields = {"encoder": "tiny", "workers": 0, "batch_size": 40, "limit": 12, "arc_forms": 2}
    build(config_for(tmp_path / "run", **fields))
    dataset = CapsuleDataset(tmp_path / "run")
    sides: dict[str, set[str]] = {}
    for name, side in zip(dataset.sample_ids, dataset.splits, strict=True):
        sides.setdefault(name.split("@")[0].split("#")[0], set()).add(side)
    assert all(len(of) == 1 for of in sides.values())
    assert any("@2" in name for name in dataset.sample_ids) and dataset.target_count.sum() > 0
