"""The public names and shapes that others rely on, used as they are documented."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PHOTO, make_sources
from PIL import Image

import trm_nb
from trm_nb import (
    CapsuleDataset,
    GridRenderer,
    ImageCache,
    MultimodalDatasetConfig,
    StreamingEncoderBuilder,
    TextRenderer,
    TrainingProgressTracker,
    TRMVisionEncoder,
    build,
)
from trm_nb.denoise import load_denoiser

FIELDS = [
    "source_paths",
    "output_dir",
    "include_text",
    "include_images",
    "include_grids",
    "render_text_to_image",
    "image_size",
    "use_denoiser",
    "denoiser",
    "denoiser_path",
    "encoder",
    "encoder_path",
    "batch_size",
    "batches_per_chunk",
    "start_threshold",
    "device",
    "workers",
    "cluster",
    "limit",
    "max_errors",
    "seed",
]


def test_the_config_has_its_fields_and_defaults(tmp_path: Path) -> None:
    config = MultimodalDatasetConfig(source_paths=["data/arc/", "data/text/"], output_dir=str(tmp_path))
    assert set(FIELDS) <= set(MultimodalDatasetConfig.model_fields)
    assert (config.batch_size, config.batches_per_chunk, config.start_threshold) == (1000, 100, 50000)
    with pytest.raises(ValueError, match="did you mean 'batch_size'"):
        MultimodalDatasetConfig(source_paths=["a"], output_dir="b", batchsize=3)


def test_the_renderers(tmp_path: Path) -> None:
    text = TextRenderer(font_size=12, highlight=False)
    pages = text.render_pages("first\n" * 40)
    assert (pages.shape, pages.dtype) == ((3, 224, 224, 3), np.uint8)
    assert text.decode(pages) == text.normalise("first\n" * 40)
    image = GridRenderer().render(np.array([[0, 1], [2, 3]]))
    assert (image.shape, image.dtype) == ((224, 224, 3), np.uint8)
    assert GridRenderer().decode(image).tolist() == [[0, 1], [2, 3]]


def test_the_cache(tmp_path: Path) -> None:
    cache = ImageCache(cache_dir=tmp_path, use_denoiser=True, denoiser_path="models/n2n_denoiser.pt")
    with Image.open(PHOTO) as photo:
        report = cache.populate(["text", photo.copy(), [[1, 2]], trm_nb.Item("a", "text", "more")])
    assert (len(report.keys), report.hits, report.misses, report.failed) == (4, 0, 4, {})
    assert cache.keys_for("text") == report.keys[:1]
    assert report.keys[0] in cache
    assert cache.get(report.keys[0]).shape == (224, 224, 3)
    assert cache.get_many(report.keys).shape == (4, 224, 224, 3)
    assert cache.stats()["images"] == 4


@pytest.mark.parametrize("preset", ["base", "tiny"])
def test_the_encoder(preset: str) -> None:
    with torch.inference_mode():
        capsules = TRMVisionEncoder(preset=preset)(torch.zeros(2, 224, 224, 3, dtype=torch.uint8))
    assert (capsules.shape, capsules.dtype) == ((2, 12, 512), torch.float32)


def test_the_builder_the_tracker_and_the_dataset(tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    config = MultimodalDatasetConfig(
        source_paths=[str(sources)], output_dir=str(tmp_path / "run"), include_text=True, include_images=True,
        include_grids=True, encoder="tiny", batch_size=20, batches_per_chunk=2, start_threshold=20, cluster=None,
    )  # fmt: skip
    build(config)
    stats = TrainingProgressTracker(tmp_path / "run").get_stats()
    assert stats["batches_built"] == stats["consolidation"]["total_batches_consolidated"] == 5
    assert stats["samples_encoded"] == 90
    assert stats["disk_usage_gb"] > 0
    assert (stats["global_step"], stats["chunk_progress"]) == (0, 0.0)
    dataset = CapsuleDataset(tmp_path / "run", split="test")
    sample = dataset[0]
    assert (sample["capsules"].shape, sample["capsules"].dtype) == ((12, 512), torch.float32)
    assert isinstance(sample["label"], int) and isinstance(sample["row"], int) and isinstance(sample["sample_id"], str)

    builder = StreamingEncoderBuilder(
        checkpoint_dir=tmp_path / "other", batch_size=1000, encoder=TRMVisionEncoder("tiny")
    )
    builder.stream_build(samples=["a", "b"], renderer=None, start_threshold=50000)
    assert len(CapsuleDataset(tmp_path / "other")) == 2


def test_what_is_not_there_yet_says_so(tmp_path: Path) -> None:
    assert load_denoiser(None) is None


@pytest.mark.parametrize(
    ("cluster", "fine"),
    [("tcp://scheduler:8786", True), ("tls://10.0.0.7:1", True), ("local:3", True), (None, True),
     ("local:0", False), ("scheduler:8786", False), ("tcp://scheduler", False), ("local", False)],
)  # fmt: skip
def test_where_a_cluster_is(cluster: str | None, fine: bool) -> None:
    with contextlib.nullcontext() if fine else pytest.raises(ValueError, match="cluster"):
        MultimodalDatasetConfig(source_paths=["a"], output_dir="b", cluster=cluster)


# ------------------------------------------------------------------------------------------------------ docstrings

REFERENCE = (Path(__file__).parents[1] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
OTHERS = ["trm_nb.denoise.noise2noise.Denoiser.restore", "trm_nb.denoise.seal.AdaptiveDenoiser.restore"]


def _named(path: str) -> Any:
    """What a dotted name of the package stands for."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return getattr(_named(module), name)


