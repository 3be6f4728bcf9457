"""ARC's scores: hand-made rankings, and the published evaluator's counts on random predictions in its own format."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trm_nb.errors import UserError
from trm_nb.evaluation.arc.scoring import NEVER, PASSES, Candidate, Scores, grids_at_top_left, rank_of, ranked
from trm_nb.evaluation.arc.submission import Submission, check_submission, kaggle_score, submission_of
from trm_nb.sources.arc.augment import SYMMETRIES, View

A, B, C = (np.full((1, 2), colour, np.int8) for colour in (1, 2, 3))


@pytest.mark.parametrize(
    ("predicted", "order"),
    [
        pytest.param([(A, 0.1), (B, 0.9), (A, 0.1)], [A, B], id="votes decide, not q"),
        pytest.param([(A, 0.4), (B, 0.5)], [B, A], id="q breaks ties of votes"),
        pytest.param([(A, 0.9), (A, 0.0), (B, 0.5), (B, 0.5)], [B, A], id="the mean q, not the highest"),
        pytest.param([(A, 0.5), (B, 0.5)], [A, B], id="the first of equals comes first"),
        pytest.param([(A, 0.5), (A.T, 0.6)], [A.T, A], id="another shape is another grid"),
        pytest.param([(None, 1.0), (A, 0.0)], [A], id="no grid gets no vote"),
        pytest.param([(None, 1.0)], [], id="no grid at all"),
    ],
)
def test_predictions_are_ranked(predicted: list[tuple[np.ndarray | None, float]], order: list[np.ndarray]) -> None:
    found = ranked([grid for grid, _ in predicted], [q for _, q in predicted])
    assert [one.grid.tolist() for one in found] == [grid.tolist() for grid in order]
    assert sum(one.votes for one in found) == sum(grid is not None for grid, _ in predicted)


def test_both_means_of_two_test_inputs_and_one() -> None:
    """Task x has two test inputs, of which one is solved; task y has one, solved at the second attempt."""
    scores = Scores(np.array([0, NEVER, 1]), np.array(["x", "x", "y"]))
    assert [scores.per_input(k) for k in (1, 2, 100)] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert [scores.per_task(k) for k in (1, 2, 100)] == pytest.approx([1 / 4, 3 / 4, 3 / 4])
    part = scores.part(np.array([True, True, False]))
    assert (part.per_input(1), part.per_task(2)) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("canvas", "grid"),
    [
        pytest.param([[1, 2], [3, 4]], [[1, 2], [3, 4]], id="whole"),
        pytest.param([[1, 9], [2, 9]], [[1], [2]], id="narrower"),
        pytest.param([[1, 2], [9, 9]], [[1, 2]], id="lower"),
        pytest.param([[1, 2, 3], [4, 5, 9]], [[1, 2], [4, 5]], id="the larger of two rectangles"),
        pytest.param([[1, 2], [3, 9]], [[1, 2]], id="the first of two that are equally large"),
        pytest.param([[1, 9, 2], [3, 9, 4]], [[1], [3]], id="what is beyond a gap does not count"),
        pytest.param([[9, 1], [1, 1]], None, id="nothing at the top left"),
    ],
)
def test_a_grid_ends_at_the_largest_rectangle(canvas: list[list[int]], grid: list[list[int]] | None) -> None:
    (found,) = grids_at_top_left(np.array([canvas]), 9)
    assert (None if found is None else found.tolist()) == grid
    (whole,) = grids_at_top_left(np.array([canvas]), None)
    assert whole is not None and whole.tolist() == canvas, "where all grids have one size"


@given(
    arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 9)),
    st.integers(0, SYMMETRIES - 1),
    st.permutations(range(1, 10)),
)
def test_a_view_is_undone(grid: np.ndarray, symmetry: int, colours: list[int]) -> None:
    view = View(symmetry, (0, *colours))
    shown = view.grid(grid)
    assert view.undone(shown).tolist() == grid.tolist()
    assert ((shown == 0).sum(), shown.size) == ((grid == 0).sum(), grid.size)


# -- Kaggle's file --------------------------------------------------------------------------------------------------

GRID = {
    "type": "array", "minItems": 1, "maxItems": 30,
    "items": {
        "type": "array", "minItems": 1, "maxItems": 30, "items": {"type": "integer", "minimum": 0, "maximum": 9},
    },
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"attempt_1": GRID, "attempt_2": GRID},
            "required": ["attempt_1", "attempt_2"],
            "additionalProperties": False,
        },
    },
}
COUNTS = {"x": 2, "y": 1}


def made() -> Submission:
    """Two candidates, one, and none."""
    return submission_of(["x", "x", "y"], [[Candidate(A, 3, 0.5), Candidate(B, 1, 0.5)], [Candidate(C, 1, 0.1)], []])


def test_a_submission_has_two_attempts_for_every_test_input() -> None:
    submission = json.loads(json.dumps(made()))
    jsonschema.validate(submission, SCHEMA)
    check_submission(submission, COUNTS)
    assert submission == {
        "x": [{"attempt_1": [[1, 1]], "attempt_2": [[2, 2]]}, {"attempt_1": [[3, 3]], "attempt_2": [[3, 3]]}],
        "y": [{"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}],
    }
    answers = {"x": [B, A], "y": [C]}
    assert kaggle_score(submission, answers) == pytest.approx(1 / 3), "the second attempt counts too"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda s: s.pop("y"), "lacks 'y'", id="a task is missing"),
        pytest.param(lambda s: s.update(z=[]), "also has 'z'", id="a task too many"),
        pytest.param(lambda s: s["x"].pop(), "2 entries", id="a test input is missing"),
        pytest.param(lambda s: s["x"][1].pop("attempt_2"), "x, test input 1: expected attempt_1", id="one attempt"),
        pytest.param(lambda s: s["x"][0].update(attempt_1=[[1], [1, 2]]), "ragged", id="ragged"),
        pytest.param(lambda s: s["x"][0].update(attempt_1=[[10]]), "0 to 9", id="no colour"),
        pytest.param(lambda s: s["x"][0].update(attempt_1=[]), "1 to 30 rows", id="no rows"),
        pytest.param(lambda s: s["y"][0].update(attempt_2=[[True]]), "test input 0, attempt_2", id="no number"),
    ],
)
def test_what_is_no_submission_is_refused(spoil: Any, said: str) -> None:
    submission = made()
    spoil(submission)
    with pytest.raises(UserError, match=said):
        check_submission(submission, COUNTS)


# -- the published evaluator ----------------------------------------------------------------------------------------
# Written from its description: predictions are 900 tokens (0 padding, 1 end, 2 to 11 colours) with the name
# `task|||t<symmetry>|||<ten digits>` of the augmented task; a grid is turned back and its colours are named back.

PUBLISHED = {
    0: lambda g: g, 1: lambda g: np.rot90(g, 1), 2: lambda g: np.rot90(g, 2), 3: lambda g: np.rot90(g, 3),
    4: lambda g: g[:, ::-1], 5: lambda g: g[::-1], 6: lambda g: g.T, 7: lambda g: np.rot90(g, 1)[:, ::-1],
}  # fmt: skip
ASYMMETRIC = np.arange(6).reshape(2, 3)


def test_our_symmetries_are_the_published_ones() -> None:
    assert sorted(map(_ours, PUBLISHED)) == list(range(SYMMETRIES))


def _ours(published: int) -> int:
    wanted = PUBLISHED[published](ASYMMETRIC).tolist()
    return next(s for s in range(SYMMETRIES) if View(s).grid(ASYMMETRIC).tolist() == wanted)


def _tokens(grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grid as a model predicts it: with its end, and noise beyond."""
    canvas = rng.integers(0, 12, (30, 30))
    rows, columns = grid.shape
    canvas[:rows, :columns] = grid + 2
    canvas[rows : rows + 1, : columns + 1] = canvas[: rows + 1, columns : columns + 1] = 1
    return canvas.ravel()


