"""Weights as safetensors: equal bytes for equal weights, and one sentence for what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trm_nb.errors import UserError
from trm_nb.models.checkpoints import read_weights, refuse_another, save_weights

WEIGHTS = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.zeros(2, dtype=torch.int64)}
VALUES = {"width": 3, "facts": {"steps": 7, "source": "grids"}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    save_weights(tmp_path / "x.safetensors", "thing", WEIGHTS, VALUES)
    weights, values = read_weights(tmp_path / "x.safetensors", "thing")
    assert values == VALUES and weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    written = set()
    for number in range(8):
        weights = dict(sorted(WEIGHTS.items(), reverse=bool(number % 2)))
        save_weights(tmp_path / "x.safetensors", "thing", weights, VALUES)
        written.add((tmp_path / "x.safetensors").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: None, "found no file"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"\xff" * 99), "cannot be read"),
        (lambda path: save_file(WEIGHTS | {"b": torch.ones(2)}, path), "got one of None"),
        (lambda path: save_file({"a": torch.ones(2)}, path, {"values": "[1]"}), "got one of None"),
        (lambda path: save_file({"a": torch.ones(2)}, path, {"values": "{"}), "cannot be read"),
        (lambda path: save_weights(path, "other", WEIGHTS, VALUES), "got one of 'other'"),
    ],
    ids=["absent", "empty", "garbage", "no header", "a list", "no JSON", "other kind"],
)
def test_what_is_no_such_file_is_an_error_of_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(path, "thing")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bound", "wanted", "message"),
    [
        ({"width": 3}, {"width": 3}, None),
        ({"width": 3}, {"width": 4}, "this training has width=3, not 4"),
        ({"width": 3}, {"width": 3, "columns": 0, "compiled": False, "patience": None}, None),
        ({"width": 3}, {"width": 3, "columns": 6}, "this training has columns=None, not 6"),
        ({"columns": 6}, {"columns": 0}, "this training has columns=6, not 0"),
        (None, {"width": 3}, "this training has width=None, not 3"),
    ],
    ids=["same", "other", "later and off", "later and on", "no longer on", "nothing"],
)
def test_a_checkpoint_of_other_values_is_refused_but_for_those_that_came_later_and_are_off(
    bound: dict[str, object] | None, wanted: dict[str, object], message: str | None
) -> None:
    if message is None:
        refuse_another(Path("x.pt"), bound, wanted)
        return
    with pytest.raises(UserError, match=message):
        refuse_another(Path("x.pt"), bound, wanted)
