"""A payload of the view that explains a word, made up for tests: heads that look at what is said, heads that rest on a sink, heads that look anywhere.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

import random
from typing import Any

from tests.web.feature_payload import tokens
from tests.web.lens_payload import b64, data_url, scene, struct_pack, what

KINDS = ("image", "prompt", "answer", "sinks")
METHODS = [
    ("attention", "Attention", True),
    ("value_weighted", "Value-weighted", True),
    ("rollout", "Rollout", False),
    ("relevancy", "Relevancy", False),
]


def spec(method: str = "attention", token: int = 1, **fields: Any) -> dict[str, Any]:
    return {"method": method, "token": token, "layer": None, "head": None, "over": "mean", "sinks": True} | fields


def floats(values: list[float]) -> str:
    return b64(struct_pack("f", values))


def score(insertion: float = 0.7, deletion: float = 0.1) -> dict[str, float]:
    return {"insertion": insertion, "deletion": deletion, "random_insertion": 0.4, "random_deletion": 0.35}


def rows(layers: int, heads: int, queries: int, keys: list[int], first: int, side: int, seed: int) -> list[list[list[list[float]]]]:
    """Attention of [layer][head][query] on the image tokens: head 0 finds what the word says, head 1 rests on the first patch."""
    rng = random.Random(seed)

    def of(head: int, query: int) -> list[float]:
        said = {1: 0, 4: 1}.get(query, 2)
        values = []
        for key in keys:
            row, col = divmod((key - first) % (side * side), side)
            there = what((col + 0.5) / side * 96, (row + 0.5) / side * 96) == said
            values.append({0: 0.015 if there else 0.0001, 1: 0.6 if key == keys[0] else 0.0005}.get(head, 0.004 * rng.random()))
        return values

    return [[[of(head, query) for query in range(queries)] for head in range(heads)] for _ in range(layers)]


def steps(values: list[float]) -> tuple[list[int], float]:
    top = max(values)
    return [round(255 * value / top) for value in values], top


def payload(
    side: int = 8, layers: int = 4, heads: int = 6, grids: int = 1, seed: int = 0, *, complete: bool = True, **fields: Any
) -> dict[str, Any]:
    """A payload; `complete`: with the rows of every head, else with their means only. `fields` replace fields at the end."""
    rng = random.Random(seed)
    n = side * side
    text, kind, starts = tokens(side, grids)
    start = kind.index("a")
    queries = len(text) - start
    keys = [first + i for first in starts for i in range(n)]
    weights = rows(layers, heads, queries, keys, starts[0], side, seed)
    if not complete:
        weights = [[[[sum(head[q][k] for head in layer) / heads for k in range(len(keys))] for q in range(queries)]] for layer in weights]
    packed = [steps(values) for layer in weights for head in layer for values in head]
    image = [sum(weights[i][j % len(weights[i])][q]) for i in range(layers) for j in range(heads) for q in range(queries)]
    rest = [[(1 - share) * part for share in image] for part in (0.3, 0.1, 0.6)]
    shares = [image, *rest]
    mean = [
        sum(one[(layer * heads + head) * queries + q] for head in range(heads)) / heads
        for one in shares
        for layer in range(layers)
        for q in range(queries)
    ]
    made = {
        "schema": "llava-microscope/attention-view/1",
        "run": None,
        "model": "emoji-llava",
        "prompt": "Describe the image.",
        "answer": "a dog and a pizza.",
        "finished": True,
        "notes": [],
        "image": {"src": data_url(scene(96, 96)), "width": 96, "height": 96},
        "seen": [0, 0, 96, 96],
        "grids": [
            {
                "name": f"part {g + 1}" if grids > 1 else "image",
                "rows": side,
                "cols": side,
                "boxes": floats([edge * 96 / side for i in range(n) for edge in (i % side, i // side, i % side + 1, i // side + 1)]),
                "positions": b64(struct_pack("H", [first + i for i in range(n)])),
                "view": {"src": data_url(scene(96, 96)), "width": 96, "height": 96},
            }
            for g, first in enumerate(starts)
        ],
        "regions": [],
        "tokens": {"text": text, "kind": kind},
        "start": start,
        "token": 1,
        "method": "",
        "layers": list(range(layers)),
        "heads": heads,
        "keys": b64(struct_pack("H", keys)),
        "row_layers": layers,
        "row_heads": heads if complete else 1,
        "rows": b64(bytes(step for values, _ in packed for step in values)),
        "row_scale": floats([top for _, top in packed]),
        "norms": b64(bytes(rng.randint(128, 255) for _ in range(layers * heads * len(keys)))) if complete else "",
        "norm_scale": floats([2.0] * (layers * heads)) if complete else "",
        "shares": b64(bytes(round(255 * min(1, max(0, share)) ** 0.5) for one in shares for share in one)),
        "curves": floats(mean),
        "sinks": {"tower": [keys[9]], "decoder": [0, keys[0]]},
        "methods": [
            {
                "key": key,
                "name": name,
                "about": f"What {name.lower()} is.",
                "note": f"{name} does not show everything." if own else "",
                "heads": own,
            }
            for key, name, own in METHODS
        ],
        "maps": [],
        "window": 2,
        "quick": False,
        "limits": "Attention says where a head reads.",
    }
    return made | fields


def what_if(**fields: Any) -> dict[str, Any]:
    """What the server says of an answer without some patches."""
    count = 7
    made = {
        "plain": {"text": "a dog and a pizza.", "finished": True},
        "changed": {"text": "a cat and a pizza.", "finished": True},
        "diff": [
            {"op": "equal", "plain": "a", "steered": "a"},
            {"op": "replace", "plain": " dog", "steered": " cat"},
            {"op": "equal", "plain": " and a pizza.", "steered": " and a pizza."},
        ],
        "before": [0.9] * count,
        "after": [0.9, 0.001, *[0.88] * (count - 2)],
        "kl": [0.0, 5.2, *[0.01] * (count - 2)],
        "about": "4 patches cannot be read by any later token, in all layers.",
    }
    return made | fields


def flow(layers: int = 4, **fields: Any) -> dict[str, Any]:
    """What the server says of the layers through which the picture reaches a word."""
    names = ["image→prompt", "image→last", "prompt→last"]
    made = {
        "window": 2,
        "centres": list(range(layers)),
        "blocks": [
            {"name": name, "change": [-80.0 / (i + 1 + b) for i in range(layers)], "log_odds": [-3.0 / (i + 1 + b) for i in range(layers)]}
            for b, name in enumerate(names)
        ],
        "forwards": 3,
    }
    return made | fields


def fewest(**fields: Any) -> dict[str, Any]:
    """What the server says of the fewest patches that flip a word."""
    return {"positions": [22, 23], "flipped": True, "instead": " cat", "before": 0.9, "after": 0.2, "tried": 127} | fields
