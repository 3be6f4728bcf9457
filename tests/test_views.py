"""What notebooks 01 to 05 plot: descriptions state the data, hostile names do no harm, nothing is a sentence."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.notebook import views
from trm_nb.notebook.shown import Gallery, Plot, Text
from trm_nb.pipeline.run import Run

HOSTILE = "$\\frac{a$<b>\u202e"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two texts of several pages, one of them of a hostile name, and a photograph; nothing is denoised."""
    folder = tmp_path_factory.mktemp("views")
    for name in ("plain", HOSTILE):
        (folder / "texts" / name).mkdir(parents=True)
        (folder / "texts" / name / "a.txt").write_text("Words on a page. " * 60)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(folder / "texts" / "photo.png")
    values = {
        "source_paths": [str(folder / "texts")],
        "output_dir": str(folder / "run"),
        "encoder": "tiny",
        "workers": 0,
    }
    run = Run(MultimodalDatasetConfig.parse(values, "the test"))
    run.up_to("encode")
    yield run
    run.close()


def alt_of(plot: object) -> str:
    """The description of a plot, which is rendered."""
    assert isinstance(plot, Plot)
    data, described = plot._repr_mimebundle_()
    with Image.open(io.BytesIO(data["image/png"])) as image:
        assert min(image.size) > 50
    alt = described["image/png"]["alt"]
    assert isinstance(alt, str) and alt.endswith(".")
    return alt


def tiles_of(shown: object) -> str:
    """The HTML of tiles, which holds nothing but what their code writes, and an image that can be decoded each."""
    assert isinstance(shown, Gallery)
    html = str(shown._repr_mimebundle_()[0]["text/html"])
    addresses = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)" alt="[^"]+"', html)
    assert len(addresses) == html.count("<img ") == sum(map(len, shown.rows))
    for address in addresses:
        with Image.open(io.BytesIO(base64.b64decode(address))) as image:
            assert image.width == image.height or "scale" in html
    assert "<b>" not in html and "\u202e" not in html
    return html


def text_of(shown: object) -> str:
    assert isinstance(shown, Text)
    return shown.markdown


def test_samples(run: Run) -> None:
    samples = run.samples()
    assert f"<strong>{len(samples)} images of modality image and text.</strong>" in tiles_of(
        views.plot_samples(run, samples)
    )
    html = tiles_of(views.plot_samples(run, samples.head(1), ["a note"]))
    assert f"<strong>1 image of modality {samples.at[0, 'modality']}.</strong>" in html
    assert "<br>a note</figcaption>" in html
    assert text_of(views.plot_samples(run, samples.head(0))) == "There are no images to show."


def test_layout_and_denoised(run: Run) -> None:
    item = next(run.items())
    samples = run.cache.samples(item)
    images, _ = run.cache.renderer.rasterise(samples)
    html = tiles_of(views.plot_layout(images[0], samples[0]))
    assert f"Page 1 of {len(samples)} of " in html and "the line goes on" in html
    changed = images[0].copy()
    changed[: len(changed) // 2] ^= 1
    assert "50 % of the pixels differ" in tiles_of(views.plot_denoised(images[0], changed, HOSTILE))
    assert "cached as it is rendered" in text_of(views.plot_denoised(images[0], images[0], HOSTILE))


def test_the_denoiser_in_words(run: Run) -> None:
    assert text_of(views.denoiser_state(run)).startswith("**No denoiser** is at work (none was asked for)")
    assert text_of(views.noise_found(run.samples()["noise"].dropna())) == "**No image** passed through a denoiser."
    found = text_of(views.noise_found(pd.Series([2.0, 4.0, 9.0])))
    assert found == "**1** of 3 denoised samples lost more than 5 of 255; the median is 4.0, the most 9.0."


def test_counts_histograms_and_curves() -> None:
    counts = pd.Series({HOSTILE: 1200, 2: 1})
    assert alt_of(views.plot_counts(counts, "kind", "items")) == f"items by kind: {HOSTILE}: 1,200; 2: 1."
    assert text_of(views.plot_counts(counts.head(0), "kind", "items")) == "There are no items to count."
    values = np.array([1.0, 2.0, np.nan, 6.0])
    assert alt_of(views.plot_histogram(values, "x", "y")) == "Histogram of x (y): from 1 to 6, median 2."
    assert text_of(views.plot_histogram(values[2:3], "x", "y")) == "There are no y to show."
    curve = [{"global_step": 1, "loss": 2.0}, {"global_step": 2, "loss": 1.0, "exact_accuracy": 0.5}]
    alt = alt_of(views.plot_curves(curve, ["loss", "exact_accuracy"], "value"))
    assert alt == "Against the optimiser step: loss from 2 to 1; exact accuracy from 0.5 to 0.5."
    assert "nothing was trained" in text_of(views.plot_curves([], ["loss"], "loss"))


def test_what_the_encoder_shows(run: Run) -> None:
    samples = run.samples()
    image = run.cache.get(samples.at[0, "key"])
    html = tiles_of(views.plot_attention(run.encoder, image))
    assert html.count(" %") == 12 and "capsule 11" in html and "scale: " in html
    capsules = run.encode_images(image[None])[0]
    assert alt_of(views.plot_capsules(capsules)).startswith("12 capsules as rows of colour: mean ")
    assert text_of(views.plot_decoded(run, samples.head(2))) == "This encoder has no decoder."


def test_maps_and_neighbours(run: Run) -> None:
    samples = run.samples()
    vectors = np.random.default_rng(0).normal(size=(len(samples), 9))
    texts = int((samples["modality"] == "text").sum())
    assert text_of(views.effective_rank_of(vectors)) == "The effective rank is **2**, of at most 5."
    assert f"coloured by text: {texts}; image: 1." in alt_of(views.plot_map(vectors, samples["modality"]))
    photo, *pages = samples["modality"].argsort().tolist()
    samples.loc[[photo, pages[2]], "label"] = np.nan  # two samples without a label do not share one
    groups, similar = np.array([[pages[0], pages[1], photo], [photo, pages[0], pages[2]]]), np.full((2, 2), 0.5)
    html = tiles_of(views.plot_neighbours(run, samples, groups, similar))
    same = int(samples["label"].iloc[pages[0]] == samples["label"].iloc[pages[1]])
    assert f"{same} of 4 neighbours have the label" in html and html.count("trm-query") == 2
    assert html.count('class="trm-same"') == html.count("✓") // 2 == same, "in the caption and in the description"
    similar[1, 1] = -np.inf
    assert "1 samples, each with its 2 nearest" in tiles_of(views.plot_neighbours(run, samples, groups, similar))
    similar[0, 1] = -np.inf
    assert text_of(views.plot_neighbours(run, samples, groups, similar)) == "No sample has neighbours to show."
