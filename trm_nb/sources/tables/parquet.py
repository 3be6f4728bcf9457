"""The rows of Parquet files, one at a time, whatever the file holds.

Only the columns that are asked for are read, a few rows at a time. A row group that cannot be read is one `BadRow` for
all of its rows, and the next one follows. A Parquet file can claim anything: rows without bytes, one text repeated a
million times, gigabytes in a page. So rows, cells and their sum have limits, and as each row of a batch could be the
longest text of its group, a batch has the fewer rows the larger the group is: often one, which costs 10 us a row.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trm_nb.sources.byte_streams import BLOCK_BYTES, MAX_RATIO, UNPACKED_FREELY, RefusedError, open_file
from trm_nb.sources.tables.lines import BadRow, Row

MAX_CELL_BYTES = 64 * 2**20
MAX_EMPTY_ROWS = 10**6  # rows that need no bytes
BATCH_BYTES, BATCH_ROWS = 64 * 2**20, 100


def parquet_columns(path: Path) -> list[tuple[str, str]]:
    """The columns with the types that Arrow gives them; raises RefusedError for a file that cannot be read."""
    with open_file(path) as file:
        schema = _opened(file).schema_arrow
        return [(schema.field(i).name, str(schema.field(i).type)) for i in range(len(schema.names))]


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows, with these columns; raises RefusedError where the rest of the file cannot be read."""
    import pyarrow as pa

    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        table, number, cells = _opened(file), 0, _Cells(size)
        for group in range(table.metadata.num_row_groups):
            # not its `column`, which ends the process (std::terminate) where the statistics are damaged
            metadata = table.metadata.row_group(group)
            end = number + int(metadata.num_rows)
            try:
                batch_rows = _batch_rows(int(metadata.total_byte_size), size)
                for batch in table.iter_batches(batch_rows, [group], list(columns), use_threads=False):
                    for index in range(batch.num_rows):
                        yield cells.row(number, batch, index)
                        number += 1
            except (pa.ArrowException, OSError, ValueError) as error:
                if number < end:
                    yield BadRow(number, f"rows {number} to {end - 1} cannot be read: {_first_line(error)}")
            number = end


def _opened(file: io.BufferedReader) -> Any:
    """A pq.ParquetFile that reads in small pieces; raises RefusedError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file, buffer_size=BLOCK_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RefusedError(f"no Parquet file: {_first_line(error)}") from None
    size = os.fstat(file.fileno()).st_size
    if table.metadata.num_rows > max(MAX_EMPTY_ROWS, MAX_RATIO * size):
        raise RefusedError(f"a decompression bomb: {table.metadata.num_rows} rows in {size} bytes")
    return table


def _batch_rows(group_bytes: int, file_bytes: int) -> int:
    """So many rows that BATCH_BYTES hold them, were each as long as all of the group; raises ValueError for a bomb."""
    if group_bytes > max(UNPACKED_FREELY, MAX_RATIO * file_bytes):
        raise ValueError(f"a decompression bomb: a row group of {group_bytes} bytes in a file of {file_bytes}")
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, group_bytes)))


class _Cells:
    """Arrow's values as Python's, with a limit on each and on all."""

    def __init__(self, file_bytes: int) -> None:
        self._left = max(UNPACKED_FREELY, MAX_RATIO * file_bytes)

    def row(self, number: int, batch: Any, index: int) -> Row | BadRow:
        """One row of a batch; raises RefusedError when all cells so far are a bomb."""
        try:
            values = {name: self._value(batch.column(i)[index]) for i, name in enumerate(batch.schema.names)}
        except (ValueError, OverflowError) as error:  # text that is not UTF-8, a date beyond Python's, a limit
            return BadRow(number, f"a value that cannot be read: {_first_line(error)}")
        if self._left < 0:
            raise RefusedError(
                f"a decompression bomb: it holds more than {MAX_RATIO} times its size, up to row {number}"
            )
        return Row(number, values)

    def _value(self, scalar: Any) -> Any:
        import pyarrow as pa

        if not scalar.is_valid:
            return None
        if isinstance(scalar, pa.StructScalar):
            return {name: self._value(scalar[name]) for name in scalar}
        if isinstance(scalar, pa.DictionaryScalar):  # a column that was written as categories
            scalar = scalar.value
        if hasattr(scalar, "as_buffer"):
            size = len(scalar.as_buffer())
            if size > MAX_CELL_BYTES:
                raise ValueError(f"{size} bytes in one cell, {MAX_CELL_BYTES} are the most")
            self._left -= size
        return scalar.as_py()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
