"""What the fidelity study's notebook says: a finding for each section, computed from its records, and its progress.

A finding states the encoder's number, what stands beside it, and in how many cases the 95 % intervals lie apart; where
they overlap it says that no difference is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from trm_nb.evaluation.fidelity_study.arms import ENCODER, FLOORS, PCA, PIXELS, RANDOM, stored_bytes
from trm_nb.evaluation.fidelity_study.content import PHOTOGRAPHS
from trm_nb.evaluation.fidelity_study.meaning import Answer
from trm_nb.evaluation.fidelity_study.published import Ratio
from trm_nb.evaluation.fidelity_study.reading import Score, Summary
from trm_nb.evaluation.fidelity_study.study import compare_arms
from trm_nb.notebook.prose import NO_BREAK, finding, percent
from trm_nb.training.verdicts import BETTER, NOT_SHOWN, WORSE, Accuracy, outcome_of

THUMBNAILS = "pixels, 56x56"
What = Literal["neighbour", "probe"]


def progress(decoders: int, steps: int, every: float = 2.0) -> Callable[[str, int, int], None]:
    """A callback for `read_all` that shows on one line of the cell which decoder is at which step."""
    from IPython.display import Markdown, display

    handle = display(Markdown("The decoders begin."), display_id=True)  # type: ignore[no-untyped-call]
    begun: dict[tuple[str, int], None] = {}
    reported = 0.0

    def tell(arm: str, seed: int, step: int) -> None:
        nonlocal reported
        begun[arm, seed] = None
        if step == steps or time.monotonic() - reported > every:
            reported = time.monotonic()
            template = "Decoder {0} of {1} ({2}, seed {3}): step {4:,} of {5:,}."
            handle.update(Markdown(finding(template, len(begun), decoders, arm, seed, step, steps)))  # type: ignore[no-untyped-call]

    return tell


def reading_table(summaries: Sequence[Summary], bits: int = 16) -> pd.DataFrame:
    """A row for each kind, a column for each arm: characters or cells read right in per cent, photographs in dB."""
    shown = [summary for summary in summaries if summary.bits == bits]
    arms, kinds = (list(dict.fromkeys(getattr(s, name) for s in shown)) for name in ("arm", "kind"))
    found = {(s.kind, s.arm): s for s in shown}
    return pd.DataFrame([{"content": kind, **{arm: _value(found[kind, arm]) for arm in arms}} for kind in kinds])


def details(summaries: Sequence[Summary], arm: str = ENCODER, bits: int = 16) -> pd.DataFrame:
    """One arm's intervals, exact images and failures."""
    return pd.DataFrame([
        {
            "content": s.kind, "right": _value(s), "95 % interval": _interval(s),
            "exact": percent(s.whole.share, 1), "exact, 95 %": _between(s.whole),
            "below 50 %": percent(s.failed, 1), "images": s.images, "items": s.items,
        }
        for s in summaries if (s.arm, s.bits) == (arm, bits)
    ])  # fmt: skip


def reading_finding(scores: Sequence[Score], summaries: Sequence[Summary]) -> str:
    """The encoder beside block PCA and the random encoder."""
    said = []
    for other in (PCA, RANDOM):
        outcomes = compare_arms(scores, ENCODER, other)
        count = Counter(outcomes.values())
        worse = ", ".join(kind for kind, outcome in outcomes.items() if outcome == WORSE)
        said.append(finding(
            "Beside the **{0}** it is better on **{1}** of {2} kinds of content, worse on {3}{4}, and no difference is "
            "shown on {5}.", other, count[BETTER], len(outcomes), count[WORSE], f" ({worse})" if worse else "",
            count[NOT_SHOWN],
        ))  # fmt: skip
    text = _mean_share(summaries, "text, ")
    return (
        finding("The encoder keeps **{0}** of natural text, mean of the scripts.", percent(text, 1))
        + " "
        + " ".join(said)
    )


def floor_finding(summaries: Sequence[Summary]) -> str:
    """What is read without seeing the image, and what of the image itself."""
    floors = {arm: _mean_share(summaries, "", arm) for arm in (*FLOORS, ENCODER, PIXELS)}
    return finding(
        "Characters and cells, mean of the kinds: shuffled capsules {0}, blank ones {1}; the encoder **{2}**; the same "
        "decoder on raw pixels {3}.", *(percent(share, 1) for share in floors.values()),
    )  # fmt: skip


def size_finding(sizes: Mapping[str, Summary], kind: str) -> str:
    """The exactly read grids of the smallest and the largest bin."""
    if not sizes:
        return finding("There are no images of {0}.", kind)
    names = list(sizes)
    template = "{0} of {1} cells a side are exactly right in **{2}** of {3:,} readings, of {4} in **{5}** of {6:,}."
    ends = ((name, percent(sizes[name].whole.share, 1), sizes[name].images) for name in (names[0], names[-1]))
    return finding(template, kind, *(part for end in ends for part in end))


