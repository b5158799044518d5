"""Attribution payloads made up for tests: features that raise and lower a word, one that reads only the text, a dense one, one without a name.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

import random
from typing import Any

from tests.web.feature_payload import payload as feature_payload
from tests.web.lens_payload import b64, struct_pack, what

SCENE = ("model", "prompt", "answer", "finished", "notes", "image", "seen", "grids", "tokens", "sae", "left_out")
NAMES = ["dog", "pizza", "blue background", "brown fur", "", "upper half", "words of an answer", "round shapes"]
DENSE, TEXT_ONLY, NAMELESS = 5, 6, 4
OTHERS = [" cat", " pizza", " bear", " the"]


def number(index: int) -> int:
    """The number of a feature in its SAE."""
    return 17 + 31 * index


def rows_of(scores: dict[int, float]) -> dict[str, str]:
    rows = sorted(row for row, value in scores.items() if value != 0)
    return {"rows": b64(struct_pack("H", rows)), "values": b64(struct_pack("f", [scores[row] for row in rows]))}


def word(base: dict[str, Any], token: int = 1, baseline: str = "", top: int = 20, count: int = len(NAMES), **fields: Any) -> dict[str, Any]:
    """One word's attribution over the scene of `base`; `fields` replace fields."""
    rng = random.Random(f"{token} {baseline}")
    text, kind = base["tokens"]["text"], base["tokens"]["kind"]
    start = kind.index("a")
    row = start + token - 1
    side = base["grids"][0]["cols"]
    image = [i for i, letter in enumerate(kind) if letter == "i"]

    def drawn(kind_of_thing: int, scale: float) -> dict[int, float]:
        values = {}
        for i, at in enumerate(image):
            r, c = divmod(i % (side * side), side)
            if what((c + 0.5) / side * 96, (r + 0.5) / side * 96) == kind_of_thing:
                values[at] = scale * (0.5 + rng.random())
        return values

    features = []
    for j in range(count):
        if j < 3:
            scores = drawn(j, [0.9, -0.35, -0.02][j] if token == 1 else [-0.3, 0.8, 0.05][j])
        elif j == TEXT_ONLY:
            scores = {at: 0.2 * rng.random() for at in range(row + 1) if kind[at] in "pa"}
        else:
            scores = {at: rng.uniform(-0.15, 0.25) for at in rng.sample(image, max(1, len(image) // 6))}
        score = sum(scores.values())
        features.append(
            {
                "feature": number(j),
                "label": NAMES[j] if j < len(NAMES) else f"texture {j}",
                "source": "detects the noun, AUROC 0.98" if j < 3 else "",
                "dense": "fires on 72 % of the reference tokens" if j == DENSE else "",
                "link": f"https://www.neuronpedia.org/made-up/{number(j)}",
                "max": 4.0 if j != TEXT_ONLY else 0.0,
                "score": score,
                "exact": score * (0.7 + 0.3 * rng.random()),
                **rows_of(scores),
            }
        )
    features.sort(key=lambda made: -abs(made["score"]))
    error = {at: rng.uniform(-0.02, 0.03) for at in range(1, row + 1)}
    every, missed = sum(made["score"] for made in features) + 0.7, sum(error.values())
    made = {
        "spec": {"token": token, "baseline": baseline, "top": top},
        "other": f" {baseline.strip()}" if baseline else OTHERS[0],
        "others": [{"text": other, "probability": 0.08 / 3**i} for i, other in enumerate(OTHERS)],
        "margin": 6.21,
        "features": features,
        "active": count + 113,
        "all_features": {"score": every, "exact": 5.1},
        "all_missed": {"score": missed, "exact": 0.4},
        "total": {"score": every + missed, "exact": 5.6},
        "missed": rows_of(error),
        "pearson": 0.973,
        "overlap": 0.9,
        "note": "Estimated through the layers behind the SAE.",
    }
    assert text[start + token]
    return made | fields


def payload(words: list[dict[str, Any]] | None = None, side: int = 8, grids: int = 1, **fields: Any) -> dict[str, Any]:
    """A payload that explains " dog" against " cat", or the given words; `fields` replace fields at the end."""
    base = feature_payload(side=side, grids=grids, count=1)
    made = {name: base[name] for name in SCENE}
    made |= {
        "schema": "llava-microscope/attribution-view/1",
        "run": "r1",
        "start": base["tokens"]["kind"].index("a"),
        "words": words or [word(base)],
        "limits": "A bar says how far a feature moves the word; not why it is active.",
    }
    return made | fields


def feature_words(base: dict[str, Any], feature: int = number(0), **fields: Any) -> dict[str, Any]:
    """What one feature did for every word: most for " dog", a little against " pizza"."""
    text, kind = base["tokens"]["text"], base["tokens"]["kind"]
    start = kind.index("a")
    image = [i for i, letter in enumerate(kind) if letter == "i"]
    words = []
    for token in range(len(text) - start):
        score = {1: 3.5, 4: -1.2}.get(token, 0.05 * token)
        scores = {image[10 + token]: score / 2, image[20]: score / 2}
        words.append({"token": token, "other": OTHERS[token % len(OTHERS)], "score": score, **rows_of(scores)})
    label = NAMES[(feature - 17) // 31] if (feature - 17) % 31 == 0 and feature < number(len(NAMES)) else "found elsewhere"
    made = {"feature": feature, "label": label, "source": "top words", "dense": "", "link": None, "max": 2.5, "words": words}
    return made | fields


def without(features: list[int] | None = None, **fields: Any) -> dict[str, Any]:
    """The answer without some features: the dog has become a cat."""
    made = {
        "features": features or [number(0)],
        "plain": {"text": "a dog and a pizza.", "finished": True},
        "changed": {"text": "a cat and a pizza.", "finished": True},
        "diff": [
            {"op": "equal", "plain": "a", "steered": "a"},
            {"op": "replace", "plain": " dog", "steered": " cat"},
            {"op": "equal", "plain": " and a pizza.", "steered": " and a pizza."},
        ],
        "before": 0.98,
        "after": 0.0123,
    }
    return made | fields
