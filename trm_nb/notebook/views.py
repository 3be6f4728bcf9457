"""What notebooks 01 to 05 plot: functions of the data that describe themselves for readers who do not see the plot.

plots/ renders; this module says what is seen, from the same data. Where there is nothing to plot, a function returns
a sentence that says so, so that no cell has to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from trm_nb.describe import escaped
from trm_nb.evaluation.capsule_stats import principal_plane
from trm_nb.notebook import plots, sampling
from trm_nb.notebook.prose import finding, percent
from trm_nb.notebook.shown import Gallery, Nothing, Plot, Text, Tile
from trm_nb.render.modalities import MODALITIES
from trm_nb.training.pretraining.losses import effective_rank

if TYPE_CHECKING:
    from trm_nb.models.encoder import Encoder
    from trm_nb.pipeline.run import Run
    from trm_nb.records import Sample

NOISY = 5  # of 255: more of it can be seen
EQUAL = 0.999  # cosine similarity
NAMED = 4  # samples and names that a description lists
NO_LABEL = "no label"
NO_IMAGES = Nothing("There are no images to show.")


def plot_layout(image: np.ndarray, sample: Sample) -> Gallery:
    """A sample's image uint8 (h, w, 3), and next to it the same with its cells, panels or border marked."""
    alt = f"Page {sample.page + 1} of {sample.pages} of {sample.item_id} ({sample.modality}), and its layout."
    return plots.page_layout(image, sample.content, "The first image and its layout", alt)


def plot_samples(run: Run, samples: pd.DataFrame, notes: Sequence[str] | None = None) -> Gallery | Text:
    """The cached images of rows of `run.samples()` over their ids and labels, and a note each where there are some."""
    if samples.empty:
        return NO_IMAGES
    labels = ["" if pd.isna(label) else f"[{label}]" for label in samples["label"]]
    lines = zip(samples["sample_id"], labels, notes or [""] * len(samples), strict=True)
    captions = ["\n".join(filter(None, shown)) for shown in lines]
    kinds = " and ".join(sorted(set(samples["modality"])))
    title = f"{len(samples):,} {'image' if len(samples) == 1 else 'images'} of modality {kinds}"
    return Gallery([_tiles(sampling.images_of(run, samples), captions)], title, "Below each: sample and [label].")


def plot_decoded(run: Run, samples: pd.DataFrame) -> Gallery | Text:
    """The images of some samples over what their capsules decode to, with the PSNR."""
    if not run.encoder.has_decoder:
        return Nothing("This encoder has no decoder.")
    if samples.empty:
        return NO_IMAGES
    originals = sampling.images_of(run, samples, measured=True)
    decoded = np.stack(run.encoder.decode(run.encode_images(originals)))
    captions = plots.decibels(originals, decoded)
    pairs = zip(_tiles(originals, samples["sample_id"].tolist()), _tiles(decoded, captions), strict=True)
    said = "Each image is followed by what its capsules decode to, with the peak signal-to-noise ratio."
    return Gallery([[tile for pair in pairs for tile in pair]], "Images, and what their capsules decode to", said)


def _tiles(images: np.ndarray, captions: Sequence[str]) -> list[Tile]:
    return [Tile(image, caption) for image, caption in zip(images, captions, strict=True)]


def denoiser_state(run: Run) -> Text:
    """Which denoiser restores which images of this run."""
    denoiser = run.cache.denoiser
    if denoiser is None:
        why = "none was found" if run.config.use_denoiser else "none was asked for"
        return Text(f"**No denoiser** is at work ({why}): photographs are cached as they are.")
    kind = "self-adapting" if denoiser.adapts else "plain"
    what = " and ".join(name for name in MODALITIES if run.cache.denoises(name))
    template = "The **{0}** denoiser {1} restores samples of modality {2} before they are cached."
    return Text(finding(template, kind, denoiser.fingerprint, what))