def bits_finding(summaries: Sequence[Summary]) -> str:
    """What fewer bits a number cost the encoder."""
    shares = {
        bits: _mean_share(summaries, "", ENCODER, bits) for bits in sorted({s.bits for s in summaries}, reverse=True)
    }
    said = ", ".join(
        f"{percent(share, 1)} with {bits} bits ({stored_bytes(bits):,} bytes an image)"
        for bits, share in shares.items()
    )
    return f"Characters and cells, mean of the kinds: {said}."


def ratio_table(found: Iterable[Ratio]) -> pd.DataFrame:
    """The compression of each kind, stated in three ways."""
    names = (
        "characters or cells",
        "for each capsule",
        "content bytes for a stored byte",
        "pixel bytes for a stored byte",
    )
    rows: list[dict[str, object]] = []
    for ratio in found:
        values = ratio.symbols, ratio.per_capsule, ratio.of_bytes, ratio.of_pixels
        rows.append({"content": ratio.kind, **{name: _four(value) for name, value in zip(names, values, strict=True)}})
    return pd.DataFrame(rows)


def ratio_finding(found: Sequence[Ratio]) -> str:
    """That few capsules are not few bytes."""
    texts = [ratio for ratio in found if ratio.kind.startswith("text, ")]
    most = max(texts, key=lambda ratio: ratio.per_capsule)
    return finding(
        "A page of {0} has {1:.0f} characters for each capsule, and {2:.1f} stored bytes for each byte of its text: "
        "the capsules are few, not short. Pixels are {3:.2f} times as long as what is stored.",
        most.kind, most.per_capsule, 1 / most.of_bytes, most.of_pixels,
    )  # fmt: skip


def meaning_table(answers: Sequence[Answer], what: What) -> pd.DataFrame:
    """A row for each question, a column for each arm."""
    arms, asked = (list(dict.fromkeys(getattr(a, name) for a in answers)) for name in ("arm", "question"))
    found = {(answer.question, answer.arm): answer for answer in answers}
    rows = []
    for question in asked:
        first = found[question, arms[0]]
        row: dict[str, object] = {"question": question, "images": first.neighbour.rows, "items": first.neighbour.items}
        for arm in arms:
            measured = _of(found[question, arm], what)
            row[arm] = f"{percent(measured.share, 1)} ({_between(measured)})"
        rows.append({**row, "commonest": percent(first.majority, 1)})
    return pd.DataFrame(rows)


def meaning_finding(answers: Sequence[Answer], what: What) -> str:
    """On how many questions the encoder is above each other arm, and above all of them, with intervals apart."""
    arms, asked = (list(dict.fromkeys(getattr(a, name) for a in answers)) for name in ("arm", "question"))
    above = {arm: [q for q in asked if _above(answers, q, arm, what)] for arm in arms if arm != ENCODER}
    everywhere = [question for question in asked if all(question in found for found in above.values())]
    named = "nearest neighbour" if what == "neighbour" else "linear probe"
    said = ", ".join(f"{arm} on {len(found)}" for arm, found in above.items())
    template = (
        "By {0} the encoder is above all others, with intervals apart, on **{1}** of {2} questions{3}; above {4}."
    )
    which = f" ({', '.join(everywhere)})" if everywhere else ""
    return finding(template, named, len(everywhere), len(asked), which, said)


def _four(value: float) -> float | None:
    return float(f"{value:.4g}") if value == value else None


def _above(answers: Sequence[Answer], question: str, arm: str, what: What) -> bool:
    found = {answer.arm: _of(answer, what) for answer in answers if answer.question == question}
    mine, other = found[ENCODER], found[arm]
    return outcome_of((mine.low, mine.high), (other.low, other.high), mine.items) == BETTER


def _of(answer: Answer, what: What) -> Accuracy:
    return answer.neighbour if what == "neighbour" else answer.probe


def _mean_share(summaries: Sequence[Summary], begins: str, arm: str = ENCODER, bits: int = 16) -> float:
    """NaN where there is no such kind."""
    chosen = [s for s in summaries if (s.arm, s.bits) == (arm, bits) and s.kind.startswith(begins)]
    shares = [s.parts.share for s in chosen if s.kind != PHOTOGRAPHS]
    return float(np.mean(shares)) if shares else float("nan")


def _value(summary: Summary) -> str:
    photographs = summary.kind == PHOTOGRAPHS
    return f"{summary.psnr:.1f}{NO_BREAK}dB" if photographs else percent(summary.parts.share, 1)


def _interval(summary: Summary) -> str:
    if summary.kind == PHOTOGRAPHS:
        return f"{summary.psnr_low:.1f} to {summary.psnr_high:.1f}{NO_BREAK}dB"
    return _between(summary.parts)


def _between(measured: Accuracy) -> str:
    return f"{100 * measured.low:.1f} to {percent(measured.high, 1)}"
