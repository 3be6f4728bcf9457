"""Who writes into a folder, or did when it was killed: the lock that `files.locked` holds, looked at from outside.

The lock is asked, not the process: the operating system releases it however a process ends, so a number that another
process, or another container, has by now misleads nobody. Only a machine that shares the folder over the network
has to go by the run's heartbeat. Asking costs three system calls and writes nothing.
"""

from __future__ import annotations

import os
import platform
import sys
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LOCK, OWNER = ".lock", ".lock-owner"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a folder's writing lock, or ended without releasing it.

    `name` is "process N (what for)". `alive` is None when it cannot be known here: the holder is, or was, on another
    machine that shares the folder.
    """

    name: str
    alive: bool | None


def holder_of(folder: Path) -> Holder | None:
    """Who holds a folder's writing lock; None when it is released, or was never taken.

    A run that starts at the same moment is not disturbed: a shared lock is held for the time of one small read,
    and `files.locked` tries for longer than that.
    """
    if sys.platform == "win32":
        return _elsewhere(folder)
    import fcntl

    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:  # no lock, or not ours to read
        return _elsewhere(folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        name, machine = owner_of(folder)  # while nobody can take the lock, so who is named here is gone
        return Holder(name, False if machine == this_machine() else None) if name else None
    except BlockingIOError:
        return Holder(owner_of(folder)[0] or "another process", True)
    except OSError:  # a file system without locks
        return _elsewhere(folder)
    finally:
        os.close(handle)


def _elsewhere(folder: Path) -> Holder | None:
    name, _ = owner_of(folder)
    return Holder(name, None) if name else None


def note_owner(folder: Path, purpose: str) -> None:
    """Write down that this process has the lock."""
    (folder / OWNER).write_text(f"process {os.getpid()} ({purpose})\n{this_machine()}", encoding="utf-8")


def owner_of(folder: Path) -> tuple[str, str]:
    """Who noted last that it has the lock, and on which machine; empty strings once it is released."""
    try:
        name, _, machine = (folder / OWNER).read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return "", ""
    return name, machine


@cache
def this_machine() -> str:
    """The running kernel, which its containers share and a reboot replaces; where it has no name, the computer."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{platform.node()} {uuid.getnode():x}"
