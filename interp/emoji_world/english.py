"""What `smol-llava` is taught to say: everyday nouns, and questions and answers in plain English.

Its decoder is a language model that knew these words before it saw a picture, so nothing here is a vocabulary: any other question is legal,
and `KINDS` says which of them (is there an animal?) it was never trained on.
"""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from . import words
from .words import with_article

_ROWS = tuple(csv.DictReader((Path(__file__).parent / "english_nouns.tsv").open(encoding="utf-8"), delimiter="\t"))
NOUNS: tuple[str, ...] = tuple(row["noun"] for row in _ROWS)
"""The nouns; the first 120 are those of emoji-llava, two of them spelt as English does."""
ICONS: tuple[str, ...] = tuple(row["icon_names"] for row in _ROWS)
"""Comma-separated icon names of each noun; the first that a set holds is drawn."""
KINDS: dict[str, frozenset[str]] = {row["noun"]: frozenset(row["kinds"].split(",")) - {""} for row in _ROWS}
"""What each noun is a kind of: no training answer holds these words."""

_NUMBERS = ("no objects", "one object", "two objects", "three objects")
_PLURAL = {
    "blueberries",
    "fireworks",
    "fries",
    "glasses",
    "gloves",
    "grapes",
    "headphones",
    "jeans",
    "pancakes",
    "peanuts",
    "scissors",
    "shorts",
    "socks",
}
_MASS = {
    "bacon",
    "broccoli",
    "butter",
    "champagne",
    "chocolate",
    "corn",
    "garlic",
    "honey",
    "lightning",
    "milk",
    "soap",
    "spaghetti",
    "sushi",
    "tea",
    "wine",
    "yarn",
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "describe": (
        "Describe the image.",
        "Describe the picture.",
        "Describe this image.",
        "What is in the image?",
        "What is in this picture?",
        "What do you see?",
        "What is this?",
        "Describe the image in one sentence.",
        "What does the picture show?",
        "describe the image",
    ),
    **{kind: words.QUESTIONS[kind] for kind in ("left", "right", "count", "color")},
    "exists": (
        "Is there {a_noun}?",
        "Is there {a_noun} in the image?",
        "is there {a_noun}",
        "Do you see {a_noun}?",
        "Can you see {a_noun} in the picture?",
    ),
    "where": ("Where is the {noun}?", "Where is the {noun} in the picture?", "On which side is the {noun}?", "where is the {noun}"),
}
"""Kind → wordings; the first is the one the model is measured on."""

SIDES = ("It is alone in the picture", "On the left", "In the middle", "On the right", "There are two of them")
"""Where a thing can be; scenes hold no noun three times."""

PROMPT = "<|im_start|>user\n{image}\n{question}<|im_end|>\n<|im_start|>assistant\n"


def a(noun: str) -> str:
    """`dog` → `a dog`, `socks` → `some socks`, `milk` → `some milk`."""
    if noun in _PLURAL | _MASS:
        return f"some {noun}"
    return "an hourglass" if noun == "hourglass" else with_article(noun)


def describe(nouns: Sequence[str], color: str) -> str:
    """The answer to "Describe the image.": nouns from left to right, then the background."""
    things = [a(noun) for noun in nouns]
    listing = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
    return f"{_capital(listing)} on {with_article(color)} background."


def ask(kind: str, nouns: Sequence[str], color: str, rng: random.Random, wording: int = 0) -> tuple[str, str]:
    """A question of this kind about the scene and its true answer. `exists` asks for a present noun half of the time."""
    question = QUESTIONS[kind][wording]
    if kind == "describe":
        return question, describe(nouns, color)
    if kind in {"left", "right"}:
        return question, f"{_capital(a(nouns[0] if kind == 'left' else nouns[-1]))}."
    if kind == "count":
        return question, f"There {'is' if len(nouns) == 1 else 'are'} {_NUMBERS[len(nouns)]}."
    if kind == "color":
        return question, f"The background is {color}."
    if kind == "where":
        noun = rng.choice(nouns)
        return question.format(noun=noun), f"{side(nouns, noun)}."
    present = rng.random() < 0.5
    noun = rng.choice(nouns if present else NOUNS)
    return question.format(a_noun=a(noun)), f"Yes, there {_is(noun)}." if noun in nouns else f"No, there {_is(noun, negated=True)}."


def side(nouns: Sequence[str], noun: str) -> str:
    """Where this noun of a scene is: one of `SIDES`."""
    if len(nouns) == 1:
        return SIDES[0]
    at = [i for i, other in enumerate(nouns) if other == noun]
    if len(at) > 1:
        return SIDES[4]
    return SIDES[1] if at[0] == 0 else SIDES[3] if at[0] == len(nouns) - 1 else SIDES[2]


def _is(noun: str, *, negated: bool = False) -> str:
    verb = "are" if noun in _PLURAL else "is"
    return f"{verb} no {noun}" if negated else f"{verb} {a(noun)}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
