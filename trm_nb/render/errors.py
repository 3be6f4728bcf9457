"""The error of rendering, reasons that pass, and how a note begins."""

from __future__ import annotations

NOT_HIGHLIGHTED = "not highlighted: "  # begins the note of a text that stays plain


class RejectedError(Exception):
    """An item or a picture that cannot be drawn; the message is the one-sentence reason for the quarantine."""


class PassingReason(str):
    """A reason that says nothing about the content (a read error, a worker that died): it may be gone the next time,
    and holds for this sample only, not for others of the same content."""

    __slots__ = ()
