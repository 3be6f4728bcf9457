"""An SQLite file with short transactions, and its errors in one sentence.

Rollback journal, not write-ahead logging, which does not work on network file systems. One writing process, any number
of readers; both wait for each other for at most BUSY_SECONDS. Safe to use from several threads of one process.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trm_nb.errors import DamagedError, NotWritableError, UserError

BUSY_SECONDS = 30.0


class Database:
    """The database at `path`, with the tables of `schema` (made where there are none).

    `lasting` waits for the disk at every commit. A file that cannot be written can be read. Raises UserError for a full
    disk, NotWritableError for a write where none is possible, DamagedError for a file that is no database.
    """

    def __init__(self, path: Path | str, schema: str, *, lasting: bool = True) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._copy: TemporaryDirectory[str] | None = None
        with self._as_user_errors():
            try:
                self._db = _connect(path, schema, lasting)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                    raise
                # a kill left half a transaction where nothing can be written: it is undone in a copy
                self._copy = TemporaryDirectory(prefix="trm-nb-")
                for name in (str(path), f"{path}-journal"):
                    shutil.copyfile(name, Path(self._copy.name) / Path(name).name)  # and not its mode
                self._db = _connect(Path(self._copy.name) / Path(path).name, schema, lasting)
                self._db.execute("PRAGMA query_only=ON")  # nothing that is written here would last

    def close(self) -> None:
        """Close the file; the database cannot be used afterwards."""
        with self._lock:
            self._db.close()
            if self._copy:
                self._copy.cleanup()

    def trouble(self) -> str | None:
        """One sentence when the file is damaged; reads all of it. It cannot tell values that were altered."""
        try:
            found = self.value("PRAGMA quick_check(1)")
        except DamagedError as error:
            return str(error)
        return None if found == "ok" else f"{self.path}: damaged ({' '.join(str(found).split())})"

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, kept whole or not at all; nested calls join the outer."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            with self._as_user_errors():
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All queries inside see the same moment."""
        with self._lock, self._as_user_errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def query(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows that a query finds."""
        with self._lock, self._as_user_errors():
            return self._db.execute(query, values).fetchall()

    def value(self, query: str, values: Sequence[Any] = ()) -> Any:
        """The first value that a query finds, None where it finds nothing."""
        rows = self.query(query, values)
        return rows[0][0] if rows else None

    @contextmanager
    def _as_user_errors(self) -> Iterator[None]:
        """SQLite's errors that the user can correct, as one sentence; others pass."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                advice = "what was written so far is whole: make room and run again, it continues"
            elif "locked" in text:
                advice = f"another process kept it for over {BUSY_SECONDS:.0f} s; run again, it continues"
            elif "readonly" in text or "unable to open" in text:
                raise NotWritableError(f"{self.path}: {text}; choose a folder that can be written") from None
            elif "not a database" in text or "malformed" in text:
                raise DamagedError(f"{self.path}: damaged ({text})") from None
            else:
                raise
            raise UserError(f"{self.path}: {text}; {advice}") from None


def _connect(path: Path | str, schema: str, lasting: bool) -> sqlite3.Connection:
    """Open a database, and make its tables where there are none."""
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.executescript(f"BEGIN EXCLUSIVE; {schema} COMMIT;")
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
