"""How a feature is named by what the model says about several pictures while the feature is turned up: the words on which its answers agree.

A word counts by the share of the answers that hold it, less the share of the control's answers that do: those to other pictures with nothing turned
up. What the model says about any picture ("a", "background", "the image shows") is so left out without a list. Answers are taken to be in English.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_FUNCTION = re.compile(
    r"an?|the|this|that|these|some|any|not?|its?|their|there|they|of|on|in|at|with|and|or|by|to|for|from|is|are|was|were|be|one|two|three"
)
"""Words that name nothing. They vary with what is named ("an owl", "some jeans"), so the control does not remove them."""


@dataclass(frozen=True)
class Name:
    """What the answers agree on."""

    text: str
    """The words, in the order of the answer that holds most of them and least else; "" if there are none."""
    answer: str
    """That answer; "" if there is none."""
    score: float
    """Share of the answers with the word that most have, less the control's: from 0 to 1."""


def name_of(answers: Sequence[str], control: Sequence[str], least: float = 0.5) -> Name:
    """The name of a feature.

    `answers`: with the feature turned up. `control`: without, to pictures that have nothing to do with it. `least`: the share above the control's
    from which a word counts. The result does not depend on the order of the answers, except for which of two equally good ones is kept.
    """
    shares, usual = _shares(answers), _shares(control)
    agreed = {word: share - usual.get(word, 0.0) for word, share in shares.items()}
    good = {word: score for word, score in agreed.items() if score >= least}
    if not good:
        return Name("", "", 0.0)
    answer = max(answers, key=lambda said: _fit(words(said), good))
    return Name(" ".join(word for word in words(answer) if word in good), answer, max(good.values()))


def words(text: str) -> list[str]:
    """The words of a text that may name something, once each, in lower case, in their order."""
    return [word for word in dict.fromkeys(_WORD.findall(text.casefold())) if not _FUNCTION.fullmatch(word)]


def _shares(answers: Sequence[str]) -> Mapping[str, float]:
    """The share of the answers that hold each word."""
    counts = Counter(word for answer in answers for word in words(answer))
    return {word: count / len(answers) for word, count in counts.items()}


def _fit(said: Sequence[str], good: Mapping[str, float]) -> tuple[float, int]:
    """How well an answer stands for all: the scores of the words that it holds, then how few others it has."""
    return sum(good.get(word, 0.0) for word in said), -len(said)
