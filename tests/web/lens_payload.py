"""A lens payload made up for tests: a picture with two objects, words that grow with depth, every hard kind of token.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

import base64
import io
import math
import random
from typing import Any

from PIL import Image, ImageDraw

NOUNS = [" dog", " pizza", " blue", " cat", " red", " cloud", " ball", " tree", " sky", " boat"]
HARD = [" ", "\n", ",", "<0xE2>", "</script>", '<img src=x onerror="window.pwned=1">', "dog", "", "🐶"]


# How the views write tokens that are blank or punctuation.
LOOKS = {" ": "␣", "\n": "↵", "": "“”", ",": "“,”", ":": "“:”", ".": "“.”"}


def look(text: str) -> str:
    """A token of these payloads as the reader sees it."""
    return LOOKS.get(text, text.strip())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def quantise(p: float) -> int:
    """The byte that stands for a probability: a logit in steps of 16/255."""
    p = min(1 - 1e-9, max(1e-9, p))
    return min(255, max(0, round((math.log(p / (1 - p)) + 9) / 16 * 255)))


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + b64(buffer.getvalue())


def scene(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), (64, 120, 200))
    draw = ImageDraw.Draw(image)
    u = min(width, height) / 96
    draw.ellipse([8 * u, 14 * u, 44 * u, 52 * u], fill=(150, 96, 52))
    draw.ellipse([4 * u, 12 * u, 16 * u, 32 * u], fill=(110, 66, 34))
    draw.ellipse([36 * u, 12 * u, 48 * u, 32 * u], fill=(110, 66, 34))
    draw.ellipse([17 * u, 24 * u, 22 * u, 30 * u], fill=(20, 20, 20))
    draw.ellipse([30 * u, 24 * u, 35 * u, 30 * u], fill=(20, 20, 20))
    draw.ellipse([22 * u, 34 * u, 30 * u, 41 * u], fill=(30, 20, 20))
    draw.polygon([(54 * u, 46 * u), (92 * u, 54 * u), (66 * u, 92 * u)], fill=(244, 196, 72))
    draw.line([(54 * u, 46 * u), (92 * u, 54 * u)], fill=(176, 104, 40), width=max(1, round(6 * u)))
    for x, y in ((66, 60), (78, 62), (69, 76)):
        draw.ellipse([(x - 4) * u, (y - 4) * u, (x + 4) * u, (y + 4) * u], fill=(196, 44, 40))
    return image


def what(x: float, y: float) -> int:
    """Index into NOUNS of what is drawn at a point, given in 96ths of the square."""
    if (x - 26) ** 2 / 500 + (y - 31) ** 2 / 420 < 1:
        return 0
    if y > 44 and x > 52 and (x - 52) * 1.1 + 44 > y - 6 and y < 96 - (x - 66) * 1.2 + 6:
        return 1
    return 2


def payload(
    side: int = 8,
    layers: int = 9,
    k: int = 5,
    width: int = 96,
    height: int = 96,
    seen: list[int] | None = None,
    prompt: str = "Describe the image.",
    grids: int = 1,
    extra_prompt: int = 0,
    seed: int = 0,
    **fields: Any,
) -> dict[str, Any]:
    """A payload. `extra_prompt` appends that many prompt tokens; `fields` replace fields at the end."""
    rng = random.Random(seed)
    seen = seen or [0, 0, width, height]
    n = side * side
    text, kind = ["<s>", "USER", ":", " "], "xppp"
    starts = []
    for _ in range(grids):
        starts.append(len(text))
        text, kind = text + ["<image>"] * n, kind + "i" * n
    words = ["\n", "Describe", " the", " image", ".", *[f" w{i}" for i in range(extra_prompt)], " ASSISTANT", ":"]
    text, kind = text + words, kind + "p" * len(words)
    answer = [" a", " dog", " and", " a", " pizza", " on", " a", " blue", " background", ".", "</s>"]
    text, kind = text + answer, kind + "a" * len(answer)
    steps = len(text) - 1

    vocab = [*NOUNS, *HARD, *sorted(set(text) - set(NOUNS) - set(HARD)), *[f" zz{i}" for i in range(40)]]
    number = {word: i for i, word in enumerate(vocab)}
    l0, t0, r0, b0 = seen
    boxes: list[float] = []
    for i in range(n):
        row, col = divmod(i, side)
        w, h = (r0 - l0) / side, (b0 - t0) / side
        boxes += [l0 + col * w, t0 + row * h, l0 + (col + 1) * w, t0 + (row + 1) * h]

    target = []
    for row in range(steps):
        patch = next((row - s for s in starts if 0 <= row - s < n), None)
        if patch is None:
            target.append(number[text[row + 1]])
        else:
            at_row, at_col = divmod(patch, side)
            target.append(what((at_col + 0.5) / side * 96, (at_row + 0.5) / side * 96))

    ids, probs, entropy = [], bytearray(), bytearray()
    tops: list[list[int]] = []
    for layer in range(layers):
        depth = layer / max(1, layers - 1)
        tops.append([])
        for row in range(steps):
            p = min(0.9996, max(0.0004, depth**1.6 * (0.55 + 0.45 * rng.random())))
            others = rng.sample([i for i in range(len(vocab)) if i != target[row]], k)
            spread = [(1 - p) * 0.6 * 0.5**j for j in range(1, k + 1)]
            if row % 7 == 3 and layer < layers - 1:
                others[0] = len(NOUNS) + row % len(HARD)
            ranked = sorted([(p, target[row]), *zip(spread, others, strict=True)], reverse=True)[:k]
            seen_ids: set[int] = set()
            ranked = [(q, i) for q, i in ranked if not (i in seen_ids or seen_ids.add(i))]
            while len(ranked) < k:
                ranked.append((0.00001, next(i for i in range(len(vocab)) if i not in {j for _, j in ranked})))
            tops[-1].append(ranked[0][1])
            ids += [i for _, i in ranked]
            probs += bytes(quantise(q) for q, _ in ranked)
            entropy.append(round(255 * (1 - depth * 0.8) * (0.7 + 0.3 * rng.random())))
    first = bytes(next(x for x in range(layers) if tops[x][row] == tops[-1][row]) for row in range(steps))

    picture, view = scene(width, height), scene(96, 96)
    made = {
        "schema": "llava-microscope/lens-view/2",
        "model": "emoji-llava",
        "prompt": prompt,
        "answer": "a dog and a pizza on a blue background.",
        "finished": True,
        "notes": [],
        "image": {"src": data_url(picture), "width": width, "height": height},
        "seen": seen,
        "grids": [
            {
                "name": f"grid {g}",
                "rows": side,
                "cols": side,
                "boxes": b64(struct_pack("f", boxes)),
                "positions": b64(struct_pack("H", range(start, start + n))),
                "view": {"src": data_url(view), "width": 96, "height": 96},
            }
            for g, start in enumerate(starts)
        ],
        "tokens": {"text": text, "kind": kind},
        "method": "logit",
        "methods": [{"key": "logit", "name": "Logit lens", "about": "Reads what comes next."}],
        "missing": "",
        "others": [],
        "locked": None,
        "reads": "next",
        "score": "probability",
        "range": [0.0, 1.0],
        "scale": [[0.0, 1.0]] * layers,
        "best": None,
        "layers": list(range(-1, layers - 1)),
        "default": round((layers - 1) * 0.75),
        "why_default": "Three quarters deep: the last layers turn from what is there to what to say next.",
        "k": k,
        "vocab": vocab,
        "ids": b64(struct_pack("H", ids)),
        "ids_bytes": 2,
        "probs": b64(bytes(probs)),
        "entropy": b64(bytes(entropy)),
        "max_entropy": 6.2,
        "first": b64(first),
        "contexts": [],
        "neighbours": "",
        "note": "",
        "limits": "A logit lens reads each layer with the last layer's dictionary. What a layer holds in another form stays unseen.",
    }
    return made | fields


READING = (
    "method",
    "reads",
    "score",
    "layers",
    "default",
    "best",
    "why_default",
    "k",
    "vocab",
    "ids",
    "ids_bytes",
    "probs",
    "range",
    "scale",
)
READING += ("entropy", "max_entropy", "first", "contexts", "neighbours", "note", "limits")


def reading(seed: int = 1, **fields: Any) -> dict[str, Any]:
    """What an embedding lens reads in the scene of `payload()`: cosine similarities of other words, from -0.1 to 0.5."""
    made = payload(seed=seed)
    similar = {"method": "embedding", "reads": "here", "score": "cosine similarity", "range": [-0.1, 0.5], "scale": [[0.0, 0.25]] * 9}
    return {name: made[name] for name in READING} | similar | {"entropy": "", "first": "", "limits": "It compares."} | fields


def struct_pack(code: str, values: Any) -> bytes:
    """Little-endian typed array."""
    import struct

    values = list(values)
    return struct.pack(f"<{len(values)}{code}", *values)


class Expected:
    """What a payload says, decoded a second time and independently of the view."""

    def __init__(self, made: dict[str, Any]) -> None:
        self.made = made
        self.layers, self.steps, self.k = len(made["layers"]), len(made["tokens"]["kind"]) - 1, made["k"]
        self.ids = memoryview(base64.b64decode(made["ids"])).cast("H")
        self.q = base64.b64decode(made["probs"])

    def words(self, layer: int, row: int) -> list[str]:
        """Texts of the top k words at a row of T."""
        start = (layer * self.steps + row) * self.k
        return [self.made["vocab"][i] for i in self.ids[start : start + self.k]]

    def probability(self, layer: int, row: int, j: int = 0) -> float:
        q = self.q[(layer * self.steps + row) * self.k + j]
        return 0.0 if q == 0 else 1 / (1 + math.exp(9 - q / 255 * 16))

    def rows(self, grid: int = 0) -> list[int]:
        """Rows of T of a grid's patches, in reading order."""
        return list(memoryview(base64.b64decode(self.made["grids"][grid]["positions"])).cast("H"))
