"""Where each key lies in the image cache: an SQLite index derived from the shards' receipts.

It keeps a look-up cheap and memory flat for millions of keys. The receipts are the truth: an index that is missing,
damaged or behind is brought up to date from them. A reader that may not write keeps it in memory.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trm_nb.durable import read_receipt
from trm_nb.records import DamagedError, Receipt

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shards (shard INTEGER PRIMARY KEY, rows INTEGER, nbytes INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS slots (key TEXT PRIMARY KEY, shard INTEGER NOT NULL, slot INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS slots_by_shard ON slots (shard);
CREATE TABLE IF NOT EXISTS failed (key TEXT PRIMARY KEY, shard INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
"""


class ImageIndex:
    """The index over the receipts in a folder. Safe to use from several threads of one process."""

    def __init__(self, receipts: Path) -> None:
        self._receipts = receipts
        self._lock = threading.RLock()
        self._db = self._open(receipts / "index.sqlite")
        self.unreadable: dict[int, str] = {}  # receipts that are damaged: their pictures count as missing
        self.sync()

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return _connect(path)
        except (OSError, sqlite3.OperationalError):  # a read-only copy: a reader needs no file
            return _connect(":memory:")
        except sqlite3.DatabaseError:  # damaged, and derived: make it again
            path.unlink()
            return _connect(path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def _all(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def sync(self) -> None:
        """Agree with the receipts on disk; costs a listing of their folder when nothing changed."""
        on_disk = {int(path.stem): path for path in self._receipts.glob("[0-9]*.json")}
        known = {n for (n,) in self._all("SELECT shard FROM shards")}
        for shard in sorted(known - on_disk.keys()):
            with self._transaction() as db:
                for table in ("slots", "failed", "shards"):
                    db.execute(f"DELETE FROM {table} WHERE shard = ?", (shard,))
        self.unreadable = {}
        for shard in sorted(on_disk.keys() - known):
            try:
                self.add(read_receipt(on_disk[shard]))
            except DamagedError as error:
                self.unreadable[shard] = str(error)

    def add(self, receipt: Receipt) -> None:
        """Index one shard's receipt."""
        number = receipt.number
        with self._transaction() as db:
            slots = [(key, number, slot) for slot, key in enumerate(receipt.keys) if key]
            db.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?)", slots)
            failed = [(key, number, reason) for key, reason in receipt.failed.items()]
            db.executemany("INSERT OR REPLACE INTO failed VALUES (?, ?, ?)", failed)
            values = (number, receipt.rows, receipt.nbytes, receipt.sha256)
            db.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)", values)

    def slot(self, key: str) -> tuple[int, int] | None:
        """(shard, slot) of a key; None where there is no picture."""
        found = self._all("SELECT shard, slot FROM slots WHERE key = ?", key)
        return (int(found[0][0]), int(found[0][1])) if found else None

    def failure(self, key: str) -> str | None:
        """Why the picture of this key could not be made; None where it was made or never tried."""
        found = self._all("SELECT reason FROM failed WHERE key = ?", key)
        return found[0][0] if found else None

    def shards(self) -> dict[int, tuple[int, str]]:
        """The indexed shards in order: number -> (nbytes, sha256)."""
        return {
            n: (nbytes, sha256)
            for n, nbytes, sha256 in self._all("SELECT shard, nbytes, sha256 FROM shards ORDER BY 1")
        }

    def keys_in(self, shard: int) -> list[str]:
        """The keys of one shard, those that failed in it included."""
        query = "SELECT key FROM slots WHERE shard = ?1 UNION ALL SELECT key FROM failed WHERE shard = ?1"
        return [key for (key,) in self._all(query, shard)]

    def counts(self) -> tuple[int, int]:
        """(pictures, failures)."""
        found = self._all("SELECT (SELECT count(*) FROM slots), (SELECT count(*) FROM failed)")
        return int(found[0][0]), int(found[0][1])


def _connect(path: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30.0, check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA journal_mode=DELETE")
    db.execute("PRAGMA synchronous=NORMAL")  # derived data: the receipts are what must last
    db.executescript(_SCHEMA)
    return db