def noise_found(noise: pd.Series) -> Text:
    """The noise that was estimated in images, of 255: how many of them have more than NOISY, and the median."""
    if noise.empty:
        return Nothing("**No image** passed through a denoiser.")
    template = "**{0:,}** of {1:,} denoised samples lost more than {2} of 255; the median is {3:.1f}, the most {4:.1f}."
    return Text(finding(template, (noise > NOISY).sum(), len(noise), NOISY, noise.median(), noise.max()))


def plot_denoised(before: np.ndarray, after: np.ndarray, name: str) -> Gallery | Text:
    """An image as rendered, as cached, and ten times the difference; uint8 (h, w, 3)."""
    changed = float((before != after).any(axis=-1).mean())
    if not changed:
        return Nothing(f"{escaped(name)} is cached as it is rendered.")
    return plots.before_after(before, after, name, f"{percent(changed)} of the pixels differ.")


def equal_neighbours(similarity: pd.Series) -> Text:
    """How many samples have a neighbour with almost the same capsules; `similarity` is that of the nearest, up to 1."""
    share = percent((similarity > EQUAL).mean(), 1)
    return Text(f"**{share}** of the samples have a neighbour that is as good as equal (similarity above {EQUAL}).")


def plot_counts(counts: pd.Series, xlabel: str, ylabel: str) -> Plot | Text:
    """A bar for each value of a Series, in its order."""
    if counts.empty:
        return Nothing(f"There are no {ylabel} to count.")
    named = {str(name): int(count) for name, count in counts.items()}
    alt = f"{ylabel} by {xlabel}: {_listed([f'{name}: {count:,}' for name, count in named.items()], 12)}."
    return Plot(plots.bars(named, xlabel, ylabel), alt, f"{ylabel[0].upper()}{ylabel[1:]} by {xlabel}")


