"""Text and grids are read from images whose pixels are not exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trm_nb import GridRenderer, TextRenderer
from trm_nb.models.decoding.read_back import read_grid, read_text

PAGE = "def f(x):\n    return x**2  # naïve, 漢字\n\n~!@#$%^&*()_+{}|:<>?"


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0, 12, 35])
def test_text_is_read_through_noise(sigma: float) -> None:
    assert read_text(noisy(TextRenderer().render_pages(PAGE)[0], sigma)) == PAGE


@pytest.mark.parametrize(
    "characters", ["Ελλάδα", "привет", "שלום", "ありがとう"], ids=["greek", "cyrillic", "hebrew", "kana"]
)
def test_other_scripts_are_read_as_the_renderer_reads_them(characters: str) -> None:
    image = TextRenderer().render_pages(characters)[0]
    assert read_text(noisy(image, 8)) == TextRenderer().decode(image)


def test_a_blank_page_has_no_text() -> None:
    assert read_text(np.full((224, 224, 3), 255, np.uint8)) == ""


@settings(max_examples=25)
@given(arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 9)))
def test_a_grid_of_any_size_is_read_through_noise(grid: np.ndarray) -> None:
    assert np.array_equal(read_grid(noisy(GridRenderer().render(grid), 15)), grid)
