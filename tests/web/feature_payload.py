"""A feature payload made up for tests: features that stand for what is drawn, for words, for everything and for nothing.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

import base64
import random
from typing import Any

from tests.web.lens_payload import b64, data_url, scene, struct_pack, what

LABELS = ["dog", "pizza", "blue background", "edges of things", "round shapes", "something warm", "upper half of the picture"]
WORDS = [" dog", " puppy", " pizza", " cheese", " blue", " sky", " round", " ball", " warm", " red", " the", "\n"]
DENSE = 5  # index of the feature that fires on nearly everything
TEXT_ONLY = 6  # index of the feature that is active on no patch
SAE_FEATURES = 4096


def tokens(side: int, grids: int = 1, extra_prompt: int = 0) -> tuple[list[str], str, list[int]]:
    """Texts, kinds and the first row of every grid."""
    n = side * side
    text, kind = ["<s>", "USER", ":", " "], "xppp"
    starts = []
    for _ in range(grids):
        starts.append(len(text))
        text, kind = text + ["<image>"] * n, kind + "i" * n
    words = ["\n", "Describe", " the", " image", ".", *[f" w{i}" for i in range(extra_prompt)], " ASSISTANT", ":"]
    text, kind = text + words, kind + "p" * len(words)
    answer = [" a", " dog", " and", " a", " pizza", ".", "</s>"]
    return text + answer, kind + "a" * len(answer), starts


def feature(number: int, activations: dict[int, float], over: list[int], **fields: Any) -> dict[str, Any]:
    """A feature with its figures over the rows `over`; `activations` maps rows of T to values."""
    there = [activations.get(row, 0.0) for row in over]
    rows = sorted(row for row, value in activations.items() if value > 0)
    made = {
        "feature": number,
        "label": "",
        "source": "",
        "mean": sum(there) / len(there),
        "max": max(there),
        "frequency": sum(value > 0 for value in there) / len(there),
        "density": 0.01,
        "dense": "",
        "top": [" dog", " puppy", "Dog"],
        "bottom": [" the", "\n"],
        "link": f"https://www.neuronpedia.org/made-up/{number}",
        "rows": b64(struct_pack("H", rows)),
        "values": b64(struct_pack("f", [activations[row] for row in rows])),
    }
    return made | {"score": made["mean"]} | fields


def payload(
    side: int = 8,
    width: int = 96,
    height: int = 96,
    seen: list[int] | None = None,
    grids: int = 1,
    count: int = 12,
    extra_prompt: int = 0,
    seed: int = 0,
    **fields: Any,
) -> dict[str, Any]:
    """A payload of `count` features; `fields` replace fields at the end."""
    rng = random.Random(seed)
    seen = seen or [0, 0, width, height]
    n = side * side
    text, kind, starts = tokens(side, grids, extra_prompt)
    steps = len(text) - 1
    image = [start + i for start in starts for i in range(n)]
    left_out = [0]
    l0, t0, r0, b0 = seen
    boxes: list[float] = []
    for i in range(n):
        row, col = divmod(i, side)
        w, h = (r0 - l0) / side, (b0 - t0) / side
        boxes += [l0 + col * w, t0 + row * h, l0 + (col + 1) * w, t0 + (row + 1) * h]

    def drawn(kind_of_thing: int) -> dict[int, float]:
        values = {}
        for start in starts:
            for i in range(n):
                at_row, at_col = divmod(i, side)
                if what((at_col + 0.5) / side * 96, (at_row + 0.5) / side * 96) == kind_of_thing:
                    values[start + i] = 1 + 5 * rng.random()
        return values

    features = []
    for j in range(count):
        number = 17 + 31 * j
        if j < 3:
            active = drawn(j)
            active |= {row: 2 + j for row in range(steps) if text[row].strip() == LABELS[j] and row not in image}
            extra = {"label": LABELS[j], "source": f"detects the noun, AUROC 0.9{9 - j}", "density": 0.004 * (j + 1)}
        elif j == DENSE:
            active = {row: 0.5 + rng.random() for row in range(steps)}
            extra = {"label": "", "dense": "fires on 72 % of the reference tokens", "density": 0.72, "link": None}
        elif j == TEXT_ONLY:
            active = {row: 1.5 + rng.random() for row in range(steps) if kind[row] == "a"}
            extra = {"label": "words of an answer", "source": "top words", "density": None}
        else:
            active = {row: 4 * rng.random() for row in rng.sample(image, max(1, len(image) // rng.randint(3, 20)))}
            extra = {
                "label": LABELS[j] if j < len(LABELS) else f"texture {j}" if j % 3 else "",
                "source": "top words" if j % 3 else "",
                "density": rng.random() * 0.2,
            }
            extra |= {"top": rng.sample(WORDS, 6), "bottom": rng.sample(WORDS, 4)}
        features.append(feature(number, active, image, **extra))
    features.sort(key=lambda made: -made["score"])

    made = {
        "schema": "llava-microscope/feature-view/1",
        "run": None,
        "model": "emoji-llava",
        "prompt": "Describe the image.",
        "answer": "a dog and a pizza.",
        "finished": True,
        "notes": [],
        "image": {"src": data_url(scene(width, height)), "width": width, "height": height},
        "seen": seen,
        "grids": [
            {
                "name": f"grid {g}",
                "rows": side,
                "cols": side,
                "boxes": b64(struct_pack("f", boxes)),
                "positions": b64(struct_pack("H", range(start, start + n))),
                "view": {"src": data_url(scene(96, 96)), "width": 96, "height": 96},
            }
            for g, start in enumerate(starts)
        ],
        "tokens": {"text": text, "kind": kind},
        "left_out": left_out,
        "sae": {
            "name": "emoji-llava-sae",
            "layer": 5,
            "features": SAE_FEATURES,
            "notes": ["trained on another model: gemma-2b"],
            "labels": "Names come from nouns that a feature detects, else from the words that it pushes up.",
            "study": None,
        },
        "quality": [
            {"kind": "image", "tokens": len(image), "explained_variance": 0.41, "l0": 88.2, "active_share": 0.031, "trained": {"explained_variance": 0.78, "l0": 42.0}, "verdict": "The features reproduce less than half of what the image tokens hold: read their maps with care."},
            {"kind": "text", "tokens": steps - len(image) - 1, "explained_variance": None, "l0": 40.6, "active_share": 0.00005, "trained": None, "verdict": ""},
        ],
        "where": "image tokens",
        "rank_by": "mean",
        "looked_at": len(image),
        "features": features,
        "active": 181,
        "limits": "A feature is a direction that one dictionary found. Its name is a guess from where it fires.",
    }  # fmt: skip
    return made | fields


class Expected:
    """What a payload says, decoded a second time and independently of the view."""

    def __init__(self, made: dict[str, Any]) -> None:
        self.made = made
        self.steps = len(made["tokens"]["kind"]) - 1
        self.features = {raw["feature"]: raw for raw in made["features"]}
        self.numbers = [raw["feature"] for raw in made["features"]]

    def rows(self, grid: int = 0) -> list[int]:
        """Rows of T of a grid's patches, in reading order."""
        return list(memoryview(base64.b64decode(self.made["grids"][grid]["positions"])).cast("H"))

    def at(self, number: int) -> list[float]:
        """Activation of a feature at every row of T."""
        values = [0.0] * self.steps
        raw = self.features[number]
        rows = memoryview(base64.b64decode(raw["rows"])).cast("H")
        for row, value in zip(rows, memoryview(base64.b64decode(raw["values"])).cast("f"), strict=True):
            values[row] = value
        return values

    def top(self, number: int) -> float:
        """Its highest activation on any patch of the picture."""
        at = self.at(number)
        return max(at[row] for grid in range(len(self.made["grids"])) for row in self.rows(grid))

    def active(self, rows: list[int]) -> list[int]:
        """Features of the payload that are active on any of the rows, by their mean over them."""
        means = {number: sum(self.at(number)[row] for row in rows) for number in self.numbers}
        return sorted((number for number in means if means[number] > 0), key=lambda number: (-means[number], number))

    def number(self, label: str) -> int:
        """The feature with this label."""
        return next(raw["feature"] for raw in self.made["features"] if raw["label"] == label)
