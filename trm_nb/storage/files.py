"""Files that survive a crash, receipts that say what they hold, the run's lock, and fault points for tests.

A file is written under a temporary name, fsynced, renamed, and its folder fsynced: after a crash it is there whole or
not at all. The cost is one fsync of the data and one of the folder, milliseconds on a local disk. A task stages
its file; only the run's own process commits it, so a worker that outlives a killed run can leave nothing but a
temporary file, which the next start sweeps away.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trm_nb.errors import DamagedError, NotWritableError, UserError
from trm_nb.storage.lock_holder import LOCK, OWNER, note_owner, owner_of

LOCK_SECONDS = 0.5  # how long `locked` tries: `lock_holder` holds a shared lock for less time than that
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG}


def fault_point(name: str) -> None:
    """Die here by SIGKILL when TRM_NB_FAULT is `name` or `name:N` (the N-th passing in this process).

    The tests' way to be killed at an exact point of the write path; costs a dictionary look-up otherwise.
    """
    wanted = os.environ.get("TRM_NB_FAULT")
    if not wanted:
        return
    target, _, count = wanted.partition(":")
    if target == name:
        _passed[name] = _passed.get(name, 0) + 1
        if _passed[name] >= int(count or 1):
            os.kill(os.getpid(), signal.SIGKILL)


_passed: dict[str, int] = {}


@contextmanager
def no_fault_points() -> Iterator[None]:
    """Pass fault points without dying at them or counting: for what is only rehearsed."""
    wanted = os.environ.pop("TRM_NB_FAULT", None)
    try:
        yield
    finally:
        if wanted is not None:
            os.environ["TRM_NB_FAULT"] = wanted


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Turn "no space left" into a UserError and a folder that cannot be written into a NotWritableError."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise UserError(
                f"the disk that holds {folder} is full; what was written so far is whole: "
                "make room and run again, it continues"
            ) from None
        if error.errno in _NOT_OURS:
            why = "it is a file, or lies below one" if error.errno in (errno.ENOTDIR, errno.EEXIST) else error.strerror
            raise NotWritableError(f"{folder} cannot be written: {why}; choose another folder") from None
        raise


@dataclass(frozen=True, slots=True)
class Staged:
    """A whole, fsynced file under a temporary name, waiting to be committed."""

    path: str
    nbytes: int
    sha256: str


def stage(folder: Path, data: bytes | bytearray) -> Staged:
    """Write `data` to a new temporary file in `folder` and fsync it. Raises UserError when the disk is full."""
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}.tmp"
    with writing_into(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return Staged(str(path), len(data), hashlib.sha256(data).hexdigest())


def stage_pieces(folder: Path, sizes: Sequence[int], fill: Callable[[int, memoryview], None]) -> Path:
    """Write a new temporary file in `folder`, piece after piece, and fsync it; `fill(i, buffer)` gives piece `i`.

    Room for all is taken first; two threads fill and write, so memory holds two pieces; each piece begins its way to
    the disk at once. A gigabyte is durable in the time `cp` takes, where an fsync at the end would double it.
    Raises UserError when the disk is full, and what `fill` raises.
    """
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}.tmp"
    offsets, turn, mine = [0, *accumulate(sizes)], threading.Lock(), threading.local()

    def write(piece: int) -> None:
        if not hasattr(mine, "buffer"):  # one a thread: new memory for each piece would cost as much as the writing
            mine.buffer = bytearray(max(sizes))
        data = memoryview(mine.buffer)[: sizes[piece]]
        fill(piece, data)
        with turn:
            file.seek(offsets[piece])
            while data:
                data = data[file.write(data) :]
        if hasattr(os, "posix_fadvise"):  # which starts writing to the disk, and does not wait for it
            os.posix_fadvise(file.fileno(), offsets[piece], sizes[piece], os.POSIX_FADV_DONTNEED)

    with writing_into(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb", buffering=0) as file, ThreadPoolExecutor(2) as threads:
                _take_room(file.fileno(), offsets[-1])
                for written in [threads.submit(write, piece) for piece in range(len(sizes))]:
                    written.result()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def _take_room(handle: int, nbytes: int) -> None:
    """Have the file system find room; one that has no such call is asked by writing."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, nbytes)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise


def publish(written: Path, path: Path) -> None:
    """Give a file that a library wrote under a temporary name in the same folder its own name, durably."""
    with written.open("rb+") as file:
        os.fsync(file.fileno())
    written.replace(path)
    fsync_folder(path.parent)


def commit(staged: Staged, path: Path) -> None:
    """Give a staged file its name. The folder it moves into, and any folder made for it, is fsynced."""
    made = [folder for folder in path.parents if not folder.exists()]
    with writing_into(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(staged.path).replace(path)
        for folder in {path.parent, *(folder.parent for folder in made)}:
            fsync_folder(folder)


def write_file(path: Path, data: bytes) -> None:
    """Write a file durably: temporary name in the same folder, write, fsync, rename, fsync of the folder."""
    commit(stage(path.parent, data), path)


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut (not needed, and not possible, on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> int:
    """Remove temporary files that a killed run left in `folder`; returns how many."""
    leftovers = sorted(folder.glob("*.tmp")) if folder.is_dir() else []
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def trouble_with(path: Path, nbytes: int, sha256: str, deep: bool) -> str | None:
    """One sentence when a file is missing, of another size or, `deep`, of other bytes than were written; else None."""
    if not path.is_file():
        return f"{path}: missing"
    size = path.stat().st_size
    if size != nbytes:
        return f"{path}: {size} bytes, expected {nbytes}"
    if deep and sha256_of(path) != sha256:
        return f"{path}: its bytes are not those that were written (sha256)"
    return None


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON durably, with a checksum of its own in the field `check`."""
    write_file(path, json.dumps({**values, "check": _check(values)}, ensure_ascii=False).encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; raises DamagedError when a bit of it was altered."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        check = values.pop("check")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"{path}: not what was written ({error})") from None
    if check != _check(values):
        raise DamagedError(f"{path}: not what was written (its checksum differs)")
    return values


def _check(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def locked(folder: Path, purpose: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a folder's writing lock; raises UserError that names the holder when another process keeps it so long.

    The lock is the operating system's, so it is gone with its process, however that ended.
    """
    lock = FileLock(folder / LOCK, timeout=seconds)
    try:
        with writing_into(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            note_owner(folder, purpose)
    except Timeout:
        holder = owner_of(folder)[0] or "another process"
        raise UserError(
            f"{folder} is being written by {holder}; wait for it, stop it, or choose another output folder"
        ) from None
    try:
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()
