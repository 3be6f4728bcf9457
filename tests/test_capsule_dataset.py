"""CapsuleDataset: what it holds, in which order, read from disk; what it says when there is no dataset."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import make_run
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, RandomSampler, Subset, random_split

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.errors import DamagedError, UserError

LABELS = ["b", "a", None, "b", "c", "a", "b", None, "a", "c", "b"]
SPLITS = ["train", "train", "train", "test", "test", "train", "train", "test", "train", "test", "train"]
TARGETS = [[[[1, 2]]] if row == 3 else [[[3]], [[4], [5]]] if row == 8 else None for row in range(11)]
STATUS = ["ok", "ok", "ok", "ok", "ok", "quarantined", "ok", "ok", "ok", "ok", "ok"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("run")
    return folder, make_run(folder, LABELS, SPLITS, status=STATUS, batch_size=4, targets=TARGETS)


@pytest.mark.parametrize(
    ("split", "rows", "labels"),
    [
        (None, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10], [1, 0, -1, 1, 2, 1, -1, 0, 2, 1]),
        ("train", [0, 1, 2, 6, 8, 10], [1, 0, -1, 1, 0, 1]),
        ("test", [3, 4, 7, 9], [1, 2, -1, 2]),
    ],
)
def test_rows_labels_and_capsules_of_a_split(run, split: str | None, rows: list[int], labels: list[int]) -> None:
    folder, capsules = run
    dataset = CapsuleDataset(folder, split)
    assert dataset.rows.tolist() == rows and dataset.labels.tolist() == labels and len(dataset) == len(rows)
    assert dataset.labels.dtype == np.int64
    assert dataset.classes == ("a", "b", "c"), "of the whole run, whatever the split"
    for i, row in enumerate(rows):
        one = dataset[i]
        assert list(one) == ["capsules", "label", "row", "sample_id"]
        assert one["capsules"].dtype == torch.float32
        assert np.array_equal(one["capsules"].numpy(), capsules[row].astype(np.float32))
        assert (one["label"], one["row"], one["sample_id"]) == (labels[i], row, f"item{row}")
        assert type(one["label"]) is int and type(one["row"]) is int
    together, numbers = dataset.all()
    assert np.array_equal(together.numpy(), capsules[rows].astype(np.float32)) and numbers.tolist() == labels


def test_several_at_once_come_in_the_order_asked_for(run) -> None:
    dataset = CapsuleDataset(run[0])
    several = dataset.__getitems__([7, 0, -1, 0])
    assert [one["row"] for one in several] == [8, 0, 10, 0]
    assert all(
        torch.equal(one["capsules"], dataset[i]["capsules"]) for one, i in zip(several, [7, 0, 9, 0], strict=True)
    )


@pytest.mark.parametrize(("index", "row"), [(-1, 10), (-10, 0), (np.int64(2), 2)])
def test_negative_and_numpy_indices(run, index: int, row: int) -> None:
    assert CapsuleDataset(run[0])[index]["row"] == row


@pytest.mark.parametrize("index", [10, -11, 10**9])
def test_past_the_ends_is_an_index_error(run, index: int) -> None:
    with pytest.raises(IndexError, match="10 samples"):
        CapsuleDataset(run[0])[index]


SELECTIONS: list[Any] = [  # an index of ten samples, and the places that it selects
    pytest.param(slice(0, 3), [0, 1, 2], id="slice"),
    pytest.param(slice(None, None, -4), [9, 5, 1], id="slice-backwards"),
    pytest.param(slice(20, 30), [], id="slice-of-nothing"),
    pytest.param([3, -1, 3], [3, 9, 3], id="list"),
    pytest.param((1, 2), [1, 2], id="tuple"),
    pytest.param(range(4, 6), [4, 5], id="range"),
    pytest.param([], [], id="empty-list"),
    pytest.param([np.int64(2), torch.tensor(3)], [2, 3], id="list-of-scalars"),
    pytest.param(np.array([1, -10], np.int16), [1, 0], id="array"),
    pytest.param(np.array([7], np.uint64), [7], id="unsigned-array"),
    pytest.param(torch.tensor([5, 6]), [5, 6], id="tensor"),
    pytest.param(np.arange(10) % 4 == 1, [1, 5, 9], id="mask"),
    pytest.param((np.arange(10) == 0).tolist(), [0], id="mask-list"),
    pytest.param(torch.arange(10) > 7, [8, 9], id="mask-tensor"),
    pytest.param(np.zeros(10, bool), [], id="mask-of-nothing"),
]


@pytest.mark.parametrize(("index", "places"), SELECTIONS)
def test_what_an_index_selects(run, index: Any, places: list[int]) -> None:
    dataset, (capsules, labels) = CapsuleDataset(run[0]), CapsuleDataset(run[0]).all()
    batch = dataset[index]
    assert list(batch) == ["capsules", "label", "row", "sample_id"]
    assert torch.equal(batch["capsules"], capsules[places]) and torch.equal(dataset.capsules(index), capsules[places])
    assert batch["capsules"].shape == (len(places), 12, 512)
    assert torch.equal(batch["label"], labels[places]) and batch["row"].tolist() == dataset.rows[places].tolist()
    assert batch["row"].dtype == batch["label"].dtype == torch.int64
    assert batch["sample_id"] == [dataset.sample_ids[place] for place in places]


@pytest.mark.parametrize(
    ("index", "error", "said"),
    [
        pytest.param(index, error, said, id=f"{type(index).__name__}-{number}")
        for number, (index, error, said) in enumerate([
            (np.ones(9, bool), IndexError, "mask of 10 booleans, one a sample, got shape (9,)"),
            ([True], IndexError, "got shape (1,)"),
            (np.ones((10, 1), bool), IndexError, "got shape (10, 1)"),
            ([3, 10], IndexError, "index 10 is outside"),
            (torch.tensor([-11]), IndexError, "index -11 is outside"),
            (np.array([2**63], np.uint64), IndexError, "is outside"),
            (True, TypeError, "got bool"),
            (np.True_, TypeError, "got bool"),
            (torch.tensor(True), TypeError, "got Tensor"),
            (1.0, TypeError, "got float"),
            ("label", TypeError, "got str"),
            (None, TypeError, "got NoneType"),
            ([True, 2], TypeError, "got bool"),
            ([0.0, 1.0], TypeError, "got float"),
            (np.array([0.0]), TypeError, "got float64 of shape (1,)"),
            (torch.tensor([0.5]), TypeError, "got float32"),
            (np.array([[0]]), TypeError, "shape (1, 1)"),
        ])
    ],
)  # fmt: skip
def test_an_index_that_selects_nothing_well_defined_is_refused(
    run, index: Any, error: type[Exception], said: str
) -> None:
    dataset = CapsuleDataset(run[0])
    for call in (dataset.__getitem__, dataset.capsules):
        with pytest.raises(error) as caught:
            call(index)
        assert said in str(caught.value)


def test_capsules_of_one_index_and_items_of_booleans_are_refused(run) -> None:
    dataset = CapsuleDataset(run[0])
    with pytest.raises(TypeError, match="as several indices, got int"):
        dataset.capsules(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got bool"):
        dataset.__getitems__([True] * 10)


def test_targets_are_asked_for_by_index(run) -> None:
    dataset = CapsuleDataset(run[0], "test")
    assert [[grid.tolist() for grid in dataset.target(i)] for i in (0, 1, -4)] == [[[[1, 2]]], [], [[[1, 2]]]]
    assert dataset.solvable.tolist() == [True, False, False, False]
    assert torch.equal(dataset.capsules(dataset.solvable), dataset[0]["capsules"][None])


def parts_of(dataset: CapsuleDataset) -> dict[str, Dataset[Any]]:
    half = random_split(dataset, [0.5, 0.5], torch.Generator().manual_seed(0))
    return {
        "whole": dataset, "subset": Subset(dataset, np.flatnonzero(dataset.labels >= 0)),  # type: ignore[arg-type]
        "half": half[0], "joined": ConcatDataset([dataset, half[1]]),
    }  # fmt: skip


@pytest.mark.parametrize("part", ["whole", "subset", "half", "joined"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_default_collate_works_where_only_some_samples_have_targets(run, part: str, shuffle: bool) -> None:
    data = parts_of(CapsuleDataset(run[0]))[part]
    batches = list(DataLoader(data, batch_size=4, shuffle=shuffle))
    assert sum(len(batch["row"]) for batch in batches) == len(data)  # type: ignore[arg-type]
    for batch in batches:
        assert list(batch) == ["capsules", "label", "row", "sample_id"]
        assert batch["capsules"].shape[1:] == (12, 512) and batch["label"].dtype == torch.int64


def test_without_batches_of_the_loader_s_own(run) -> None:
    dataset = CapsuleDataset(run[0])
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [one["row"] for one in loader] == dataset.rows.tolist()
    sampler = BatchSampler(RandomSampler(dataset), 4, drop_last=False)
    batches = list(DataLoader(dataset, batch_size=None, sampler=sampler))  # which hands lists of indices over
    assert [batch["capsules"].shape for batch in batches] == [(4, 12, 512), (4, 12, 512), (2, 12, 512)]


def test_iterating_ends(run) -> None:
    assert [one["row"] for one in CapsuleDataset(run[0], "test")] == [3, 4, 7, 9]


def test_it_travels_into_workers(run) -> None:
    dataset = CapsuleDataset(run[0])
    assert len(pickle.dumps(dataset)) < 10_000, "no capsules travel"
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    batches = list(loader)
    assert [batch["row"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 6, 7, 8], [9, 10]]
    assert torch.equal(batches[1]["capsules"], dataset.capsules([4, 5, 6, 7]))


def test_an_unknown_split_names_those_there_are(run) -> None:
    with pytest.raises(UserError, match=r"\(test, train\), got 'validation'"):
        CapsuleDataset(run[0], "validation")


def test_a_folder_without_a_dataset_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run; `trm-nb build"):
        CapsuleDataset(tmp_path)
    (tmp_path / "progress.sqlite").touch()
    with pytest.raises(UserError, match="is not finished; `trm-nb build"):
        CapsuleDataset(tmp_path)


def test_a_table_that_disagrees_with_the_count_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b"], ["train", "test"])
    (tmp_path / "dataset_info.json").write_text(json.dumps({"counts": {"rows": 3}}))
    with pytest.raises(UserError, match=r"2 rows and dataset_info.json counts 3"):
        CapsuleDataset(tmp_path)


def test_damage_is_raised_and_not_read_as_numbers(tmp_path: Path) -> None:
    make_run(tmp_path, ["a", "b"] * 4, ["train", "test"] * 4, batch_size=4)
    dataset = CapsuleDataset(tmp_path)
    victim = tmp_path / "batches.zarr" / "capsules" / "c" / "1" / "0" / "0"
    data = bytearray(victim.read_bytes())
    data[1000] ^= 1
    victim.write_bytes(data)
    assert dataset[0]["row"] == 0
    with pytest.raises(DamagedError):
        dataset[5]
