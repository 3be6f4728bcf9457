"""How labels become classes: their order, and one form of each name."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from runs import make_run

from trm_nb.dataset.capsule_dataset import CapsuleDataset
from trm_nb.records import Item, class_order


@pytest.mark.parametrize(
    "ordered",
    [
        pytest.param([str(n) for n in range(12)], id="0 to 11"),
        pytest.param(["-10", "-2", "0", "1", "10"], id="negative"),
        pytest.param(["-1.5", "0.0", "2.0", "2.5", "10.0"], id="decimals"),
        pytest.param(["01", "1", "1.0", "02", "+3", "10"], id="equal values"),
        pytest.param(["9" * 20, "1" + "0" * 20], id="beyond 64 bits"),
        pytest.param(["0.1", "0.10000000000000000000000001"], id="beyond a float"),
        pytest.param(["1", "10", "2", "a"], id="a name among numbers"),
        pytest.param(["1", "10", "2", "\u0663"], id="digits of another script"),
        pytest.param(["1", "10", "1e1", "2"], id="an exponent"),
        pytest.param(["10", "2", "nan"], id="not a number"),
        pytest.param(["False", "True"], id="truth values"),
        pytest.param(["B", "a", "b", "\u00e4"], id="names"),
        pytest.param([], id="none"),
    ],
)
def test_class_order(ordered: list[str]) -> None:
    for seed in range(5):
        assert class_order(random.Random(seed).sample(ordered * 2, 2 * len(ordered))) == ordered


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_is_nfc(form: str) -> None:
    label = unicodedata.normalize(form, "K\u00e4se")
    assert Item("a", "text", "words", label=label).label == "K\u00e4se"
    assert Item("a", "text", label).payload == label, "a text stays as it is"


def test_a_dataset_numbers_classes_by_value(tmp_path: Path) -> None:
    make_run(tmp_path, [str(n) for n in reversed(range(12))], ["train"] * 12)
    dataset = CapsuleDataset(tmp_path)
    assert dataset.classes == tuple(str(n) for n in range(12))
    assert dataset.labels.tolist() == list(reversed(range(12)))
