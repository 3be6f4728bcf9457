"""Shuffled batches without end: each sample once an epoch, in an order that nothing but seed and epoch decide."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import make_run
from torch.utils.data import DataLoader, Subset

from trm_nb import CapsuleDataset, CapsuleStream

SAMPLES = 61


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CapsuleDataset:
    folder = tmp_path_factory.mktemp("run")
    status = ["quarantined" if row == 17 else "ok" for row in range(SAMPLES + 1)]
    make_run(folder, ["a", "b"] * 31, ["train"] * (SAMPLES + 1), status=status)
    return CapsuleDataset(folder)


def indices(batches: Iterable[dict[str, Any]]) -> list[int]:
    return [place for batch in batches for place in batch["index"].tolist()]


def test_a_batch_holds_what_the_dataset_says(dataset: CapsuleDataset) -> None:
    for batch in islice(CapsuleStream(dataset, 8, seed=3, buffer=24), 8):
        assert batch["capsules"].dtype == torch.float32 and batch["capsules"].shape[1:] == (12, 512)
        for place, sample in zip(batch["index"].tolist(), batch["capsules"], strict=True):
            assert torch.equal(sample, dataset[place]["capsules"])
        assert batch["row"].tolist() == dataset.rows[batch["index"]].tolist()
        assert batch["label"].tolist() == dataset.labels[batch["index"]].tolist()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 70), buffer=st.integers(1, 80), seed=st.integers(0, 3), stop=st.integers(0, 40))
def test_each_epoch_has_every_sample_once_and_goes_on_from_any_batch(
    dataset: CapsuleDataset, size: int, buffer: int, seed: int, stop: int
) -> None:
    stream, per_epoch = CapsuleStream(dataset, size, seed, buffer), -(-SAMPLES // size)
    batches = list(islice(stream, 2 * per_epoch))
    first, second = indices(batches[:per_epoch]), indices(batches[per_epoch:])
    assert sorted(first) == sorted(second) == list(range(SAMPLES))
    if stop < len(batches):
        again = CapsuleStream(dataset, size, seed, buffer)
        again.load_state_dict(batches[stop]["state"])
        assert again.state_dict() == batches[stop]["state"]
        assert indices(islice(again, 2 * per_epoch - stop - 1)) == indices(batches[stop + 1 :])


def test_orders_differ_by_epoch_and_seed_and_mix_batches(dataset: CapsuleDataset) -> None:
    one, other = CapsuleStream(dataset, 8, 0, 64), CapsuleStream(dataset, 8, 1, 64)
    first, second = indices(islice(one, 8)), indices(islice(other, 8))
    assert first != second and first == indices(islice(one, 8))
    assert first != indices(islice(one, 16))[SAMPLES:]
    stored = dataset.rows[first[:8]] // 8
    assert len(set(stored.tolist())) > 3, "a batch is mixed from several stored ones"
    unmixed = dataset.rows[indices(islice(CapsuleStream(dataset, 8, 0, 8), 7))] // 8
    assert len(set(unmixed[:8].tolist())) <= 2, "a small buffer reads one piece after the other"


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # as many readers as it likes
@pytest.mark.parametrize("readers", [1, 3])
def test_readers_change_nothing_and_may_change_when_it_goes_on(dataset: CapsuleDataset, readers: int) -> None:
    stream = CapsuleStream(dataset, 8, 5, 24)
    alone = list(islice(stream, 20))
    loaded = list(islice(DataLoader(stream, batch_size=None, num_workers=readers), 11))
    assert indices(loaded) == indices(alone[:11])
    stream.load_state_dict(loaded[-1]["state"])
    rest = list(islice(DataLoader(stream, batch_size=None, num_workers=2), 9))
    assert indices(rest) == indices(alone[11:])
    assert all(torch.equal(a["capsules"], b["capsules"]) for a, b in zip(alone[11:], rest, strict=True))


@pytest.mark.parametrize(
    ("other", "named"),
    [({"seed": 1}, "seed=0, not 1"), ({"batch_size": 4}, "batch_size=8"), ({"buffer": 16}, "buffer=24")],
)
def test_a_state_of_another_stream_is_refused_with_the_difference(
    dataset: CapsuleDataset, other: dict[str, int], named: str
) -> None:
    state = CapsuleStream(dataset, 8, 0, 24).state_dict()
    with pytest.raises(ValueError, match=named):
        CapsuleStream(dataset, **({"batch_size": 8, "seed": 0, "buffer": 24} | other)).load_state_dict(state)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranks=st.integers(2, 8), size=st.integers(1, 30), buffer=st.integers(1, 80), stop=st.integers(0, 40))
def test_ranks_divide_each_epoch_and_go_on_from_one_state(
    dataset: CapsuleDataset, ranks: int, size: int, buffer: int, stop: int
) -> None:
    def stream(rank: int) -> CapsuleStream:
        return CapsuleStream(dataset, size, 1, buffer, rank=rank, world_size=ranks)

    parts = [list(takewhile(lambda batch: batch["state"]["epoch"] == 0, stream(rank))) for rank in range(ranks)]
    per_epoch = len(parts[0]) + 1  # the last batch has the state of the next epoch
    parts = [list(islice(stream(rank), 2 * per_epoch)) for rank in range(ranks)]
    for epoch in (slice(0, per_epoch), slice(per_epoch, None)):
        assert sorted(place for part in parts for place in indices(part[epoch])) == list(range(SAMPLES))
    for step in zip(*parts, strict=True):
        assert all(batch["state"] == step[0]["state"] for batch in step), "so one rank saves it for all"
        counts = [len(batch["index"]) for batch in step]
        assert min(counts) >= 1 and max(counts) <= min(size, min(counts)) + 1
    stop %= 2 * per_epoch
    again = stream(ranks - 1)
    again.load_state_dict(parts[0][stop]["state"])
    assert indices(islice(again, 2 * per_epoch - stop - 1)) == indices(parts[-1][stop + 1 :])


RANKED = """
import json, sys
import torch.distributed as dist
from torch.utils.data import DataLoader
from trm_nb import CapsuleDataset, CapsuleStream
if __name__ == "__main__":
    early = CapsuleStream(CapsuleDataset(sys.argv[1]), 8, buffer=24)
    dist.init_process_group("gloo")
    streams = [early, CapsuleStream(CapsuleDataset(sys.argv[1]), 8, buffer=24)]
    for stream, how in zip(streams, ("spawn", "fork")):
        places, batches = [], 0
        for batch in DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context=how):
            places, batches = places + batch["index"].tolist(), batches + 1
            if batch["state"]["epoch"] == 1:
                break
        gathered = [None, None]
        dist.all_gather_object(gathered, (places, batches))
        if dist.get_rank() == 0:
            print(json.dumps(gathered))
    dist.destroy_process_group()
