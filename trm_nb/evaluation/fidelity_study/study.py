"""The fidelity study: every arm read by the same decoder with the same budget, and the record of what came out.

The encoder and all other codes are frozen; for each arm and each seed a decoder is trained on the training images and
measured on the held-out ones, as they are stored in 16, 8 and 4 bits a number. `StudyRecord` holds every image's score.
Choice: a decoder's scores are written to a file named after a hash of all that decides them, so that a study which
was interrupted goes on with the next decoder.
Cost: steps x arms x seeds x 0.6 s on one CPU thread; 1,500 steps, eight arms and two seeds take four hours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trm_nb.evaluation.fidelity_study import arms
from trm_nb.evaluation.fidelity_study.content import StudyContent
from trm_nb.evaluation.fidelity_study.decoder import Budget, decoded, train_decoder
from trm_nb.evaluation.fidelity_study.meaning import Answer
from trm_nb.evaluation.fidelity_study.reading import Reading, Score, Summary, measures_of, summarised
from trm_nb.storage.files import write_file
from trm_nb.training.verdicts import Accuracy, Outcome, outcome_of

if TYPE_CHECKING:
    import pandas as pd

BITS = (16, 8, 4)
VERSION = 1  # of what a decoder's file of scores holds


@dataclass(frozen=True, eq=False)
class StudyRecord:
    """All that the study found; `settings` are plain values (budget, numbers of images, seeds, the encoder)."""

    settings: Mapping[str, Any]
    scores: tuple[Score, ...]
    answers: tuple[Answer, ...] = ()

    def frame(self) -> pd.DataFrame:
        """A row for each arm, number of bits and kind of content."""
        import pandas as pd

        return pd.DataFrame([_row(summary) for summary in summarised(self.scores)])

    def meaning_frame(self) -> pd.DataFrame:
        """A row for each question and arm."""
        import pandas as pd

        return pd.DataFrame([_answer_row(answer) for answer in self.answers])

    def save(self, folder: Path) -> None:
        """Write record.json, and the two tables as Markdown."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"settings": dict(self.settings), "scores": [asdict(score) for score in self.scores]}
        parts["answers"] = [asdict(answer) for answer in self.answers]
        write_file(folder / "record.json", json.dumps(parts, ensure_ascii=False).encode())
        write_file(folder / "reading.md", markdown(self.frame()).encode())
        write_file(folder / "meaning.md", markdown(self.meaning_frame()).encode())

    @classmethod
    def load(cls, folder: Path) -> StudyRecord:
        """Read what `save` wrote."""
        parts = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        measured = (
            {**answer, **{name: Accuracy(**answer[name]) for name in ("neighbour", "probe")}}
            for answer in parts["answers"]
        )
        scores, found = (Score(**score) for score in parts["scores"]), (Answer(**answer) for answer in measured)
        return cls(parts["settings"], tuple(scores), tuple(found))


def read_all(
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray],
    content: StudyContent,
    budget: Budget,
    seeds: Sequence[int],
    work: Path | None = None,
    on_step: Callable[[str, int, int], None] | None = None,
    device: str = "cpu",
) -> tuple[Score, ...]:
    """Train and measure a decoder for each arm and seed.

    Args:
        train, test: arm -> codes of the content's training and test images, in their order (arms.py).
        work: folder that keeps the scores of finished decoders; None: they are not kept.
        on_step: called with arm, seed and step.
    """
    reading, scores = Reading(content.glyphs), []
    for arm, codes in train.items():
        for seed in seeds:
            name = f"{_digest(codes, test[arm], content, budget, seed)}.json"
            kept = None if work is None else work / "decoders" / name
            if kept is not None and kept.exists():
                scores += [Score(**score) for score in json.loads(kept.read_text(encoding="utf-8"))]
                continue
            report = None if on_step is None else _reporting(on_step, arm, seed)
            found = _measured(arm, codes, test[arm], content, budget, seed, reading, report, device)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_file(kept, json.dumps([asdict(score) for score in found], ensure_ascii=False).encode())
            scores += found
    return tuple(scores)


