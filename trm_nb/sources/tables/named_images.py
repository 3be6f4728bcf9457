"""Which image files the tables of the sources name: they belong to their rows, so the walk passes them by.

A table may come after its images in the walk's order, so the tables' image columns are read once before the first image
is. The names are kept in a temporary SQLite database, on disk where they are many. Cost: one more listing of the
sources, one more pass over the tables with an image column, and a few microseconds for each name and each image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

from trm_nb.config import MultimodalDatasetConfig
from trm_nb.sources.byte_streams import RefusedError
from trm_nb.sources.files import left_out, list_source_files
from trm_nb.sources.tables.columns import Columns, find_columns
from trm_nb.sources.tables.lines import Row
from trm_nb.sources.tables.paths import path_below
from trm_nb.storage.sqlite import Database


class NamedImages:
    """The paths that tables name; `path in images` tells whether the file there is one of them.

    A file is recognised in whatever way folders' links lead to it. A link to a file is another file, but what a link
    that a table names leads to is named too.
    """

    def __init__(self, config: MultimodalDatasetConfig) -> None:
        self.config = config
        self._real_folder = lru_cache(1000)(os.path.realpath)

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, Path):
            return False
        return self._paths.value("SELECT 1 FROM paths WHERE path = ?", (self._located(path),)) is not None

    @cached_property
    def _paths(self) -> Database:
        paths = Database("", "CREATE TABLE paths (path BLOB PRIMARY KEY) WITHOUT ROWID;", lasting=False)
        if left_out("image", self.config) is not None:
            return paths
        with paths.transaction() as db:
            for file in list_source_files(self.config.source_paths):
                if file.refusal is not None or file.generated is not None:
                    continue
                for path in _image_paths(file.path, self.config):
                    places = [self._located(path)]
                    if path.is_symlink():
                        places.append(os.fsencode(os.path.realpath(path)))
                    db.executemany("INSERT OR IGNORE INTO paths VALUES (?)", [(place,) for place in places])
        return paths

    def _located(self, path: Path) -> bytes:
        """The path without links of folders, whatever the bytes of the names in it."""
        folder, name = os.path.split(path)
        return os.fsencode(self._real_folder(folder)) + b"/" + os.fsencode(name)


def _image_paths(path: Path, config: MultimodalDatasetConfig) -> Iterator[Path]:
    """The files that a table's image column names and that exist, a row at a time; none for a file that is no table.

    Where the table cannot be used or its rest cannot be read, they end.
    """
    try:
        table, columns = find_columns(path, config) or (None, Columns())
        if table is None or columns.image is None:
            return
        column, kind = columns.image, table.types[columns.image]
        if "binary" in kind and not kind.startswith("struct"):
            return
        for row in table.rows([f"{column}.path" if kind.startswith("struct") else column]):
            value = row.values.get(column) if isinstance(row, Row) else None
            name = value.get("path") if isinstance(value, dict) else value
            found = path_below(name, path.parent) if isinstance(name, str) else None
            if found is not None and os.path.lexists(found):
                yield found
    except RefusedError:
        return
