"""The fidelity study: content that is known, arms of equal length, readings that count, probes that find labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from trm_nb import GridRenderer, TextRenderer, TRMVisionEncoder
from trm_nb.errors import UserError
from trm_nb.evaluation.fidelity_study import arms, meaning, published, sources, study
from trm_nb.evaluation.fidelity_study.content import Glyphs, StudyContent, digit_templates, grid_image, study_content
from trm_nb.evaluation.fidelity_study.decoder import Budget, decoded, train_decoder
from trm_nb.evaluation.fidelity_study.reading import Reading, by_size, mean_interval, psnr, student, summarised
from trm_nb.notebook import fidelity_plots, fidelity_report

ROOT = Path(__file__).parents[1]
WORDS = {
    "text:en": "the quick brown fox jumps over the lazy dog ", "text:ru": "съешь ещё этих мягких французских булок ",
    "text:el": "ξεσκεπάζω την ψυχοφθόρα βδελυγμία ", "text:ar": "نص حكيم له سر قاطع وذو شأن عظيم ",
    "text:zh": "天地玄黃宇宙洪荒日月盈昃辰宿列張", "text:de": "Zwölf Boxkämpfer jagen Viktor quer ",
    "code:python": "def f(x):\n    return [y for y in x]\n", "code:c": "int main(void) {\n  return 0;\n}\n",
}  # fmt: skip


def write_sources(folder: Path) -> tuple[Path, Path]:
    """A Parquet file of texts and a folder of 21 photographs, of which three are held out."""
    rows = [
        {"kind": kind, "name": f"{kind}/{number}", "text": f"{number} {words * 30}", "held_out": number < 4}
        for kind, words in WORDS.items() for number in range(5)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "texts.parquet")
    (folder / "photographs").mkdir()
    for number in range(21):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(folder / "photographs" / f"{number:02d}.png")
    return folder / "texts.parquet", folder / "photographs"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[sources.Texts, list[Path]]:
    texts, photographs = write_sources(tmp_path_factory.mktemp("sources"))
    return sources.held_out_texts(texts), sources.held_out_photographs(photographs)


@pytest.fixture(scope="module")
def content(found: tuple[sources.Texts, list[Path]]) -> StudyContent:
    return study_content(*found, train=2, test=3)


def as_pixels(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 127.5 - 1


# -- content ----------------------------------------------------------------------------------------------------------


def test_only_what_was_held_out_is_used(found: tuple[sources.Texts, list[Path]]) -> None:
    texts, photographs = found
    assert set(texts) == set(WORDS) and all(len(documents) == 4 for documents in texts.values())
    assert [path.name for path in photographs] == ["00.png", "10.png", "20.png"]


def test_the_two_sides_share_no_item_and_hold_every_kind(content: StudyContent) -> None:
    train, test = ({(shown.kind, shown.item) for shown in part} for part in (content.train, content.test))
    assert not train & test
    kinds = [shown.kind for shown in content.test]
    assert len(kinds) == 39 and all(kinds.count(kind) == 3 for kind in kinds)
    boards = [{shown.image.tobytes() for shown in part if shown.digits} for part in (content.train, content.test)]
    assert not boards[0] & boards[1]


def test_the_content_follows_from_its_seed(content: StudyContent, found: tuple[sources.Texts, list[Path]]) -> None:
    again = study_content(*found, train=2, test=3)
    assert [shown.image.tobytes() for shown in again.test] == [shown.image.tobytes() for shown in content.test]


def test_the_image_itself_is_read_without_a_mistake(content: StudyContent) -> None:
    reading = Reading(content.glyphs)
    for shown in (*content.train, *content.test):
        score = reading.score(as_pixels(shown.image), shown, "itself", 0, 16)
        assert score.right == score.asked and score.psnr > 90
        assert (score.asked > 0) == (shown.kind != "photographs")


@pytest.mark.parametrize(
    ("text", "characters"), [("ab c", 3), ("天 a", 2), ("ש\u05b0", 1), ("\U0001f9ff", 1), ("x" * 40, 40)],
    ids=["narrow", "wide", "with a mark", "without a glyph", "two rows"],
)  # fmt: skip
def test_characters_are_counted_as_they_stand(text: str, characters: int) -> None:
    glyphs = Glyphs()
    shown = glyphs.shown("text", "a", glyphs.renderer.pages(text)[0])
    assert shown.size == len(shown.characters) == characters


def test_a_wide_character_is_right_with_both_halves_only() -> None:
    glyphs = Glyphs()
    shown = glyphs.shown("text", "a", glyphs.renderer.pages("天天")[0])
    pixels = as_pixels(shown.image)
    pixels[:14, 7:14] = 1  # the right half of the first one becomes blank
    assert Reading(glyphs.table()).right(pixels, shown).tolist() == [False, True]


def test_each_cell_of_a_grid_is_asked_for_its_colour() -> None:
    grid = np.arange(6).reshape(2, 3)
    content = grid_image("grids", "a", GridRenderer().render(grid), 3)
    assert content.cells[:, 4].tolist() == [0, 1, 2, 3, 4, 5]
    other = as_pixels(GridRenderer().render(np.array([[0, 1, 2], [3, 4, 9]])))
    assert Reading(np.zeros((1, 14, 7), np.uint8)).right(other, content).tolist() == [True] * 5 + [False]


def test_the_digits_of_a_sudoku_all_differ() -> None:
    for side in (4, 6, 9):
        templates = digit_templates(side)
        assert len(templates) == side + 1 == len({template.tobytes() for template in templates})
        assert (templates[0] == 255).all()


@pytest.mark.parametrize(
    ("missing", "message"), [("text:el", "expected two or more held-out documents of text:el, got 0"),
                             (None, "expected two or more that pre-training held out, got 1")],
)  # fmt: skip
def test_what_is_missing_is_named(missing: str | None, message: str, found: tuple[sources.Texts, list[Path]]) -> None:
    texts = {kind: documents for kind, documents in found[0].items() if kind != missing}
    with pytest.raises(UserError, match=message):
        study_content(texts, found[1] if missing else found[1][:1], train=1, test=1)


def test_another_file_of_texts_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    with pytest.raises(UserError, match="expected a Parquet file with kind, name, text and held_out"):
        sources.held_out_texts(tmp_path / "texts.parquet")


# -- arms -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes(content: StudyContent) -> dict[str, np.ndarray]:
    encoders = TRMVisionEncoder("tiny").eval(), TRMVisionEncoder("tiny", seed=1).eval()
    images = np.stack([shown.image for shown in content.train])
    made = arms.codes(*encoders, arms.fitted_patches(images, most=1000))
    return study.codes_of(images, made, seed=0)


def test_every_code_is_as_long_as_the_capsules(codes: dict[str, np.ndarray]) -> None:
    assert set(codes) == {arms.ENCODER, *arms.CONTROLS, arms.PIXELS, *arms.FLOORS}
    for name, code in codes.items():
        assert code.shape[1:] == ((64, 2352) if name == arms.PIXELS else (12, 512)), name
        assert arms.as_tokens(code).shape[2] == (2352 if name == arms.PIXELS else 64)


def test_the_floors_say_nothing_of_their_image(codes: dict[str, np.ndarray]) -> None:
    own, other = codes[arms.ENCODER], codes[arms.SHUFFLED]
    assert not (own == other).all(axis=(1, 2)).any() and not codes[arms.BLANK].any()
    assert {code.tobytes() for code in own} == {code.tobytes() for code in other}


def test_block_pca_keeps_the_most_of_a_patch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8).repeat(28, 1).repeat(28, 2)
    fitted = arms.fitted_patches(images)
    components = fitted.components(images, 3)  # a patch of one colour is three numbers
    rest = fitted.components(images, 512)[:, :, 3:]
    assert components.std() > 0.5 and np.abs(rest).max() < 1e-2


@pytest.mark.parametrize(("bits", "nbytes", "error"), [(16, 12288, 2e-3), (8, 6168, 0.02), (4, 3096, 0.4)])
def test_fewer_bits_lose_as_much_as_they_must(bits: int, nbytes: int, error: float) -> None:
    capsules = np.random.default_rng(0).standard_normal((5, 12, 512)).astype(np.float32)
    lost = np.abs(arms.stored(capsules, bits) - capsules).max()
    assert error / 100 < lost < error and arms.stored_bytes(bits) == nbytes
    levels = {len(np.unique(capsule)) for capsule in arms.stored(capsules, bits).reshape(-1, 512)}
    assert bits == 16 or max(levels) <= 2**bits - 1
    assert not arms.stored(np.zeros((1, 12, 512), np.float32), bits).any()


# -- decoder and record -----------------------------------------------------------------------------------------------


def test_a_decoder_learns_its_images_and_follows_from_its_seed(content: StudyContent) -> None:
    one = StudyContent(content.train[:1], content.train[:1], content.glyphs, content.known)
    tokens = np.random.default_rng(0).standard_normal((1, 96, 64)).astype(np.float32)
    first, second, longer = (train_decoder(tokens, one, Budget(steps, batch=2), seed=3) for steps in (3, 3, 25))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    before, after = (psnr(next(decoded(decoder, tokens)), one.test[0].image) for decoder in (first, longer))
    assert after > before + 1


def test_a_study_goes_on_where_it_stopped_and_its_record_returns(
    content: StudyContent, codes: dict[str, np.ndarray], tmp_path: Path
) -> None:
    small = StudyContent(content.train[::6], content.train[::6], content.glyphs, content.known)
    chosen = (arms.ENCODER, arms.PIXELS, arms.BLANK)
    given = {name: codes[name][::6] for name in chosen}
    told: list[tuple[str, int, int]] = []

    def read() -> tuple[study.Score, ...]:
        return study.read_all(given, given, small, Budget(2, 2), [0, 1], tmp_path, lambda *now: told.append(now))

    scores = read()
    steps = len(told)
    assert steps == 3 * 2 * 2 and read() == scores and len(told) == steps
    assert {(s.arm, s.bits) for s in scores} == {(arm, 16) for arm in chosen} | {(chosen[0], 8), (chosen[0], 4)}
    record = study.StudyRecord({"steps": 2}, scores)
    record.save(tmp_path / "record")
    assert study.StudyRecord.load(tmp_path / "record").scores == scores
    written = (tmp_path / "record" / "reading.md").read_text().splitlines()
    assert len(written) == 2 + len(record.frame()) and written[0].startswith("| arm | bits | content |")


# -- summaries --------------------------------------------------------------------------------------------------------


def score(
    right: int, asked: int = 10, item: str = "a", arm: str = "encoder", size: int = 4, db: float = 20.0
) -> study.Score:
    return study.Score(arm, 0, 16, "ARC grids", item, size, 8.0, right, asked, db)


def test_a_summary_counts_parts_whole_images_and_failures() -> None:
    (summary,) = summarised([score(10, item="a"), score(9, item="b"), score(4, item="c", db=26)])
    assert summary.parts.share == pytest.approx(23 / 30) and summary.whole.share == pytest.approx(1 / 3)
    assert summary.failed == pytest.approx(1 / 3) and (summary.images, summary.items) == (3, 3)
    assert summary.psnr == pytest.approx(22) and summary.psnr_low < 20 < summary.psnr < summary.psnr_high


def test_grids_are_binned_by_their_longer_side() -> None:
    found = by_size(
        [score(10, size=5), score(9, size=6), score(10, size=10), score(10, size=30)], "ARC grids", "encoder"
    )
    assert {name: (of.images, of.whole.share) for name, of in found.items()} == {
        "1-5": (1, 1.0), "6-10": (2, 0.5), "26-30": (1, 1.0)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (12, 2.179), (200, 1.972)]
)
def test_students_quantiles(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, abs=0.004)


def test_an_interval_of_means_takes_items_as_units() -> None:
    values = np.array([1.0, 1.0, 1.0, 3.0, 3.0, 3.0])
    middle, low, high = mean_interval(values, np.array([0, 0, 0, 1, 1, 1]))
    assert middle == 2 and high - low == pytest.approx(2 * 12.706, abs=0.01)
    assert mean_interval(values, np.zeros(6, int)) == (2, -np.inf, np.inf)


def test_arms_are_compared_by_their_intervals() -> None:
    good = [score(10, item=str(number)) for number in range(30)]
    bad = [score(2, item=str(number), arm="block PCA") for number in range(30)]
    assert study.compare_arms([*good, *bad], "encoder", "block PCA") == {"ARC grids": "better"}
    assert study.compare_arms([*good, *bad], "block PCA", "encoder") == {"ARC grids": "worse"}


def test_the_ratios_are_to_capsules_bytes_and_pixels() -> None:
    (ratio,) = published.ratios([score(10, asked=600)])
    assert ratio.per_capsule == 50 and ratio.of_bytes == pytest.approx(8 / 12288)
    assert ratio.of_pixels == pytest.approx(150528 / 12288)


# -- meaning ----------------------------------------------------------------------------------------------------------


def test_neighbour_and_probe_find_a_label_that_is_there_and_none_that_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    groups = np.arange(120) // 2
    directions = rng.standard_normal((3, 50))
    there = (directions[labels] + 0.3 * rng.standard_normal((120, 50))).astype(np.float32)
    absent = rng.standard_normal((120, 50)).astype(np.float32)
    for read in (meaning.nearest, meaning.ridge):
        assert (read(there, labels, groups) == labels).mean() > 0.95
        assert (read(absent, labels, groups) == labels).mean() < 0.5


def test_a_neighbour_is_never_of_the_same_item() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [-1, 0], [-1, 0.5]], np.float32)
    labels, groups = np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])
    assert meaning.nearest(vectors, labels, groups).tolist() == [1, 1, 0, 0]
    assert meaning.nearest(vectors, labels, np.arange(4)).tolist() == [0, 0, 2, 1]


def test_the_questions_and_what_is_said_about_the_answers(found: tuple[sources.Texts, list[Path]]) -> None:
    asked = meaning.questions(*found, most=3, tasks=6, digits=30)
    names = [question.name for question in asked]
    assert names == ["modality", "programming language", "natural language", "ARC task", "handwritten digit"]
    assert all(len(q.images) == len(q.labels) == len(q.items) and q.images.dtype == np.uint8 for q in asked)
    assert len(asked[3].images) == 36 and asked[2].classes == ("ar", "de", "el", "en", "ru", "zh")
    arms = {"encoder": meaning.thumbnails, "other": lambda images: meaning.thumbnails(images)[:, :2]}
    answers = meaning.answers(asked, arms)
    assert [(a.question, a.arm) for a in answers[:2]] == [("modality", "encoder"), ("modality", "other")]
    assert "of 5 questions" in fidelity_report.meaning_finding(answers, "neighbour")
    assert "handwritten digit" in str(fidelity_report.meaning_table(answers, "probe"))
    assert fidelity_plots.plot_meaning(answers, "probe").axes


def test_pixels_find_the_task_of_as_many_grids_as_the_trial_found() -> None:
    """62.8 % of the first six grids of each of 120 tasks have a nearest neighbour of their task at 56x56 pixels."""
    question = meaning.same_task(120)
    answer = meaning.nearest(meaning.thumbnails(question.images), question.labels, np.arange(720))
    assert (answer == question.labels).mean() == pytest.approx(0.628, abs=0.002)


def test_digits_stand_dark_on_white() -> None:
    question = meaning.handwritten(10)
    assert question.labels.tolist() == list(range(10)) and question.images[:, 0, 0].min() > 200
    assert question.images[0, :, 80:140].min() < 60


def test_a_page_of_text_is_one_that_the_renderer_draws() -> None:
    page = sources.natural_page(TextRenderer(), "line\n" * 300, np.random.default_rng(0))
    assert page.cells.shape == (16, 32)


@pytest.mark.slow
def test_the_notebook_runs_from_texts_and_photographs_to_its_record(tmp_path: Path) -> None:
    texts, photographs = write_sources(tmp_path)
    sizes = {
        "train_images": 2,
        "test_images": 2,
        "steps": 2,
        "batch": 4,
        "seeds": 1,
        "documents": 3,
        "tasks": 6,
        "digits": 30,
    }
    given = {"texts": texts, "photographs": photographs, "work": tmp_path / "work", "preset": "tiny", **sizes}
    parameters = [part for key, value in given.items() for part in ("-p", key, str(value))]
    command = [sys.executable, "-m", "papermill", "--cwd", str(ROOT), "--no-progress-bar"]
    source, executed = ROOT / "notebooks" / "studies" / "fidelity.ipynb", tmp_path / "fidelity.ipynb"
    subprocess.run([*command, str(source), str(executed), *parameters], check=True, capture_output=True, timeout=600)
    record = study.StudyRecord.load(tmp_path / "work")
    assert len(record.answers) == 5 * 4 and {s.arm for s in record.scores} >= {arms.PCA, arms.BLANK}
    shown = executed.read_text(encoding="utf-8")
    assert shown.count("image/png") >= 9 and "of 5 questions" in shown