def _public_functions() -> Iterator[str]:
    """Every function, class and method that the Python reference shows, by dotted name."""
    listed = re.findall(r"^\.\. auto(function|class):: ([\w.]+)\n((?: +:.*\n)*)", REFERENCE, flags=re.M)
    for kind, path, options in listed:
        if path != "trm_nb.MultimodalDatasetConfig":  # whose parameters are the config fields, each with a description
            yield path
        if kind == "class":
            chosen = re.search(r":members: (.+)", options)
            own = [name for name, value in vars(_named(path)).items() if not name.startswith("_") and _callable(value)]
            yield from (f"{path}.{name}" for name in (chosen[1].split(", ") if chosen else own))
    yield from OTHERS


def _callable(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)


def _documented(docstring: str, section: str) -> set[str]:
    """The names that a section of a Google-style docstring describes."""
    found = re.search(rf"^{section}:\n((?:    .*\n?|\n)*)", docstring, flags=re.M)
    entries = re.findall(r"^    (\w[\w, ]*?):", found[1] if found else "", flags=re.M)
    return {name.strip() for entry in entries for name in entry.split(",")}


@pytest.mark.parametrize("path", sorted(set(_public_functions())))
def test_each_parameter_and_result_is_described(path: str) -> None:
    what = _named(path)
    docstring = inspect.getdoc(what) or ""
    if inspect.isclass(what):  # an inherited constructor is described by the class that has it
        docstring = "\n\n".join(inspect.cleandoc(of.__doc__) for of in what.__mro__ if of.__doc__)
    signature = inspect.signature(what)
    given = {name for name in signature.parameters if name not in ("self", "args", "kwargs")}
    assert given <= _documented(docstring, "Args"), "Args"
    returns = not inspect.isclass(what) and signature.return_annotation not in (None, "None", inspect.Signature.empty)
    if given and returns and "Iterator[None]" not in str(signature.return_annotation):
        assert re.search("^Returns:\n    ", docstring, flags=re.M), "Returns"


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Does.\n\nArgs:\n    a: one\n        more: two\n    b, c: both\n\nRaises:\n    E: d", {"a", "b", "c"}),
        ("No.", set()),
    ],
)
def test_what_counts_as_described(docstring: str, expected: set[str]) -> None:
    assert _documented(docstring, "Args") == expected
