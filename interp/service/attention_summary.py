"""What `/attention` returns about one word, as plain JSON."""

from typing import Any

import torch

from ..attention.maps import PatchMap
from ..attention.rows import Attention
from ..web.payloads.attention import SHARES, Score


def summary(attention: Attention, found: PatchMap, score: Score) -> dict[str, Any]:
    """One word of the answer: its map, where its attention goes, and which words read the map's brightest patch."""
    trace = found.trace
    query = found.token - trace.answer_start
    image = trace.positions("image")
    brightest = image[int(found.values[image].argmax())]
    return {
        "schema": "llava-microscope/attention-summary/1",
        **_about(attention),
        "token": {"index": query, "text": trace.tokens[found.token].text, "position": found.token},
        "method": found.method,
        "note": found.note,
        "map": [_numbers(found.map(grid)) for grid in range(len(trace.grids))],
        "shares": {kind: _numbers(attention.share(kind)[:, :, query].mean(1)) for kind in SHARES},
        "insertion": _short(score["insertion"]),
        "deletion": _short(score["deletion"]),
        "random_insertion": _short(score["random_insertion"]),
        "random_deletion": _short(score["random_deletion"]),
        "readers": {"position": brightest, **_place(attention, brightest), "read_by": _numbers(attention.readers([brightest]))},
    }


def _about(attention: Attention) -> dict[str, Any]:
    trace, sinks = attention.trace, attention.sinks
    tokens = [trace.tokens[token].text for token in attention.tokens]
    return {
        "model": trace.model_name,
        "prompt": trace.prompt,
        "answer": trace.answer,
        "finished": trace.finished,
        "notes": list(trace.notes),
        "tokens": [{"index": i, "text": text} for i, text in enumerate(tokens)],
        "layers": list(attention.layers),
        "heads": attention.n_heads,
        "grids": [{"name": grid.name, "rows": grid.rows, "cols": grid.cols} for grid in trace.grids],
        "sinks": {"tower": list(sinks.tower), "decoder": list(sinks.decoder)},
    }


def _place(attention: Attention, position: int) -> dict[str, Any]:
    """The patch of a position, if it has one."""
    for number, grid in enumerate(attention.trace.grids):
        if (found := (grid.positions == position).nonzero()).numel():
            return {"grid": number, "patch": found[0].tolist()}
    return {}


def _numbers(values: torch.Tensor) -> list[Any]:
    """Nested lists, rounded to four digits: more are noise, and the file would be twice as long."""
    return [_numbers(each) for each in values] if values.ndim > 1 else [_short(value) for value in values.tolist()]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