def compare_arms(scores: Iterable[Score], first: str, second: str, bits: int = 16) -> dict[str, Outcome]:
    """Kind -> whether the first arm's interval lies above or below the second's: characters, cells or decibels."""
    found = {(s.arm, s.kind): s for s in summarised(score for score in scores if score.bits == bits)}
    outcomes = {}
    for (arm, kind), mine in found.items():
        if arm == first and (second, kind) in found:
            (_, low, high), (_, *reference) = measures_of(mine), measures_of(found[second, kind])
            outcomes[kind] = outcome_of((low, high), (reference[0], reference[1]), mine.items)
    return outcomes


def codes_of(
    images: np.ndarray, codes: Mapping[str, arms.Code], seed: int, chosen: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Every arm's code of the images, the floors included; `chosen` leaves only these arms."""
    found = {name: arms.in_blocks(code, images) for name, code in codes.items() if _wanted(name, chosen)}
    return {name: code for name, code in arms.all_codes(found, seed).items() if chosen is None or name in chosen}


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown; numbers have four digits at most."""
    lines = [
        list(frame.columns),
        ["---"] * len(frame.columns),
        *([_shown(value) for value in row] for row in frame.itertuples(index=False)),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _wanted(name: str, chosen: Sequence[str] | None) -> bool:
    floors = chosen is not None and name == arms.ENCODER and any(floor in chosen for floor in arms.FLOORS)
    return chosen is None or name in chosen or floors


def _measured(
    arm: str,
    train: np.ndarray,
    test: np.ndarray,
    content: StudyContent,
    budget: Budget,
    seed: int,
    reading: Reading,
    on_step: Callable[[int], None] | None,
    device: str,
) -> list[Score]:
    """Raw pixels are bytes as they are; the floors are measured in 16 bits only, as there is nothing to lose."""
    raw = train.dtype == np.uint8
    learnt = arms.as_tokens(train if raw else arms.stored(train, 16))
    decoder = train_decoder(learnt, content, budget, seed, on_step, device)
    found = []
    for bits in BITS[:1] if raw or arm in arms.FLOORS else BITS:
        tokens = arms.as_tokens(test if raw else arms.stored(test, bits))
        for pixels, shown in zip(decoded(decoder, tokens), content.test, strict=True):
            found.append(reading.score(pixels, shown, arm, seed, bits))
    return found


def _reporting(on_step: Callable[[str, int, int], None], arm: str, seed: int) -> Callable[[int], None]:
    return lambda step: on_step(arm, seed, step)


def _digest(train: np.ndarray, test: np.ndarray, content: StudyContent, budget: Budget, seed: int) -> str:
    """24 hex digits over everything that decides the scores of a decoder."""
    digest = hashlib.sha256(json.dumps([VERSION, asdict(budget), seed]).encode())
    for codes in (train, test, content.glyphs):
        digest.update(np.ascontiguousarray(codes).data)
    for shown in (*content.train, *content.test):
        digest.update(shown.kind.encode())
        digest.update(np.ascontiguousarray(shown.image).data)
    return digest.hexdigest()[:24]


def _row(summary: Summary) -> dict[str, Any]:
    return {
        "arm": summary.arm, "bits": summary.bits, "content": summary.kind,
        "right": summary.parts.share, "right, low": summary.parts.low, "right, high": summary.parts.high,
        "exact": summary.whole.share, "exact, low": summary.whole.low, "exact, high": summary.whole.high,
        "failed": summary.failed, "PSNR": summary.psnr, "PSNR, low": summary.psnr_low, "PSNR, high": summary.psnr_high,
        "images": summary.images, "items": summary.items,
    }  # fmt: skip


def _answer_row(answer: Answer) -> dict[str, Any]:
    near, probe = answer.neighbour, answer.probe
    return {
        "question": answer.question, "arm": answer.arm, "neighbour": near.share, "neighbour, low": near.low,
        "neighbour, high": near.high, "probe": probe.share, "probe, low": probe.low, "probe, high": probe.high,
        "commonest": answer.majority, "classes": answer.classes, "images": near.rows, "items": near.items,
    }  # fmt: skip
