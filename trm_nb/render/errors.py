"""The one error of rendering."""

from __future__ import annotations


class RejectedError(Exception):
    """An item or a picture that cannot be drawn; the message is the one-sentence reason for the quarantine."""
