"""A program of its own: rows of a Parquet file, from standard input, as lines of JSON.

Nested columns are read here and not in the process that plans: 600 bytes of Parquet can hold one list of a hundred
million numbers, Arrow sets no limit on what it allocates for one, and this process has one (where the system lets it).
Usage: `python parquet_as_json.py LIMIT_MIB COLUMN... < FILE`. A line is [row number, {column: value}], or
[row number, "why it cannot be read"]; the last one is null. It imports nothing of the package.
"""

from __future__ import annotations

import json
import sys
from typing import Any

ROWS = 16  # of a batch


def main(limit_mib: int, columns: list[str]) -> None:
    """Write all rows; raises what Arrow raises for a file that cannot be read."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limit_mib * 2**20, limit_mib * 2**20))
    except (ImportError, OSError, ValueError):  # no such limit on Windows
        pass
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, number = pq.ParquetFile(sys.stdin.buffer, buffer_size=2**20, pre_buffer=False), 0
    for group in range(table.metadata.num_row_groups):
        end = number + int(table.metadata.row_group(group).num_rows)
        try:
            for batch in table.iter_batches(ROWS, [group], columns, use_threads=False):
                for index in range(batch.num_rows):
                    row = batch.slice(index, 1)
                    _write(number, _values(row) if row.nbytes <= limit_mib * 2**20 // 16 else "a row too large to read")
                    number += 1
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            if number < end:
                first = (str(error).splitlines() or [type(error).__name__])[0][:300]
                _write(number, f"rows {number} to {end - 1} cannot be read: {first}")
        number = end
    print("null")


def _values(row: Any) -> dict[str, Any] | str:
    try:
        return {name: row.column(i)[0].as_py() for i, name in enumerate(row.schema.names)}
    except (ValueError, OverflowError) as error:  # text that is not UTF-8, a date beyond Python's
        return f"a value that cannot be read: {str(error)[:300]}"


def _write(number: int, what: dict[str, Any] | str) -> None:
    try:
        line = json.dumps([number, what])
    except (TypeError, ValueError):  # bytes and dates, which no grid holds
        line = json.dumps([number, "a value that is no text, number or list"])
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
