"""The plan in a run's tracker: its rows and files, what is quarantined, and which rows are pending or resolved."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from trm_nb.progress.planned import ROW_COLUMNS, PlannedFile, PlannedRow, row_values
from trm_nb.progress.tables import RunTables
from trm_nb.records import Rejected, class_order

_NOTE = "note:"  # and the item's id: the name of a note in `meta`
_GROUPS = "SELECT split_group, min(label) AS label FROM rows GROUP BY split_group"


class PlanTables(RunTables):
    """The tables of a run with its plan."""

    def add_rows(
        self,
        rows: Sequence[PlannedRow],
        files: Sequence[PlannedFile],
        rejected: Sequence[Rejected],
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Record the next rows of the plan with the files they come from, in one transaction.

        `notes` say, by item, what of those that are used was not done as asked.
        """
        with self.transaction() as db:
            places = ", ".join("?" * len(ROW_COLUMNS))
            db.executemany(f"INSERT INTO rows VALUES ({places})", [row_values(row) for row in rows])
            db.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(f.name, f.size, f.mtime_ns, f.sha256, f.first_row, f.rows, f.items, f.left_out) for f in files],
            )
            self._quarantine(db, rejected, sample=False)
            for item_id, note in (notes or {}).items():
                self.set(f"{_NOTE}{item_id}", note)

    def note(self, item_id: str) -> str:
        """What of an item that is used was not done as asked, "" for nothing."""
        return str(self.get(f"{_NOTE}{item_id}", ""))

    def notes(self, at_most: int = -1) -> dict[str, str]:
        """The notes of all items that have one, or of the first few, ordered by item."""
        found = self.query(
            "SELECT substr(name, ?), value FROM meta WHERE name >= ? AND name < ? ORDER BY name LIMIT ?",
            (len(_NOTE) + 1, _NOTE, _NOTE[:-1] + ";", at_most),
        )
        return {item_id: json.loads(note) for item_id, note in found}

    def forget_what_has_no_row(self) -> None:
        """Forget the files that gave no row, and what is quarantined in them or in a file that was left half planned.

        A plan that is not frozen finds them again, or finds them gone.
        """
        with self.transaction() as db:
            db.execute("DELETE FROM files WHERE rows = 0")
            db.execute(
                "DELETE FROM quarantine WHERE sample = 0 AND path NOT IN (SELECT name FROM files) AND"
                " substr(path, 1, instr(path, '#') - 1) NOT IN (SELECT name FROM files)"
            )

    def rows(self, first: int = 0, end: int | None = None) -> list[PlannedRow]:
        """Rows first .. end-1 of the plan, in order."""
        columns, last = ", ".join(ROW_COLUMNS), 2**62 if end is None else end
        found = self.query(f"SELECT {columns} FROM rows WHERE row >= ? AND row < ? ORDER BY row", (first, last))
        return [PlannedRow(*values) for values in found]

    def file(self, name: str) -> PlannedFile | None:
        """A source file as it was planned; None when the plan does not know it."""
        found = self.query("SELECT * FROM files WHERE name = ?", (name,))
        return PlannedFile(*found[0]) if found else None

    def file_names(self) -> list[str]:
        """The names of the planned source files."""
        return [name for (name,) in self.query("SELECT name FROM files ORDER BY first_row, name")]

    def file_count(self) -> int:
        """How many source files the plan knows."""
        return int(self.value("SELECT count(*) FROM files"))

    def items_quarantined(self) -> int:
        """How many items could not be used at all."""
        return int(self.value("SELECT count(*) FROM quarantine WHERE sample = 0"))

    def quarantined(self) -> int:
        """How many items and samples could not be used."""
        return int(self.value("SELECT count(*) FROM quarantine"))

    def left_out(self) -> int:
        """How many files and items the config excludes."""
        return int(self.value("SELECT coalesce(sum(left_out), 0) FROM files"))

    def pending(self, first: int, end: int) -> int:
        """How many of the rows first .. end-1 still wait for their image."""
        query = "SELECT count(*) FROM rows WHERE row >= ? AND row < ? AND status = 'planned'"
        return int(self.value(query, (first, end)))

    def first_pending(self) -> int | None:
        """The first row that waits for its image; None where none does."""
        found = self.value("SELECT min(row) FROM rows WHERE status = 'planned'")
        return None if found is None else int(found)

    def resolved(self) -> int:
        """How many rows have their image in the cache or are quarantined."""
        waiting = int(self.value("SELECT count(*) FROM rows WHERE status = 'planned'"))  # which has an index
        return self.rows_planned() - waiting

    def resolve(self, keys: Iterable[str], failed: dict[str, str]) -> None:
        """Record that the images of `keys` are cached, and why those of `failed` could not be made."""
        with self.transaction() as db:
            db.executemany("UPDATE rows SET status = 'ok' WHERE key = ? AND status = 'planned'", [(k,) for k in keys])
            batch_size = self.frozen().get("batch_size") or 2**62
            for key, reason in failed.items():
                # a row that is encoded stays as it is: its image is not in the cache, as after clearing it
                encoded = "status = 'planned' AND row / ? IN (SELECT batch FROM batches)"
                db.execute(f"UPDATE rows SET status = 'ok' WHERE key = ? AND {encoded}", (key, batch_size))
                db.execute("UPDATE rows SET status = 'quarantined' WHERE key = ? AND status = 'planned'", (key,))
                query = "SELECT sample_id FROM rows WHERE key = ? AND status = 'quarantined'"
                hit = db.execute(query, (key,)).fetchall()
                self._quarantine(db, [Rejected(sample_id, reason) for (sample_id,) in hit], sample=True)

    def label_names(self) -> list[str]:
        """The different labels; a label's place is the number of its class (`records.class_order`)."""
        return class_order(name for (name,) in self.query("SELECT DISTINCT label FROM rows WHERE label IS NOT NULL"))

    def unique_keys(self) -> int:
        """How many different images the plan holds."""
        return int(self.value("SELECT count(DISTINCT key) FROM rows"))

    def split_counts(self) -> dict[str, int]:
        """Rows by split; none while the plan grows."""
        return dict(self.query("SELECT split, count(*) FROM rows WHERE split != '' GROUP BY split ORDER BY split"))

    def groups_by_label(self) -> list[tuple[str | None, int]]:
        """How many groups (`PlannedRow.split_group`) each label has, ordered by label.

        A group with several labels counts for the first of them by code points, rows without a label for None.
        """
        query = f"SELECT label, count(*) FROM ({_GROUPS}) GROUP BY label ORDER BY label"
        return [(label, count) for label, count in self.query(query)]

    def set_splits(self, quotas: Iterable[tuple[str | None, int, int]]) -> None:
        """Give each row its split, in one transaction.

        Args:
            quotas: of each label, how many groups are for test and for validation. The first ones by name are for test,
                the next ones for validation, the others for training.
        """
        place = "row_number() OVER (PARTITION BY label ORDER BY split_group)"
        split = "CASE WHEN place <= test THEN 'test' WHEN place <= test + val THEN 'val' ELSE 'train' END"
        with self.transaction() as db:
            db.execute("CREATE TEMP TABLE quotas (label TEXT UNIQUE, test INTEGER, val INTEGER)")
            db.executemany("INSERT INTO quotas VALUES (?, ?, ?)", quotas)
            db.execute("CREATE TEMP TABLE splits (split_group TEXT PRIMARY KEY, split TEXT) WITHOUT ROWID")
            db.execute(
                f"INSERT INTO splits SELECT split_group, {split} FROM (SELECT *, {place} AS place FROM ({_GROUPS})) AS"
                " placed JOIN quotas ON quotas.label IS placed.label"
            )
            found = "SELECT split FROM splits WHERE splits.split_group = rows.split_group"
            db.execute(f"UPDATE rows SET split = ({found})")
            db.execute("DROP TABLE splits")
            db.execute("DROP TABLE quotas")

    def modality_counts(self) -> dict[str, int]:
        """Rows by modality."""
        return dict(self.query("SELECT modality, count(*) FROM rows GROUP BY modality ORDER BY modality"))

    def make_pending(self, keys: Iterable[str]) -> None:
        """These images are gone: their rows wait again."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE rows SET status = 'planned' WHERE key = ? AND status = 'ok'", [(key,) for key in keys]
            )

    @staticmethod
    def _quarantine(db: sqlite3.Connection, rejected: Iterable[Rejected], sample: bool) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", [(r.path, r.reason, sample) for r in rejected]
        )

    def rejected(self) -> list[Rejected]:
        """What is quarantined, items and samples, ordered by path."""
        return [Rejected(*values) for values in self.query("SELECT path, reason FROM quarantine ORDER BY path, sample")]
