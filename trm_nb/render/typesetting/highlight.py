"""Source code in colour: which characters are keywords, names, strings, comments and numbers.

Off by default: lexing takes about 1.2 us a character, ten times what rendering takes. The colours are dark on a light
background and light on a dark one; a page is read back from its pixels in any of them. Texts that no person writes stay
plain: first by limits on the text, which hold everywhere, and past those by lexing.py's limit on processor time.
"""

from __future__ import annotations

import logging
import re

import numpy as np

from trm_nb.errors import NOT_HIGHLIGHTED
from trm_nb.render.typesetting.lexing import LexingError, classes_of, suffix_tells
from trm_nb.render.typesetting.tiles import Colour

_ON_LIGHT: tuple[Colour, ...] = ((0, 40, 190), (165, 25, 25), (0, 105, 45), (150, 75, 0), (110, 0, 150))
_ON_DARK: tuple[Colour, ...] = ((125, 170, 255), (255, 150, 140), (120, 205, 140), (240, 180, 90), (210, 150, 250))
MAX_CHARACTERS = 500_000
_UNUSUAL = re.compile(r"[^\n]{1001}|\s{201}")
log = logging.getLogger(__name__)


def foregrounds(foreground: Colour, background: Colour) -> tuple[Colour, ...]:
    """The plain foreground, then that of each class."""
    return (foreground, *(_ON_LIGHT if sum(background) > 3 * 127 else _ON_DARK))


def foreground_of_characters(text: str, name: str) -> tuple[np.ndarray, str]:
    """The colour of each character, and a note where the text stays plain although its language is known.

    Args:
        text: a normalised text.
        name: its file's name. The suffix decides the language, and one that Pygments does not know leaves the text
            plain. Without a name, or for one without a suffix, the language is guessed from the text's beginning.

    Returns:
        uint8 (characters), which of `foregrounds` each is rendered in; and the note, "" for none.
    """
    plain = np.zeros(len(text), np.uint8)
    unusual = _unusual(text)
    if unusual:
        return plain, NOT_HIGHLIGHTED + unusual if suffix_tells(name) and _has_lexer(name) else ""
    try:
        return np.frombuffer(classes_of(text, name), np.uint8), ""
    except LexingError as error:
        log.warning("%s: %s%s", name or "a text without a name", NOT_HIGHLIGHTED, error)
        return plain, NOT_HIGHLIGHTED + str(error)


def _unusual(text: str) -> str:
    """What makes a text take some lexers by the square of a line's length or of a run of blanks; "" for nothing."""
    if len(text) > MAX_CHARACTERS:
        return f"it has more than {MAX_CHARACTERS:,} characters"
    found = _UNUSUAL.search(text)
    if found is None:
        return ""
    return f"it has a {'run of more than 200 blanks' if found[0].isspace() else 'line of more than 1,000 characters'}"


def _has_lexer(name: str) -> bool:
    from pygments.lexers import TextLexer, find_lexer_class_for_filename

    return find_lexer_class_for_filename(name) not in (None, TextLexer)