"""


@pytest.mark.slow  # two ranks that import torch, and their workers
def test_ranks_of_torchrun_get_disjoint_parts(dataset: CapsuleDataset, tmp_path: Path) -> None:
    lines = in_ranks(tmp_path, RANKED, dataset.output_dir).splitlines()
    for line in lines:
        (first, batches), (second, others) = json.loads(line)
        assert sorted([*first, *second]) == list(range(SAMPLES)) and batches == others
    assert len(lines) == 2


EPOCH = """
import json, sys
import torch.distributed as dist
from torch.utils.data import DataLoader
from trm_nb import CapsuleDataset, CapsuleStream
if __name__ == "__main__":
    dist.init_process_group("gloo")
    stream = CapsuleStream(CapsuleDataset(sys.argv[1]), 64, seed=4, buffer=2_000)
    rows = []
    for batch in DataLoader(stream, batch_size=None, num_workers=2):
        rows += batch["row"].tolist()
        if batch["state"]["epoch"] == 1:
            break
    gathered = [None, None]
    dist.all_gather_object(gathered, rows)
    if dist.get_rank() == 0:
        print(json.dumps(gathered))
    dist.destroy_process_group()
"""
MANY = 20_000


@pytest.mark.slow  # 20,000 capsules, read by 2 ranks with 2 workers each, and once more without processes
def test_two_ranks_with_two_workers_read_20000_capsules_once_in_an_order_that_repeats(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder, ["a", "b"] * (MANY // 2), ["train"] * MANY, batch_size=1000)
    of_ranks = json.loads(in_ranks(tmp_path, EPOCH, folder))
    assert [len(rows) for rows in of_ranks] == [MANY // 2] * 2
    assert sorted(of_ranks[0] + of_ranks[1]) == list(range(MANY))
    for rank, rows in enumerate(of_ranks):
        alone = CapsuleStream(CapsuleDataset(folder), 64, seed=4, buffer=2_000, rank=rank, world_size=2)
        assert [row for batch in islice(alone, -(-MANY // 128)) for row in batch["row"].tolist()] == rows


def in_ranks(folder: Path, program: str, run: Path) -> str:
    """What a program prints that torchrun starts in two processes."""
    (folder / "train.py").write_text(program)
    command = ["torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(folder / "train.py"), str(run)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_state_of_another_world_size_is_refused(dataset: CapsuleDataset) -> None:
    state = CapsuleStream(dataset, 8, rank=0, world_size=4).state_dict()
    with pytest.raises(ValueError, match="world_size=4, not 2; make the stream with the values it was saved with"):
        CapsuleStream(dataset, 8, rank=1, world_size=2).load_state_dict(state)
    old = {name: value for name, value in CapsuleStream(dataset, 8).state_dict().items() if name != "world_size"}
    CapsuleStream(dataset, 8).load_state_dict(old)  # saved before there were ranks


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ({"rank": 0}, "both rank and world_size"),
        ({"rank": 2, "world_size": 2}, "a rank from 0 to world_size - 1"),
        ({"rank": 0, "world_size": SAMPLES + 1}, f"a sample for each of {SAMPLES + 1} processes, got {SAMPLES}"),
    ],
)
def test_ranks_that_cannot_be_are_refused(dataset: CapsuleDataset, ranks: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CapsuleStream(dataset, 8, **ranks)


@pytest.mark.parametrize("make", [lambda of: Subset(of, [0]), lambda of: str(of.output_dir), lambda of: None])
def test_what_is_no_capsule_dataset_is_refused_at_once(dataset: CapsuleDataset, make: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a CapsuleDataset, got (Subset|str|NoneType);"):
        CapsuleStream(make(dataset))


def test_an_empty_part_is_refused(dataset: CapsuleDataset, tmp_path: Path) -> None:
    make_run(tmp_path, [None], ["train"], status=["quarantined"])
    with pytest.raises(ValueError, match="got an empty one"):
        CapsuleStream(CapsuleDataset(tmp_path))