def plot_histogram(values: np.ndarray | pd.Series, xlabel: str, ylabel: str = "samples") -> Plot | Text:
    """A distribution, with its median."""
    numbers = np.asarray(values, np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return Nothing(f"There are no {ylabel} to show.")
    spread = f"from {finite.min():.3g} to {finite.max():.3g}, median {np.median(finite):.3g}"
    alt = f"Histogram of {xlabel} ({ylabel}): {spread}."
    return Plot(plots.histogram(finite, xlabel, ylabel), alt, f"Distribution of {xlabel}")


def plot_curves(curve: list[dict[str, float]], names: Sequence[str], ylabel: str) -> Plot | Text:
    """What a training logged, against the optimiser step."""
    logged = {name: [step[name] for step in curve if name in step] for name in names}
    ends = [f"{name.replace('_', ' ')} from {of[0]:.3g} to {of[-1]:.3g}" for name, of in logged.items() if of]
    if not ends:
        return Nothing("Nothing is shown, as nothing was trained.")
    alt = f"Against the optimiser step: {_listed(ends)}."
    return Plot(plots.curves(curve, names, ylabel), alt, f"{ylabel.capitalize()} against the optimiser step")


def encoder_facts(encoder: Encoder) -> Text:
    """What the encoder is: how it works, its weights and its fingerprint."""
    state = "trained" if encoder.trained else "random"
    weights = (
        f"has {encoder.weight_count:,} weights, which are **{state}**" if encoder.weight_count else "has no weights"
    )
    template = "The **{0}** encoder " + weights + "; its fingerprint is {1}."
    return Text(f"{finding(template, encoder.preset, encoder.fingerprint)} {encoder.about}".strip())


def plot_attention(encoder: Encoder, image: np.ndarray) -> Gallery | Text:
    """What each of the 12 capsules of an image uint8 (h, w, 3) attends to."""
    weights = [*encoder.parameters(), *encoder.buffers()]
    pixels = torch.from_numpy(image[None]).to(weights[0].device if weights else "cpu")
    found = encoder.attention_maps(pixels)
    if found is None:
        return Nothing("This encoder does not report what its capsules attend to.")
    maps = found[0].cpu().numpy()
    centres = (maps.sum(axis=2) * np.linspace(0, 1, maps.shape[1])).sum(axis=1) / maps.sum(axis=(1, 2))
    where = ", ".join(percent(centre) for centre in centres)
    alt = f"Centres of attention of the capsules in their order, from the top edge down: {where}."
    return plots.attention(image, maps, "What each capsule attends to", alt)


def plot_capsules(capsules: np.ndarray) -> Plot:
    """One sample's capsules, float (12, 512), as rows of colour."""
    spread = f"mean {capsules.mean():.2f}, standard deviation {capsules.std():.2f}"
    alt = f"{len(capsules)} capsules as rows of colour: {spread}."
    return Plot(plots.capsule_rows(capsules), alt, "The capsules of one image")


def plot_map(vectors: np.ndarray, names: Sequence[str], classes: Sequence[str] = ()) -> Plot:
    """Samples on the plane of their two largest principal components, coloured by name.

    Args:
        vectors: float (n, features).
        names: the class of each sample; the name of a Series says what it is.
        classes: all classes of the run, whose colours are then the same in all plots; by default the names, sorted.
    """
    first, second = principal_plane(vectors)[1]
    counts = pd.Series(list(names), dtype=object).value_counts()
    groups = _listed([f"{name}: {count:,}" for name, count in counts.items()])
    alt = f"Samples on two principal components ({percent(first + second)} of the variance), coloured by {groups}."
    title = f"Samples on a map, by {names.name}" if isinstance(names, pd.Series) else "Samples on a map"
    return Plot(plots.capsule_map(vectors, names, classes or sorted(set(names))), alt, title)


def effective_rank_of(vectors: np.ndarray) -> Text:
    """In how many directions the capsules of samples vary, float (n, features)."""
    rank = effective_rank(torch.from_numpy(vectors))
    return Text(finding("The effective rank is **{0:,.0f}**, of at most {1:,}.", rank, min(vectors.shape)))


def plot_neighbours(run: Run, samples: pd.DataFrame, groups: np.ndarray, similar: np.ndarray) -> Gallery | Text:
    """Samples, each with its nearest neighbours; a neighbour with the label of its query is marked.

    A query that has fewer neighbours (a similarity of -inf) is left out.

    Args:
        run: whose images are shown.
        samples: rows of `run.samples()`.
        groups: int (queries, 1 + count), places in `samples`; each row is a query and its neighbours.
        similar: float (queries, count), the similarities of the neighbours.
    """
    full = np.isfinite(similar).all(axis=1)
    groups, similar = groups[full], similar[full]
    if not groups.size:
        return Nothing("No sample has neighbours to show.")
    chosen = samples.iloc[groups.ravel()]
    images = sampling.images_of(run, chosen)
    names, labels = (chosen[name].to_numpy(object).reshape(groups.shape) for name in ("sample_id", "label"))
    labels = np.where(pd.isna(labels), NO_LABEL, labels)
    same = (labels[:, 1:] == labels[:, :1]) & (labels[:, :1] != NO_LABEL)
    captions = _neighbour_captions(names, labels, similar)
    alt = f"{same.sum()} of {same.size} neighbours have the label of their sample; below each its cosine similarity."
    title = f"{len(groups)} samples, each with its {similar.shape[1]} nearest neighbours"
    return plots.nearest(images.reshape(*groups.shape, *images.shape[1:]), captions, same, title, alt)


def _neighbour_captions(names: np.ndarray, labels: np.ndarray, similar: np.ndarray) -> list[list[str]]:
    """Under each query and its neighbours: label, similarity to the query, and the name without its folder."""
    likeness = [["", *(f", {value:.2f}" for value in row)] for row in similar]
    return [
        [f"{label}{like}\n{name.rsplit('/', 1)[-1]}" for name, label, like in zip(*row, strict=True)]
        for row in zip(names, labels, likeness, strict=True)
    ]


def _listed(texts: Sequence[str], most: int = NAMED) -> str:
    """The first of them on one line, and how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return "; ".join(" ".join(text.split()) for text in texts[:most]) + more
