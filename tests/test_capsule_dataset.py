"""CapsuleDataset: what it holds, in which order, read from disk; what it says when there is no dataset."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import make_run
from torch.utils.data import DataLoader

from trm_nb.capsule_dataset import CapsuleDataset
from trm_nb.records import DamagedError, UserError

LABELS = ["b", "a", None, "b", "c", "a", "b", None, "a", "c", "b"]
SPLITS = ["train", "train", "train", "test", "test", "train", "train", "test", "train", "test", "train"]
STATUS = ["ok", "ok", "ok", "ok", "ok", "quarantined", "ok", "ok", "ok", "ok", "ok"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("run")
    return folder, make_run(folder, LABELS, SPLITS, status=STATUS, batch_size=4)


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