def _published_counts(
    tasks: dict[str, list[tuple[np.ndarray, np.ndarray]]], predictions: list[tuple[str, np.ndarray, np.ndarray, float]]
) -> tuple[dict[int, float], dict[str, list[list[list[list[int]]]]]]:
    """pass@k by task, and the two best grids of each test input, as the published evaluator finds them."""
    votes: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, asked, predicted, logit in predictions:
        task, symmetry, digits = name.split("|||")
        turned_back = {1: 3, 3: 1}.get(int(symmetry[1:]), int(symmetry[1:]))
        back = {int(new): old for old, new in enumerate(digits)}

        def restored(tokens: np.ndarray, turned_back: int = turned_back, back: dict[int, int] = back) -> str:
            canvas, best = tokens.reshape(30, 30), (0, 0)
            for rows in range(1, 31):
                columns = 0
                while columns < 30 and np.all((canvas[:rows, columns] >= 2) & (canvas[:rows, columns] <= 11)):
                    columns += 1
                best = (rows, columns) if rows * columns > best[0] * best[1] else best
            upright = PUBLISHED[turned_back](canvas[: best[0], : best[1]] - 2)
            return json.dumps([[back[cell] for cell in row] for row in upright.tolist()])

        votes[task, restored(asked)][restored(predicted)].append(1 / (1 + np.exp(-np.float64(logit))))
    passed, best = dict.fromkeys(PASSES, 0.0), {}
    for task, pairs in tasks.items():
        best[task] = []
        for asked, answer in pairs:
            found = votes[task, json.dumps(asked.tolist())]
            order = sorted(found, key=lambda grid: (len(found[grid]), np.mean(found[grid])), reverse=True)
            for k in PASSES:
                passed[k] += (json.dumps(answer.tolist()) in order[:k]) / len(pairs) / len(tasks)
            best[task].append([json.loads(grid) for grid in (order[:2] * 2)[:2]])
    return passed, best


