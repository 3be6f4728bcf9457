"""image_store.py: images by key, read without a renderer; damaged shards are named, forgotten and made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trm_nb.cache.image_cache import ImageCache
from trm_nb.cache.image_store import ImageStore
from trm_nb.errors import DamagedError, UserError
from trm_nb.render.renderer import RenderSettings

TEXTS = [f"page {i}" for i in range(12)]


@pytest.mark.parametrize(("size", "shard_size"), [(224, 5), (448, 2)])
def test_a_store_is_opened_as_it_is_without_a_renderer(tmp_path: Path, size: int, shard_size: int) -> None:
    cache = ImageCache(tmp_path, render=RenderSettings(image_size=size), shard_size=shard_size, workers=0)
    keys = cache.populate(TEXTS).keys
    store = ImageStore(tmp_path)
    assert (store.layout, len(store), store.damaged(deep=True)) == (cache.layout, 12, {})
    assert np.array_equal(store.get_many(keys), cache.get_many(keys))
    assert {**store.stats(), "denoiser": None} == cache.stats()


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_shard_raises_is_named_and_can_be_drawn_again(tmp_path: Path, damage: str) -> None:
    cache = ImageCache(tmp_path / "cache", shard_size=5, workers=0)
    report = cache.populate(TEXTS)
    path = tmp_path / "cache" / "images" / "c" / "1" / "0" / "0" / "0"
    expected = cache.get_many(report.keys)
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="images/c/1"):
        cache.get_many(report.keys)
    damaged = cache.damaged()
    assert list(damaged) == [1]
    cache.drop_shard(1)
    assert ImageCache(tmp_path / "cache").populate(TEXTS).misses == 5
    assert np.array_equal(ImageCache(tmp_path / "cache").get_many(report.keys), expected)


def test_clear_empties_it(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache")
    cache.populate(TEXTS[:3])
    cache.clear()
    assert len(cache) == 0
    assert cache.stats()["nbytes"] == 0
    assert cache.populate(TEXTS[:3]).misses > 0


def test_another_image_size_is_refused(tmp_path: Path) -> None:
    ImageCache(tmp_path / "cache").populate(["x"])
    with pytest.raises(UserError, match=r"holds images of \(224, 224, 3\), not \(448, 448, 3\)"):
        ImageCache(tmp_path / "cache", render=RenderSettings(image_size=448))
