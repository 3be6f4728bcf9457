"""What a colleague needs to know of a run before anything else: data, encoder, task, result, cautions, provenance.

All of it is read from the tracker, dataset_info.json and the models' result.json; verdicts are those that
training/verdicts.py gave. Plain text, which the template escapes. Cautions follow from what is there, by rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.models.encoders import TRAINED_ON
from trm_nb.notebook.prose import percent
from trm_nb.progress.model_record import read_result, recorded_fields
from trm_nb.progress.provenance import PROVENANCE
from trm_nb.progress.run_folder import RunPaths
from trm_nb.progress.tables import SOLVED
from trm_nb.progress.tracker import TrainingProgressTracker
from trm_nb.report.relative import Relative

FEW_ITEMS = 100  # held out; below it, intervals are wide
SPLITS = {"train": "for training", "val": "for validation", "test": "held out for the test"}
WHOLE = {"name", "value", "interval", "samples", "items", "baseline", "verdict", "p"}  # of a result that is shown
SOLVER = WHOLE - {"baseline", "verdict", "p"} | {"baselines"}  # likewise, of notebook 08
MOST_NAMES = 10  # labels and sources that are listed
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True, slots=True)
class Score:
    """A line of a result: who, the accuracy, its interval or "", and the verdict on the model against it, or ""."""

    name: str
    accuracy: str
    interval: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class ModelResult:
    """A model's task and its result compared with others; `scores` begins with the model. `verdict` is a sentence."""

    name: str
    task: str
    measured: str
    samples: str
    scores: list[Score]
    verdict: str
    outcome: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the index begins with.

    `solver` is what the package's solver was worth on the run's puzzles, where notebook 08 asked it; `main` is the
    model that was asked for last, `others` are the other finished ones.
    """

    data: list[str]
    encoder: str
    main: ModelResult | None
    why_no_result: str
    solver: ModelResult | None = None
    others: list[ModelResult] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    provenance: list[tuple[str, str]] = field(default_factory=list)


def summary_of(run: Path, tracker: TrainingProgressTracker, stats: Mapping[str, Any], relative: Relative) -> Summary:
    """The summary of a run, whatever is there of it."""
    paths, config = RunPaths(run), tracker.frozen()
    info = _info(paths)
    results = {one["name"]: read_result(paths.model(one["name"])) for one in stats["models"] if one["state"] == "done"}
    models = {name: _model(result) for name, result in results.items() if result.keys() >= WHOLE}
    chosen = stats["model"] if stats["model"] in models else next(iter(models), None)
    encoder = _encoder(config, info)
    main = models.get(chosen) if chosen else None
    return Summary(
        data=list(_data(stats, config, info, relative)),
        encoder=encoder,
        main=main,
        why_no_result=_why_no_result(stats),
        solver=_model(solved, "solver") if (solved := tracker.get(SOLVED) or {}).keys() >= SOLVER else None,
        others=[model for name, model in models.items() if name != chosen],
        cautions=list(_cautions(stats, config, info, main, results.get(chosen or "", {}))),
        provenance=list(_provenance(paths, tracker, config, info, chosen)),
    )


def _info(paths: RunPaths) -> dict[str, Any]:
    """dataset_info.json; {} where it is not there yet, or damaged."""
    try:
        held = json.loads(paths.info.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _data(
    stats: Mapping[str, Any], config: Mapping[str, Any], info: Mapping[str, Any], relative: Relative
) -> Iterator[str]:
    kinds = ", ".join(f"{number:,} {name}" for name, number in stats["modalities"].items())
    counts, classes = info.get("counts", {}), info.get("classes", [])
    planned = "samples" if stats["plan_frozen"] else "samples planned so far"
    yield f"{stats['rows_planned']:,} {planned}" + (f": {kinds}." if kinds else ".")
    if splits := counts.get("splits"):
        named = [f"{splits[name]:,} {said}" for name, said in SPLITS.items() if name in splits]
        yield f"Split by whole items: {', '.join(named)}."
    if classes:
        yield f"{len(classes):,} labels: {_listed(classes)}."
    if sources := config.get("source_paths"):
        yield f"Read from {_listed([relative.value(source) for source in sources])}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(str(name) for name in names[:MOST_NAMES]) + more


def _encoder(config: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """Which encoder, and what it was trained on."""
    known = info.get("encoder", {})
    preset = known.get("preset") or config.get("encoder")
    if preset is None:
        return "Not chosen yet."
    size = f", {known['weights']:,} weights" if known.get("weights") else ""
    named = f"{preset}{size}"
    if config.get("fit_encoder"):
        return f"{named}. Trained further on the training samples of this run, to answer their targets."
    if config.get("encoder_path"):
        return f"{named}, from a checkpoint of the user's. What it was trained on is not recorded."
    if known.get("trained", config.get("encoder_weights") != "random" and preset in TRAINED_ON):
        return f"{named}. Trained on {TRAINED_ON.get(preset, 'data that is not recorded')}."
    return f"{named}. Not trained: its weights are random, from the seed."


def _model(result: Mapping[str, Any], who: str = "model") -> ModelResult:
    name = str(result["name"])
    baselines = result.get("baselines") or [
        {**result["baseline"], "verdict": result["verdict"], "p": result["p"]},
    ]
    scores = [Score(f"{who} {name}".strip(), percent(result["value"], 1), _between(result["interval"]))]
    scores += [
        Score(one["name"], percent(one["value"], 1), "", _verdict(one["verdict"], one["p"])) for one in baselines
    ]
    first = baselines[0]
    against = f"{first['name']} ({percent(first['value'], 1)})"
    verdict = f"The {who} is {first['verdict']} than {against}."
    if first["verdict"] not in (BETTER, WORSE):
        verdict = f"No difference between the {who} and {against} is shown."
    return ModelResult(
        name,
        task=f"Predict {result.get('target', 'the target of objective ' + str(result.get('objective')))}.",
        measured=f"{result['samples']:,} held-out samples of {result['items']:,} items",
        samples=f"{result['samples']:,}",
        scores=scores,
        verdict=f"{percent(result['value'], 1)} of {result.get('correct', 'the targets are predicted')}. {verdict}",
        outcome=str(first["verdict"]),
        remark=str(result.get("remark", "")),
    )


def _between(interval: list[float]) -> str:
    low, high = interval
    return f"{percent(low, 1)} to {percent(high, 1)}"


def _verdict(outcome: str, p: float) -> str:
    return f"{outcome} ({'p < 0.001' if p < 0.001 else f'p = {p:.2g}'})"


def _why_no_result(stats: Mapping[str, Any]) -> str:
    if stats["stages"]["train"]["status"] == "running":
        return "No result yet: a model is being trained."
    return "No model was trained in this run." if stats["state"] == "done" else "No result yet."


def _cautions(
    stats: Mapping[str, Any],
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    main: ModelResult | None,
    result: Mapping[str, Any],
) -> Iterator[str]:
    """What keeps the result from meaning more, the most important first."""
    if main is not None:
        if main.outcome != BETTER:
            said = "is worse" if main.outcome == WORSE else "may be no better"
            yield f"The model {said} than {main.scores[1].name}, which learns nothing."
        if result["items"] < FEW_ITEMS:
            yield f"Only {result['items']:,} items are held out, so the interval is wide."
        if result.get("chosen_by") != "validation":
            yield "There was no validation: the weights of the last step are used."
        yield "It is one training with one seed; how far another seed differs is not measured here."
        yield "The held-out samples are of this dataset. The result says nothing about data from elsewhere."
    if info and not info.get("encoder", {}).get("trained", True):
        yield "The encoder is not trained, so the capsules are random projections of the images."
    elif "grid" in stats["modalities"] and config.get("encoder") in TRAINED_ON:
        yield "The encoder knows ARC: it was trained on ARC-AGI-2's training tasks, except those of the demo."
    if config.get("use_denoiser") and info and not info.get("denoiser"):
        yield "A denoiser was asked for and none was found: images are as rendered."
    unusable = stats["samples_quarantined"] + stats["items_quarantined"]
    if unusable:
        yield f"{unusable:,} items or samples could not be used; the reasons are below."
    if left_out := info.get("counts", {}).get("left_out"):
        yield f"{left_out:,} files or items were left out by the settings."
    if noted := len(stats["notes"]):
        yield f"{noted:,} items are used, but not as asked; `trm-nb status` says how."


def _provenance(
    paths: RunPaths,
    tracker: TrainingProgressTracker,
    config: Mapping[str, Any],
    info: Mapping[str, Any],
    model: str | None,
) -> Iterator[tuple[str, str]]:
    noted = tracker.get(PROVENANCE) or {}
    yield "command", str(noted.get("command", "not recorded: begun by a program or in a notebook"))
    if "commit" in noted:
        yield "git commit", f"{noted['commit'][:12]}" + (", with changes" if noted.get("changed") else "")
    seed = config.get("seed", MultimodalDatasetConfig.model_fields["seed"].default)
    trained = recorded_fields(paths.model(model)) if model else {}
    train_seed = trained.get("train_seed")
    yield "seeds", f"{seed}" + (f"; training {seed if train_seed is None else train_seed}" if model else "")
    if info:
        yield "content digest", str(info.get("content_digest", ""))
        yield "encoder weights", str(info.get("encoder", {}).get("fingerprint", ""))
        yield "versions", ", ".join(f"{name} {number}" for name, number in info.get("versions", {}).items())
    if begun := noted.get("begun"):
        yield "begun", str(begun)
