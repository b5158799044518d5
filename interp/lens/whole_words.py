"""Whole words among the tokens of a text: a word of several pieces is one word, which its last piece stands for."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from .directions import is_word

_LONGEST = 30  # letters
_CLITIC = re.compile("['\u2019](?!s$).*")


class Span(NamedTuple):
    """The tokens of a word, both ends included."""

    first: int
    last: int
    text: str


def whole_words(pieces: Sequence[str]) -> list[Span]:
    """The words of a text given as the texts of its tokens, leading spaces included: letters only, more than one if they are ASCII.

    Scripts without letter case, as Chinese, also have no spaces between words; there each token is a word.
    """
    out: list[Span] = []
    start = 0
    for i, piece in enumerate(pieces):
        if i and not (piece[:1].isalpha() and pieces[i - 1][-1:].isalpha() and not _caseless(piece) and not _caseless(pieces[i - 1])):
            start = i
        whole = i + 1 == len(pieces) or not pieces[i + 1][:1].isalpha() or _caseless(pieces[i + 1]) or _caseless(piece)
        word = "".join(pieces[start : i + 1])
        cut = i + 1 < len(pieces) and _CLITIC.fullmatch(pieces[i + 1]) is not None  # "don" of "don't" is no word, "dog" of "dog's" is
        if whole and not cut and is_word(word) and len(word.strip()) <= _LONGEST:
            out.append(Span(start, i, word.strip()))
    return out


def _caseless(piece: str) -> bool:
    return any(unicodedata.category(letter) == "Lo" for letter in piece)
