"""How a run came to be: the command that was given last, and the git commit of the project it was given in.

Noted in the tracker when a command begins. Paths are kept relative to the project, as they are read elsewhere. It costs
two calls of git; where there is no git, or no repository, there is no commit.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trm_nb.describe import minute
from trm_nb.params import project_root
from trm_nb.progress.tracker import TrainingProgressTracker

PROVENANCE = "provenance"  # what the tracker keeps it as
_GIT_SECONDS = 10


def note_command(tracker: TrainingProgressTracker, command: str, params: Path, overrides: Mapping[str, Any]) -> None:
    """Note the command that works on a run from now on, with the commit of the project it is given in.

    Args:
        tracker: of the run.
        command: the name of the command, such as "run".
        params: its params file.
        overrides: config fields that were given with it.
    """
    root = project_root(Path.cwd()) or project_root(params) or Path.cwd()
    given = {name: value for name, value in overrides.items() if value is not None}
    words = ["trm-nb", command, _within(root, params.resolve())]
    for name, value in given.items():
        words += ["-p", f"{name}={_within(root, Path(value)) if isinstance(value, str) and '/' in value else value}"]
    noted = {"command": shlex.join(words), "begun": minute(datetime.now(UTC)), **commit_of(root)}
    tracker.set(PROVENANCE, noted)


def commit_of(folder: Path) -> dict[str, Any]:
    """The commit that a folder is at: {"commit": its hash, "changed": whether tracked files differ from it}, or {}."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=_GIT_SECONDS, check=True, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _within(root: Path, path: Path) -> str:
    """A path relative to the project; of one that lies elsewhere the name alone."""
    if not path.is_absolute():
        return path.as_posix()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