@pytest.mark.parametrize("seed", range(4))
def test_the_published_evaluator_counts_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def grid() -> np.ndarray:
        return rng.integers(0, 10, rng.integers(2, 5, 2))

    tasks = {f"task{n}": [(grid(), grid()) for _ in range(rng.integers(1, 4))] for n in range(12)}
    predictions, ours = [], {}
    for task, pairs in tasks.items():
        for number, (asked, answer) in enumerate(pairs):
            wrong = [grid() for _ in range(rng.integers(1, 6))]
            votes: tuple[list[np.ndarray | None], list[float]] = ([], [])
            for _ in range(rng.integers(1, 30)):
                symmetry, colours = int(rng.integers(8)), (0, *rng.permutation(np.arange(1, 10)).tolist())
                guessed = answer if rng.random() < 0.2 else wrong[rng.integers(len(wrong))]
                shown = [PUBLISHED[symmetry](np.array(colours)[each]) for each in (asked, guessed)]
                tokens, logit = [_tokens(each, rng) for each in shown], float(rng.normal())
                predictions.append((f"{task}|||t{symmetry}|||{''.join(map(str, colours))}", *tokens, logit))
                canvas = tokens[1].reshape(1, 30, 30) - 2
                (found,) = grids_at_top_left(np.where(canvas < 0, 10, canvas), 10)
                assert found is not None
                votes[0].append(View(_ours(symmetry), colours).undone(found))
                votes[1].append(1 / (1 + np.exp(-logit)))
            ours[task, number] = ranked(*votes)
    passed, best = _published_counts(tasks, predictions)
    answers = {(task, number): answer for task, pairs in tasks.items() for number, (_, answer) in enumerate(pairs)}
    scores = Scores(
        np.array([rank_of(answers[key], found) for key, found in ours.items()]), np.array([t for t, _ in ours])
    )
    assert {k: pytest.approx(scores.per_task(k)) for k in PASSES} == passed
    assert 0 < passed[1] < passed[2] < passed[10] <= passed[100]
    submission = submission_of([task for task, _ in ours], list(ours.values()))
    assert {task: [[e["attempt_1"], e["attempt_2"]] for e in entries] for task, entries in submission.items()} == best
    known = {task: [answer for _, answer in pairs] for task, pairs in tasks.items()}
    assert kaggle_score(submission, known) == pytest.approx(scores.per_input(2))
