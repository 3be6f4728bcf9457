"""A program of its own: PDFium, answering for one document.

PDFium runs here and not in the process that plans or renders: a page tree of 2^40 empty nodes keeps it busy for years
and a stream of a few kilobytes unpacks to a gigabyte. Only a kill ends the one, and only this process has a limit for
the other (where the system lets it). It imports nothing of the package.

Usage: `python pdf_process.py MEMORY_MIB SECONDS`. A request is a line of JSON, the first one {"bytes": n} with the
document's n bytes behind it; then {"size": page}, or {"render": [page, width, height, left, top, full width, full
height]} for a part of the page at a scale. An answer is a line of JSON, {"error": reason} where there is none, for
"render" with the pixels behind it, three bytes each. A request that takes longer than SECONDS ends the process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from typing import Any

import pypdfium2
from pypdfium2 import raw

LARGEST = 1e9  # points
_WHITE = (255, 255, 255, 255)


def main(memory_mib: int, seconds: float) -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints is no answer
    _limit_memory(memory_mib)
    document: Any = None
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request.get("bytes", 0))
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)  # a thread in C: nothing holds it up
        pixels = b""
        try:
            if document is None:
                document = _opened(data)
                answer: Any = len(document)
            elif "size" in request:
                answer = _size(document, request["size"])
            else:
                pixels = _rendered(document, *request["render"])
                answer = len(pixels)
        except (pypdfium2.PdfiumError, MemoryError) as error:
            answer = {"error": str(error) or "there is not enough memory for it"}
        faulthandler.cancel_dump_traceback_later()
        answers.write(json.dumps(answer).encode() + b"\n" + pixels)
        answers.flush()


def _limit_memory(mib: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (mib * 2**20, mib * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # no such limit on Windows
        pass


def _opened(data: bytes) -> Any:
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if b"/Encrypt" in data and error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise pypdfium2.PdfiumError("it is encrypted: save a copy without a password") from None
        raise pypdfium2.PdfiumError("it is damaged, or has no pages") from None
    document.init_forms()  # else what is filled into a form is not rendered
    return document


def _size(document: Any, page: int) -> tuple[float, float] | None:
    """Width and height in points; None for a page that cannot be read."""
    try:
        width, height = document.get_page_size(page)
    except pypdfium2.PdfiumError:
        return None
    return (width, height) if 0 < width < LARGEST and 0 < height < LARGEST else None


def _rendered(document: Any, page: int, width: int, height: int, left: int, top: int, *full: int) -> bytes:
    """The part of a page of `full` width and height in pixels that begins at `left`, `top`: BGR, on white."""
    opened = document[page]
    bitmap = pypdfium2.PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR)
    bitmap.fill_rect(_WHITE, 0, 0, width, height)
    place = (bitmap, opened, -left, -top, *full, 0, raw.FPDF_ANNOT)
    raw.FPDF_RenderPageBitmap(*place)
    if document.formenv:
        raw.FPDF_FFLDraw(document.formenv, *place)
    pixels = bytes(bitmap.buffer)
    bitmap.close()
    opened.close()
    return pixels


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
