"""Where each key lies in the image cache: an SQLite index derived from the shards' receipts.

It keeps a look-up cheap and memory flat for millions of keys. The receipts are the truth: an index that is missing,
damaged or behind is brought up to date from them. A reader that may not write keeps it in memory.
A receipt of 0 bytes is that of a cleared shard: its images were rendered once and are gone, its failures still hold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from trm_nb.errors import DamagedError, NotWritableError, UserError
from trm_nb.records import DenoiseResult, Receipt
from trm_nb.storage.receipts import read_receipt
from trm_nb.storage.sqlite import Database

_VERSION = 2
_SCHEMA = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE shards (shard INTEGER PRIMARY KEY, rows INTEGER, nbytes INTEGER, sha256 TEXT);
CREATE TABLE slots (key TEXT PRIMARY KEY, shard INTEGER NOT NULL, slot INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX slots_by_shard ON slots (shard);
CREATE TABLE failed (key TEXT PRIMARY KEY, shard INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE denoised (key TEXT PRIMARY KEY, shard INTEGER NOT NULL, noise REAL NOT NULL, edit TEXT NOT NULL)
    WITHOUT ROWID;
"""
_TABLES = ("slots", "failed", "denoised", "shards")


class ImageIndex:
    """The index over the receipts in a folder. Safe to use from several threads of one process."""

    def __init__(self, receipts: Path) -> None:
        self._receipts = receipts
        self._db = self._open(receipts / "index.sqlite")
        self.unreadable: dict[int, str] = {}  # receipts that are damaged: their images count as missing
        try:
            self.sync()
        except DamagedError:
            self.make_again()
        except NotWritableError:
            self._keep_in_memory()

    @staticmethod
    def _open(path: Path) -> Database:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                database = Database(path, _SCHEMA, lasting=False)  # derived: the receipts are what must last
                if database.value("PRAGMA user_version") == _VERSION:
                    return database
                database.close()
            except DamagedError:
                pass  # derived, so made again, as is one of another version
            path.unlink(missing_ok=True)
            return Database(path, _SCHEMA, lasting=False)
        except (OSError, UserError):  # a read-only copy: a reader needs no file
            return Database(":memory:", _SCHEMA)

    def close(self) -> None:
        """Close the index's file."""
        self._db.close()

    def sync(self) -> None:
        """Agree with the receipts on disk; costs a listing of their folder when nothing changed."""
        known = {n for (n,) in self._db.query("SELECT shard FROM shards")}  # before the listing: shards are being added
        on_disk = {int(path.stem): path for path in self._receipts.glob("[0-9]*.json")}
        for shard in sorted(known - on_disk.keys()):
            with self._db.transaction() as db:
                for table in _TABLES:
                    db.execute(f"DELETE FROM {table} WHERE shard = ?", (shard,))
        self.unreadable = {}
        for shard in sorted(on_disk.keys() - known):
            try:
                self.add(read_receipt(on_disk[shard]))
            except DamagedError as error:
                self.unreadable[shard] = str(error)

    def make_again(self) -> None:
        """Read all receipts once more, as the index's own bytes may have been altered."""
        try:
            with self._db.transaction() as db:
                for table in _TABLES:
                    db.execute(f"DELETE FROM {table}")
                self.sync()
        except DamagedError:
            self._db.close()
            try:
                (self._receipts / "index.sqlite").unlink(missing_ok=True)
            except OSError:
                self._keep_in_memory()
                return
            self._db = self._open(self._receipts / "index.sqlite")
            self.sync()
        except NotWritableError:
            self._keep_in_memory()

    def _keep_in_memory(self) -> None:
        """For a reader of an index that is behind the receipts, or may be damaged, and cannot be written."""
        self._db.close()
        self._db = Database(":memory:", _SCHEMA)
        self.sync()

    def add(self, receipt: Receipt) -> None:
        """Index one shard's receipt."""
        number = receipt.number
        with self._db.transaction() as db:
            slots = [(key, number, slot) for slot, key in enumerate(receipt.keys) if key]
            db.executemany("INSERT OR REPLACE INTO slots VALUES (?, ?, ?)", slots)
            failed = [(key, number, reason) for key, reason in receipt.failed.items()]
            db.executemany("INSERT OR REPLACE INTO failed VALUES (?, ?, ?)", failed)
            denoised = [(key, number, given.noise, given.edit) for key, given in receipt.denoised.items()]
            db.executemany("INSERT OR REPLACE INTO denoised VALUES (?, ?, ?, ?)", denoised)
            values = (number, receipt.rows, receipt.nbytes, receipt.sha256)
            db.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?)", values)

    def slots(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(shard, slot) of each key that has an image."""
        query = (
            "SELECT slots.key, shard, slot FROM json_each(?) AS wanted CROSS JOIN slots ON slots.key = wanted.value"
            " JOIN shards USING (shard) WHERE nbytes > 0"
        )
        return {key: (shard, slot) for key, shard, slot in self._db.query(query, (json.dumps(list(keys)),))}

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys whose image was rendered once, also if it was cleared since."""
        query = "SELECT slots.key FROM json_each(?) AS wanted CROSS JOIN slots ON slots.key = wanted.value"
        return {key for (key,) in self._db.query(query, (json.dumps(list(keys)),))}

    def failure(self, key: str) -> str | None:
        """Why the image of this key could not be made; None where it was made or never tried."""
        found = self._db.query("SELECT reason FROM failed WHERE key = ?", (key,))
        return found[0][0] if found else None

    def denoise_results(self, keys: Sequence[str]) -> dict[str, DenoiseResult]:
        """What the denoiser made of those of the keys that passed through it."""
        query = "SELECT denoised.key, noise, edit FROM json_each(?) AS w CROSS JOIN denoised ON denoised.key = w.value"
        return {
            key: DenoiseResult(noise, edit) for key, noise, edit in self._db.query(query, (json.dumps(list(keys)),))
        }

    def shards(self) -> dict[int, tuple[int, str]]:
        """The indexed shards that hold images, in order: number -> (nbytes, sha256)."""
        query = "SELECT shard, nbytes, sha256 FROM shards WHERE nbytes > 0 ORDER BY 1"
        return {shard: (nbytes, sha256) for shard, nbytes, sha256 in self._db.query(query)}

    def counts(self) -> tuple[int, int, int]:
        """(images, failures, images that were cleared)."""
        here = "SELECT count(*) FROM slots JOIN shards USING (shard) WHERE nbytes"
        found = self._db.query(f"SELECT ({here} > 0), (SELECT count(*) FROM failed), ({here} = 0)")
        return int(found[0][0]), int(found[0][1]), int(found[0][2])
