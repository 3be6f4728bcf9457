"""PDF documents as sources: each page an image, and hostile documents in the quarantine, within time and memory."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import config_for
from PIL import Image

from trm_nb import ImageCache, build
from trm_nb.errors import Failure, RejectedError
from trm_nb.pipeline.verify import verify
from trm_nb.records import Item
from trm_nb.render.image_files.fit import Fit
from trm_nb.render.pdf import MAX_PIXELS, PdfFile, _view
from trm_nb.render.renderer import Renderer, RenderSettings
from trm_nb.sources.files import Skipped
from trm_nb.sources.reader import scan

CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
BLUE = b"0 0 1 rg 0 0 50 50 re f"  # a square in the lower left corner


def pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A document of these objects, numbered from 1; the first is its catalog."""
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    table += b"".join(b"%010d 00000 n \n" % place for place in places)
    ending = b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n"
    return out + table + ending % (len(objects) + 1, trailer, len(out))


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(data), entries, data)


def packed(data: bytes, times: int = 1) -> bytes:
    """A stream of `data`, so many times, compressed."""
    deflate = zlib.compressobj(9)
    return stream(b"".join(deflate.compress(data) for _ in range(times)) + deflate.flush(), b"/Filter/FlateDecode")


def pages_of(count: int, *kids: bytes) -> bytes:
    return b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(kids), count)


def one_page(content: bytes = stream(BLUE), box: bytes = b"0 0 100 200", trailer: bytes = b"") -> bytes:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Contents 4 0 R>>" % box
    return pdf(CATALOG, pages_of(1, b"3 0 R"), page, content, trailer=trailer)


def scanned(count: int, seed: int = 0) -> bytes:
    """Pages of noise of different shapes, as Pillow saves them."""
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 255, (40 + n, 30, 3), np.uint8)) for n in range(count)]
    out = io.BytesIO()
    images[0].save(out, "PDF", save_all=True, append_images=images[1:])
    return out.getvalue()


def nested(leaf: bytes) -> bytes:
    """A page tree of 40 levels, each with the next one twice: 2^40 leaves in 3 KB."""
    levels = (b"<</Type/Pages/Kids[%d 0 R %d 0 R]/Count 1000>>" % (n, n) for n in range(3, 43))
    return pdf(CATALOG, *levels, leaf)


