"""Source code in colour: which characters are keywords, names, strings, comments and numbers, by Pygments.

Off by default: lexing takes about 1.2 us a character, ten times what drawing takes. The colours are dark on light
paper and light on dark paper; a page is read back from its pixels in any of them. Some lexers take time by the square
of a line's length or of a run of blanks, so texts that no person writes stay plain: the limits below are on the text
and not on the time, which would make pixels depend on the machine.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np

from trm_nb.render.tiles import Colour

_CLASSES = ("keyword", "string", "comment", "number", "name")
_ON_LIGHT: tuple[Colour, ...] = ((0, 40, 190), (165, 25, 25), (0, 105, 45), (150, 75, 0), (110, 0, 150))
_ON_DARK: tuple[Colour, ...] = ((125, 170, 255), (255, 150, 140), (120, 205, 140), (240, 180, 90), (210, 150, 250))
GUESS_FROM = 4096  # characters from which the language of a text without a name is guessed
MAX_CHARACTERS = 500_000
_UNUSUAL = re.compile(r"[^\n]{1001}|\s{201}")  # a line of more than 1,000 characters, or more than 200 blanks in a row
_ROWS = (".jsonl", ".ndjson", ".csv", ".parquet", ".gz", ".zst")  # a table's name says nothing of the texts in it


def inks(ink: Colour, paper: Colour) -> tuple[Colour, ...]:
    """The plain ink, then that of each class."""
    return (ink, *(_ON_LIGHT if sum(paper) > 3 * 127 else _ON_DARK))


def ink_of_characters(text: str, name: str) -> np.ndarray:
    """uint8 (characters): which of `inks` each is drawn in.

    The file name `name` decides the language; a suffix that Pygments does not know leaves the text plain. Without a
    name, or for one without a suffix, the language is guessed from the text's beginning.
    """
    from pygments.lexers import find_lexer_class_for_filename, guess_lexer
    from pygments.util import ClassNotFound

    found = np.zeros(len(text), np.uint8)
    if len(text) > MAX_CHARACTERS or _UNUSUAL.search(text):
        return found
    suffix = PurePosixPath(name).suffix.lower()
    lexer = None if suffix in _ROWS else find_lexer_class_for_filename(name)
    if lexer is None and (not suffix or suffix in _ROWS):
        try:
            lexer = type(guess_lexer(text[:GUESS_FROM]))
        except ClassNotFound:
            return found
    if lexer is None:
        return found
    for start, kind, value in lexer().get_tokens_unprocessed(text + "\n"):  # some end a token at a line end only
        ink = _ink_of(kind)
        if ink:
            found[start : start + len(value)] = ink
    return found


@lru_cache(maxsize=1024)
def _ink_of(kind: object) -> int:
    from pygments.token import Comment, Keyword, Name, Number, String

    classes = {
        "keyword": (Keyword,),
        "string": (String,),
        "comment": (Comment,),
        "number": (Number, Keyword.Constant),
        "name": (Name.Function, Name.Class, Name.Decorator, Name.Namespace, Name.Tag),
    }
    best = [name for name in _CLASSES if any(kind in parent for parent in classes[name])]
    return _CLASSES.index(best[-1]) + 1 if best else 0
