"""The errors that users see, and why an item is rejected."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from trm_nb.describe import printable


class _OneSentenceError(Exception):
    """An error whose message is all that a user needs, so that a notebook shows no traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show, papermill and nbclient report: the lines of the "traceback"."""
        return [f"\x1b[0;31m{type(self).__name__}\x1b[0m: {printable(self)}"]


class UserError(_OneSentenceError):
    """A mistake the user can correct. Its message is one sentence: what was expected, what came, where, what next.

    The command line prints it and exits with code 2; a notebook shows it as the cell's error, without a traceback.
    """


class DamagedError(_OneSentenceError):
    """Data that was written and is now missing, truncated or altered. The message names the file.

    The command line prints it and exits with code 1; a notebook shows it as the cell's error, without a traceback.
    """


class NothingToLearnError(UserError):
    """A run that has nothing to learn from, or nothing to measure on, for the objective that was asked for."""


class NotWritableError(UserError):
    """A folder or a file that this user cannot write, or that is on a read-only file system."""


def refuse_unknown(where: str, name: object, known: Collection[str]) -> None:
    """Raise UserError, with a suggestion, when a name that is given at `where` is not one of the known ones."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        suggestion = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{where}: expected one of {', '.join(known)}, got {name!r}{suggestion}")


NOT_HIGHLIGHTED = "not highlighted: "  # begins the note of a text that stays plain


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item or an image cannot be rendered.

    `retryable`: the reason is not in the content (a read error, a worker that died). The next run tries again, and
    other samples of the same content are not affected.
    """

    reason: str
    retryable: bool = False


class RejectedError(Exception):
    """An item or an image that cannot be rendered; the message is the one-sentence reason for the quarantine."""

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.failure = Failure(reason, retryable)
