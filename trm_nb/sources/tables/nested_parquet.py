"""The rows of Parquet files with nested columns, read by a process of their own whose memory has a limit.

Cost: half a second for the process, then some 10 MB/s. Why another process: see `parquet_as_json.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

from trm_nb.sources.arc import tasks as arc_tasks
from trm_nb.sources.byte_streams import RefusedError, lines, open_file
from trm_nb.sources.tables import parquet_as_json
from trm_nb.sources.tables.lines import MAX_LINE_BYTES, MAX_VALUES, BadRow, Row

MEMORY_MIB = 512
# so that neither library reserves memory that it does not use
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}


def nested_rows(path: Path, columns: Sequence[str]) -> Generator[Row | BadRow, None, None]:
    """The rows, with these columns; raises RefusedError where the rest of the file cannot be read."""
    command = [sys.executable, "-P", str(parquet_as_json.__file__), str(MEMORY_MIB), *columns]
    environment = {**os.environ, **_ENVIRONMENT}
    with open_file(path) as file:
        try:
            child = subprocess.Popen(
                command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=2**20
            )
        except (OSError, ValueError) as error:
            raise RefusedError(f"its rows cannot be read: {error}") from None
        assert child.stdout is not None
        try:
            number = -1
            for line in lines(child.stdout, MAX_LINE_BYTES):  # type: ignore[arg-type]
                if line == b"null\n":
                    return
                row = _row(line, number + 1)
                number = row.number
                yield row
            raise RefusedError(f"damaged: its rows cannot be read from row {number + 1} on")
        finally:
            child.kill()
            child.stdout.close()
            child.wait()


def _row(line: bytes | None, number: int) -> Row | BadRow:
    if line is None:
        return BadRow(number, f"a row of more than {MAX_LINE_BYTES // 2**20} MiB")
    if line.count(b"[") + line.count(b"{") > MAX_VALUES:
        return BadRow(number, f"more than {MAX_VALUES} lists and objects")
    try:
        number, values = arc_tasks.parse(line.decode())
    except arc_tasks.ArcError as error:
        return BadRow(number, str(error))
    return BadRow(number, values) if isinstance(values, str) else Row(number, values)
