"""Steer payloads made up for tests: a pair whose answer changed, one that grows, a sweep, edits small and far too large.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

import difflib
import random
from typing import Any

PLAIN = [" a", " dog", " and", " a", " pizza", " on", " a", " blue", " background", ".", "</s>"]
STEERED = [" a", " cat", " and", " a", " pizza", " on", " a", " background", ".", "</s>"]
SETTINGS = {"max_new_tokens": 32, "temperature": 0, "seed": 0}
VALUES = [-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5]


def text_of(tokens: list[str]) -> str:
    return "".join(token for token in tokens if token != "</s>").strip()


def diff(plain: list[str], steered: list[str]) -> list[dict[str, str]]:
    """Token by token, without the end and the space before the first word."""
    sides = [[token.lstrip() if i == 0 else token for i, token in enumerate(tokens) if token != "</s>"] for tokens in (plain, steered)]
    codes = difflib.SequenceMatcher(a=sides[0], b=sides[1], autojunk=False).get_opcodes()
    return [{"op": op, "plain": "".join(sides[0][a:b]), "steered": "".join(sides[1][c:d])} for op, a, b, c, d in codes]


def edit(relative: float = 0.24, **fields: Any) -> dict[str, Any]:
    made = {
        "label": "dog",
        "feature": 1428,
        "sae": "emoji-llava-sae",
        "layer": 6,
        "unit": "strength",
        "value": -0.25,
        "where": "image tokens",
        "fired": 64,
        "absolute": 37.1 * relative,
        "relative": relative,
    }
    return made | fields


def word(name: str, plain: list[float], steered: list[float]) -> dict[str, Any]:
    return {"word": name, "plain": plain, "steered": steered}


def running(plain: str, steered: str, /, **fields: Any) -> dict[str, Any]:
    made = {
        "schema": "llava-microscope/steer-view/1",
        "run": None,
        "state": "running",
        "model": "emoji-llava",
        "prompt": "Describe the image.",
        "settings": SETTINGS,
        "notes": [],
        "plain": {"text": plain, "finished": None},
        "steered": {"text": steered, "finished": None},
        **dict.fromkeys(("diff", "tokens", "kl", "words", "edits", "sweep")),
    }
    return made | fields


def payload(plain: list[str] = PLAIN, steered: list[str] = STEERED, /, **fields: Any) -> dict[str, Any]:
    """A finished pair; `fields` replace fields at the end."""
    rng = random.Random(len(plain))
    n = len(plain)
    kl = [0.002 * rng.random() for _ in range(n)]
    kl[1 % n] = 2.75
    kl[(n - 2) % n] = 0.4
    dog = [10 ** -rng.uniform(4, 9) for _ in range(n)]
    dog[1 % n] = 0.998
    cat = [10 ** -rng.uniform(4, 9) for _ in range(n)]
    made = {
        "state": "done",
        "plain": {"text": text_of(plain), "finished": plain[-1] == "</s>"},
        "steered": {"text": text_of(steered), "finished": steered[-1] == "</s>"},
        "diff": diff(plain, steered),
        "tokens": list(plain),
        "kl": kl,
        "words": [
            word("dog", dog, [p * (0.003 if i == 1 else 2) for i, p in enumerate(dog)]),
            word("cat", cat, [0.9 if i == 1 else p for i, p in enumerate(cat)]),
        ],
        "edits": [edit()],
    }
    return running("", "") | made | fields


def same(**fields: Any) -> dict[str, Any]:
    """A pair whose answers are equal though the edits changed something."""
    kl = [0.0001 * i for i in range(len(PLAIN))]
    return payload(PLAIN, PLAIN, kl=kl, **fields)


def sweep(
    values: list[float] = VALUES, state: str = "done", current: float | None = -0.25, answer: str = "a dog", **fields: Any
) -> dict[str, Any]:
    """A sweep; `answer` is what every value has said so far where it is not done. `fields` replace fields at the end."""
    points = []
    for value in values:
        tokens = PLAIN if value == 0 else STEERED if value < -0.1 else [*PLAIN[:2], *PLAIN[5:]] if value > 0.2 else PLAIN
        point = {
            "value": value,
            "answer": text_of(tokens),
            "finished": True,
            "diff": diff(PLAIN, tokens),
            "kl": 3 * value**2,
            "relative": abs(value) * 1.04,
        }
        if state != "done":
            point |= {"answer": answer, "finished": None, "diff": None, "kl": None, "relative": None}
        points.append(point)
    made = {
        "state": state,
        "unit": "strength",
        "label": "dog",
        "feature": 1428,
        "sae": "emoji-llava-sae",
        "layer": 6,
        "others": 0,
        "current": current,
        "points": points,
    }
    return made | fields


def long(count: int = 256, seed: int = 3) -> dict[str, Any]:
    """Answers of many tokens that were cut, with eight words and a long sweep."""
    rng = random.Random(seed)
    nouns = [" dog", " pizza", " cat", " whale", " microscope", ",", " and", " the", " umbrella", "\n"]
    plain = [rng.choice(nouns) for _ in range(count)]
    steered = [token if rng.random() < 0.7 else " dog" for token in plain]
    names = ["dog", "pizza", "cat", "whale", "microscope", "and", "the", "umbrella"]
    probabilities = [[10 ** -rng.uniform(0, 9) for _ in range(count)] for _ in names]
    words = [word(name, p, [min(1, 3 * v) for v in p]) for name, p in zip(names, probabilities, strict=True)]
    values = [round(-0.8 + 0.2 * i, 3) for i in range(9)]
    strip = sweep(values, current=-0.2)
    for point in strip["points"]:
        point |= {"answer": text_of(steered), "diff": diff(plain, steered), "finished": False}
    edits = [
        edit(),
        edit(
            0.62,
            label="the sky, clouds and everything else that is blue and far away",
            feature=90210,
            where="patches of rows 2 to 5, columns 1 to 8",
        ),
        edit(1.7, label="", feature=7, unit="target", value=40.0),
    ]
    settings = {"max_new_tokens": count, "temperature": 0.7, "seed": 12}
    return payload(plain, steered, words=words, settings=settings, sweep=strip, edits=edits, kl=[abs(rng.gauss(0, 0.8)) for _ in plain])
