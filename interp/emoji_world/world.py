"""The two worlds: which nouns their scenes hold, and how questions about them are asked and answered.

`EMOJI` is the closed vocabulary of `emoji-llava`, `ENGLISH` what `smol-llava` is taught: more nouns, and answers in the English that its
decoder already speaks.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import english, words
from .words import COLORS

Ask = Callable[..., tuple[str, str]]


@dataclass(frozen=True)
class World:
    """Nouns and language of one model."""

    nouns: tuple[str, ...]
    sheets: tuple[str, ...]
    """Endings of the sheets that hold the drawings of its nouns, in this order: "" for `noto.webp`, "-more" for `noto-more.webp`."""
    questions: Mapping[str, tuple[str, ...]]
    """Kind → wordings, the measured one first."""
    ask: Ask
    """(kind, nouns from left to right, colour, rng, wording) → question and true answer."""
    prompt: str
    """With {image} and {question}: what its chat template makes of a question about a picture."""
    reply: str
    """With {answer}: what follows the prompt, up to the end-of-sequence token."""

    @property
    def words(self) -> tuple[str, ...]:
        """What a patch can be: the nouns, then the colours."""
        return self.nouns + tuple(COLORS)

    def named(self, text: str) -> list[str]:
        """The nouns in an answer, in order; the longest where one holds another."""
        return re.findall(rf"\b({self._any_noun})\b", text.lower())

    def describes(self, text: str) -> bool:
        """Whether a text is a well-formed description, true or not."""
        thing = f"(?:a|an|some) (?:{self._any_noun})"
        return bool(re.fullmatch(rf"{thing}(?:, {thing})*(?: and {thing})? on an? (?:{'|'.join(COLORS)}) background\.", text.lower()))

    @functools.cached_property
    def _any_noun(self) -> str:
        return "|".join(sorted(self.nouns, key=len, reverse=True))


EMOJI = World(words.NOUN_WORDS, ("",), words.QUESTIONS, words.ask, words.PROMPT, " {answer}")
ENGLISH = World(english.NOUNS, ("", "-more"), english.QUESTIONS, english.ask, english.PROMPT, "{answer}")
WORLDS = {"emoji-llava": EMOJI, "smol-llava": ENGLISH}
