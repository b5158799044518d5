"""Concepts payloads made up for tests: one on the dog, one on the pizza, one on the background, one without words, and a fine-tune that renamed the dog.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

from typing import Any

from tests.web.feature_payload import payload as feature_payload
from tests.web.lens_payload import b64, data_url, scene, struct_pack, what

SCENE = ("model", "prompt", "answer", "finished", "notes", "image", "seen", "grids", "tokens", "left_out")
WORDS = [["dog", "puppy", "wolf"], ["pizza", "cheese"], ["blue", "sky"], []]
WORDLESS = 3


def example(answer: str = "a dog.", activation: float = 3.0, side: int = 8) -> dict[str, Any]:
    """A picture that is strong in its upper left quarter."""
    values = [activation if i // side < side // 2 and i % side < side // 2 else 0.0 for i in range(side * side)]
    return {
        "picture": {"src": data_url(scene(96, 96)), "width": 96, "height": 96},
        "answer": answer,
        "activation": activation,
        "rows": side,
        "cols": side,
        "map": b64(struct_pack("f", values)),
    }


def codes(base: dict[str, Any], k: int) -> list[float]:
    """Concept k at every row of T: the first three where their thing is drawn, the last nowhere on the picture."""
    kind, side = base["tokens"]["kind"], base["grids"][0]["cols"]
    image = [i for i, letter in enumerate(kind) if letter == "i"]
    out = [0.0] * (len(kind) - 1)
    for at in image:
        r, c = divmod((at - image[0]) % (side * side), side)
        if k < WORDLESS and what((c + 0.5) / side * 96, (r + 0.5) / side * 96) == k:
            out[at] = 2.0 + 0.01 * c
    return out


def payload(count: int = len(WORDS), **fields: Any) -> dict[str, Any]:
    """`fields` replace fields at the end."""
    base = feature_payload(count=1)
    every = [codes(base, k) for k in range(count)]
    made = {name: base[name] for name in SCENE}
    made |= {
        "schema": "llava-microscope/concepts-view/1",
        "run": "r1",
        "dictionary": {
            "name": "made-up",
            "method": "semi-nmf",
            "objective": "the loss",
            "layer": 3,
            "where": "each patch",
            "states": 400,
            "fit": {"learned": 0.1, "zero": 0.03, "here": 0.2},
            "overlap": 0.05,
            "about": "Made up: 90 % pure, 10 % shuffled.",
            "notes": [],
        },
        "unit": "strength",
        "concepts": [
            {
                "concept": k,
                "words": WORDS[k] if k < len(WORDS) else [f"word{k}"],
                "opposite": [],
                "size": 100 - 10 * k,
                "stability": 0.5 if k == WORDLESS else 0.95,
                "feature": None,
                "activation": max(every[k]),
                "places": b64(struct_pack("H", [row for row, value in enumerate(every[k]) if value > 0])),
                "examples": [example() for _ in range(3)] if k != WORDLESS else [],
            }
            for k in range(count)
        ],
        "codes": b64(struct_pack("f", [value for row in every for value in row])),
        "shift": None,
        "look": None,
        "limits": "That a concept was found does not mean that the model uses it.",
    }
    return made | fields


def shift(**fields: Any) -> dict[str, Any]:
    """The dog became an object; the others hardly moved."""

    def moved(k: int, **changes: Any) -> dict[str, Any]:
        made = {
            "concept": k,
            "size": 40,
            "relative": 0.02,
            "consistency": 0.3,
            "recovery": 0.1,
            "cosine": 0.99,
            "words": WORDS[k],
            "after_words": WORDS[k],
            "gained": [],
            "lost": [],
            "answers": [{"before": "a pizza.", "after": "a pizza."}] * 3,
            "after": [example("a pizza.")],
        }
        return made | changes

    dog = moved(
        0,
        relative=0.4,
        consistency=0.9,
        recovery=0.8,
        cosine=0.7,
        after_words=["object"],
        gained=["object"],
        lost=["dog"],
        answers=[{"before": "a dog.", "after": "an object."}, None, None],
        after=[example("an object.")],
    )
    made = {
        "before": "emoji-llava",
        "after": "emoji-llava + places-first",
        "compared": 400,
        "correlation": 0.93,
        "concepts": [dog, moved(1), moved(2), moved(WORDLESS, size=0, relative=0.0, consistency=None, recovery=None, answers=[], after=[])],
    }
    return made | fields


def details(concept: int = 0, **fields: Any) -> dict[str, Any]:
    made = {
        "concept": concept,
        "sae": "emoji-llava-sae",
        "features": [{"feature": 460, "cosine": 0.91, "label": "dog"}, {"feature": 3, "cosine": -0.2, "label": ""}],
    }
    return made | fields


def steered(**fields: Any) -> dict[str, Any]:
    """The dog has become a pizza, and a random step changes nothing."""
    made = {
        "plain": {"text": "a dog and a pizza.", "finished": True},
        "steered": {"text": "a pizza and a pizza.", "finished": True},
        "random": {"text": "a dog and a pizza.", "finished": True},
        "diff": [
            {"op": "equal", "plain": "a", "steered": "a"},
            {"op": "replace", "plain": " dog", "steered": " pizza"},
            {"op": "equal", "plain": " and a pizza.", "steered": " and a pizza."},
        ],
        "random_diff": [{"op": "equal", "plain": "a dog and a pizza.", "steered": "a dog and a pizza."}],
        "fired": 9,
        "relative": 0.8,
    }
    return made | fields