LOCKED = b"/Encrypt<</Filter/Standard/V 1/R 2/Length 40/P -4/O<%s>/U<%s>>>/ID[<00><00>]" % (b"41" * 32, b"42" * 32)
SLOW = b"0 0 m 90 90 l 0 90 l 90 0 l 50 50 50 50 20 10 c B\n"
SCAN = scanned(3)
HOSTILE = {  # name -> a document that is refused when it is planned, and how its reason begins
    "words": (b"%PDF-1.4\nwords alone\n", "a PDF document that cannot be rendered: it is damaged, or has no pages"),
    "magic alone": (b"%PDF-", "a PDF document that cannot be rendered: it is damaged, or has no pages"),
    "truncated": (SCAN[: len(SCAN) // 2], "a PDF document that cannot be rendered: it is damaged, or has no pages"),
    "no pages": (pdf(CATALOG, pages_of(0)), "a PDF document that cannot be rendered: it is damaged, or has no pages"),
    "encrypted": (one_page(trailer=LOCKED), "a PDF document that cannot be rendered: it is encrypted: save a copy"),
    "10,000 pages": (
        pdf(CATALOG, pages_of(10_000, *[b"3 0 R"] * 100), pages_of(100, *[b"4 0 R"] * 100), b"<</Type/Page>>"),
        "expected at most 2,000 pages, got 10,000",
    ),
    "a tree in a circle": (pdf(CATALOG, pages_of(7, b"2 0 R", b"2 0 R")), "damaged: none of its 7 page(s) can be read"),
}


def document(folder: Path, data: bytes) -> Item:
    """An item as the reader makes it."""
    path = folder / "a.pdf"
    path.write_bytes(data)
    return Item("a.pdf", "image", PdfFile(path, hashlib.sha256(data).hexdigest()))


def rendered(folder: Path, data: bytes, **settings: object) -> tuple[np.ndarray, dict[int, str]]:
    renderer = Renderer(RenderSettings(**settings))  # type: ignore[arg-type]
    return renderer.rasterise(renderer.samples(document(folder, data)))


@pytest.mark.parametrize("workers", [0, 2], ids=["in the run's own process", "in worker processes"])
def test_a_folder_with_documents_is_built_and_verified(tmp_path: Path, workers: int) -> None:
    (tmp_path / "docs" / "scans").mkdir(parents=True)
    (tmp_path / "docs" / "scans" / "three.pdf").write_bytes(SCAN)
    (tmp_path / "docs" / "scans" / "no suffix").write_bytes(one_page())
    (tmp_path / "docs" / "scans" / "sixty.txt").write_bytes(scanned(60, seed=1))  # the content decides
    (tmp_path / "docs" / "words.txt").write_text("words")
    for name, (data, _) in HOSTILE.items():
        (tmp_path / "docs" / "scans" / f"{name}.pdf").write_bytes(data)
    report = build(config_for(tmp_path / "docs", tmp_path / "run", workers=workers, batch_size=50))
    assert (report.rows, report.quarantined) == (65, len(HOSTILE))
    assert verify(tmp_path / "run", deep=True) == []
    rows = pq.read_table(tmp_path / "run" / "samples.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    three = [row for row in rows if row["item_id"] == "docs/scans/three.pdf"]
    assert [(row["sample_id"][-1], row["page"], row["pages"]) for row in three] == [
        ("0", 0, 3), ("1", 1, 3), ("2", 2, 3),
    ]  # fmt: skip
    assert {(row["modality"], row["label"]) for row in three} == {("image", "scans")}
    lines = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    given = {Path(line["path"]).stem: line["reason"] for line in lines}
    assert given.keys() == HOSTILE.keys()
    assert not {name: given[name] for name, (_, reason) in HOSTILE.items() if not given[name].startswith(reason)}


def test_a_page_stands_upright_on_white_in_a_gray_square(tmp_path: Path) -> None:
    (image,), failed = rendered(tmp_path, one_page())
    assert not failed
    assert (image[:, :55] == 128).all() and (image[:, -55:] == 128).all()
    assert (image[:160, 58:166] == 255).all() and (image[176:, 118:166] == 255).all()
    assert (image[176:, 58:108] == [0, 0, 255]).all()


SHAPES: dict[str, tuple[Fit, bytes, list[int]]] = {  # how it is fitted, its box, and the mean of its first image
    "crop": ("crop", b"0 0 100 200", [255, 255, 255]),
    "stretch": ("stretch", b"0 0 100 200", [223, 223, 255]),
    "tiles": ("tiles", b"0 0 595 842", [255, 255, 255]),
    "huge": ("letterbox", b"0 0 1000000 1000000", [255, 255, 255]),
    "no proportions": ("stretch", b"0 0 1000000 1", [255, 255, 255]),
    "beyond all numbers": ("letterbox", b"0 0 3e38 3e38", [226, 226, 226]),  # PDFium takes it for US Letter
}


@pytest.mark.parametrize(("fit", "box", "mean"), SHAPES.values(), ids=SHAPES.keys())
def test_pages_are_fitted_as_images_are(tmp_path: Path, fit: Fit, box: bytes, mean: list[int]) -> None:
    images, failed = rendered(tmp_path, one_page(box=box), fit=fit)
    assert not failed and len(images) == (24 if fit == "tiles" else 1)
    assert np.abs(images[0].mean((0, 1)) - mean).max() < 4


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch", "tiles"])
@pytest.mark.parametrize("side", [28, 224, 1792])
def test_no_bitmap_is_larger_than_the_limit(fit: Fit, side: int) -> None:
    for width, height in [(595, 842), (1, 1), (1e-3, 9e8), (9e8, 1e-3), (9e8, 9e8), (1440, 2160), (14_400, 7000)]:
        view = _view(fit, width, height, side)
        assert 0 < view.width * view.height <= MAX_PIXELS
        assert max(view.full) < 2**31 and view.left >= 0 and view.top >= 0


def test_what_is_filled_into_a_form_is_seen(tmp_path: Path) -> None:
    catalog = b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[5 0 R]>>>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]/Contents 4 0 R/Annots[5 0 R]>>"
    field = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V(x)/F 4/Rect[0 0 50 50]/AP<</N 6 0 R>>>>"
    appearance = stream(b"1 0 0 rg 0 0 50 50 re f", b"/Type/XObject/Subtype/Form/BBox[0 0 50 50]")
    images, _ = rendered(tmp_path, pdf(catalog, pages_of(1, b"3 0 R"), page, stream(b""), field, appearance))
    assert (images[0, 120:, :100, 1] < 255).all(), "the form's field is not there"


def test_keys_follow_from_the_bytes_the_page_and_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(data: bytes, **settings: object) -> list[str]:
        renderer = Renderer(RenderSettings(**settings))  # type: ignore[arg-type]
        return [sample.key for sample in renderer.samples(document(tmp_path, data))]

    with closing(ImageCache(tmp_path / "cache")) as cache:
        prints = cache.fingerprints()
        found = [*keys(SCAN), *keys(one_page()), *keys(SCAN, fit="crop"), *keys(SCAN, image_size=112)]
        assert len(set(found)) == len(found) == 10
        assert keys(SCAN) == found[:3] and keys(SCAN, frames="first") == found[:1]
        monkeypatch.setattr("trm_nb.render.pdf._pdfium", lambda: "another version")
        assert not set(keys(SCAN)) & set(found)
        assert ImageCache(tmp_path / "cache").fingerprints() == prints, "runs without documents are bound to it"


def test_a_page_that_cannot_be_read_is_alone_in_the_quarantine(tmp_path: Path) -> None:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
    images, failed = rendered(tmp_path, pdf(CATALOG, pages_of(3, b"3 0 R"), page))
    assert failed == {number: Failure(f"damaged: page {number} cannot be read") for number in (1, 2)}
    assert images[0].all() and not images[1:].any()


def test_a_file_that_changed_after_it_was_planned_is_refused(tmp_path: Path) -> None:
    renderer, item = Renderer(), document(tmp_path, SCAN)
    samples = renderer.samples(item)
    (tmp_path / "a.pdf").write_bytes(one_page())
    assert "changed after it was planned" in renderer.rasterise(samples)[1][0].reason


def test_a_page_tree_without_end_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trm_nb.render.pdf.SECONDS", 1.0)
    with pytest.raises(RejectedError, match="takes longer than 1 s") as caught:
        Renderer().samples(document(tmp_path, nested(pages_of(0))))
    assert caught.value.failure.retryable


EXHAUSTING = {
    "time": (partial(packed, SLOW, 2_000_000), {"SECONDS": 3.0}, "a PDF document that takes longer than 3 s"),
    "memory": (
        partial(packed, bytes(2**20), 600),
        {"MEMORY_MIB": 192},
        "a PDF document at which PDFium crashes or takes too much memory",
    ),
}


@pytest.mark.parametrize(("content", "limits", "reason"), EXHAUSTING.values(), ids=EXHAUSTING.keys())
def test_a_page_that_exhausts_its_process_ends_the_document(
    tmp_path: Path, content: Callable[[], bytes], limits: dict[str, float], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in limits.items():
        monkeypatch.setattr(f"trm_nb.render.pdf.{name}", limit)
    bad = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R>>"
    good = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 6 0 R>>"
    kids: Sequence[bytes] = (b"5 0 R", b"3 0 R", b"3 0 R")
    images, failed = rendered(tmp_path, pdf(CATALOG, pages_of(3, *kids), bad, content(), good, stream(BLUE)))
    assert failed == {number: Failure(reason, retryable=True) for number in (1, 2)}
    assert images[0].any()


def test_without_the_extra_the_reason_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2_raw", None)
    with pytest.raises(RejectedError, match=r"pypdfium2 is not installed: pip install 'trm-nb\[pdf\]', and build into"):
        Renderer().samples(document(tmp_path, SCAN))


def test_documents_are_left_out_as_images_are(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(SCAN)
    (reading,) = scan(config_for(tmp_path / "a.pdf", tmp_path / "run", include_images=False))
    (entry,) = reading.entries
    assert isinstance(entry, Skipped) and "include_images is false" in entry.reason


def test_pdfium_is_never_loaded_into_the_caller(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    document(tmp_path, SCAN)
    code = (
        "import sys; from trm_nb import ImageCache; from trm_nb.records import Item; from pathlib import Path; "
        "from trm_nb.render.pdf import PdfFile; path = Path(sys.argv[1]) / 'a.pdf'; "
        "report = ImageCache(sys.argv[1] + '/cache').populate([Item('a', 'image', PdfFile(path, sys.argv[2]))]); "
        "print(report.misses, [name for name in sys.modules if 'pdfium' in name])"
    )
    done = run_python(code, str(tmp_path), hashlib.sha256(SCAN).hexdigest())
    assert done.stdout == "3 []\n", done.stderr
