"""The study of the encoder's recursion: its arms differ in the recursion alone, and are compared by item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import recursion as study
from test_pretraining import TINY, both_sides, write_sources
from torch import Tensor

from trm_nb.models import vision_encoder
from trm_nb.models.trm import recurse
from trm_nb.models.vision_encoder import TRMVisionEncoder
from trm_nb.training.pretraining.content import Content
from trm_nb.training.pretraining.measure import Measure


@pytest.mark.parametrize(
    ("arm", "calls", "result"),
    [("one cycle", 2, 123.0), ("no recursion", 0, 0.0), ("two cycles", 4, 460.0), ("one call", 1, 112.0)],
)
def test_an_arm_calls_the_net_as_often_as_its_name_says(arm: str, calls: int, result: float) -> None:
    """The net adds one, z_H begins with 10, z_L with 1 and x is 100, so the result shows what was added to what."""
    seen: list[Tensor] = []

    def net(h: Tensor, angles: Tensor | None) -> Tensor:
        seen.append(h)
        return h + 1

    z_H, _ = study.ARMS[arm](net, torch.tensor(10.0), torch.tensor(1.0), torch.tensor(100.0), 1, 1, None)
    assert (len(seen), float(z_H)) == (calls, result)


def test_arms_are_trained_apart_and_compared_by_item(tmp_path: Path) -> None:
    sides = both_sides(*write_sources(tmp_path))
    settings = replace(TINY, steps=2, log_every=1, measure_every=2)
    arms = ("no recursion", "one cycle")
    for arm in arms:
        study.train(tmp_path / arm, arm, sides, settings)
    assert vision_encoder.recurse is recurse, "the arm's recursion is still there"
    untrained = TRMVisionEncoder("tiny", weights="random").net.state_dict()
    moved = {}
    for arm in arms:
        trained = TRMVisionEncoder.load(tmp_path / arm / "encoder.safetensors").net.state_dict()
        moved[arm] = any(not torch.equal(trained[name], untrained[name]) for name in untrained)
        assert float((tmp_path / arm / "seconds.txt").read_text()) > 0
    assert moved == {"no recursion": False, "one cycle": True}

    measure = Measure(Content(sides[1]), 2)
    results = {arm: study.results_of(tmp_path / arm, arm, settings, measure) for arm in arms}
    lines = study.compared(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:] if line] == [
        "| no recursion", "| one cycle", "| no recursion less one cycle",
    ]  # fmt: skip
    assert all(line.count("|") == len(study.COLUMNS) + 2 for line in lines if line)


def test_a_difference_is_of_the_cells_and_its_interval_of_the_pages() -> None:
    """One page of 90 cells is all right for the first arm alone, nine of 10 cells for both."""
    items = np.repeat(np.arange(10), [90, *[10] * 9])
    both = np.ones(180, bool)
    middle, low, high = study.difference((both, items), (items > 0, items))
    assert middle == 0.5 and low == 0 and 0.6 < high < 1
