"""Through which layers does the picture reach a word? Information flow (Zhang et al. 2025, "Cross-modal Information Flow in Multimodal LLMs").

One path of attention, such as image → prompt, is cut in a window of layers, and the word's probability is compared with the model's own. Where
the loss is largest, the path was in use.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InterpError
from ..tracing.replay import Replay
from ..tracing.select import answer_token, select
from ..tracing.trace import Trace
from ..validation import instance, shown, whole_number
from .changed import scores
from .cuts import Cut, cut_states, readable, with_attention
from .knockout import A_TRACE, text_behind_picture


@dataclass(frozen=True, eq=False)
class Flow:
    """How a word's probability changes when a path is cut in a window of layers."""

    trace: Trace
    token: int
    """Position of the word in `trace.tokens`; row `token` - 1 emits it."""
    window: int
    """Layers cut together; fewer at the ends."""
    centres: tuple[int, ...]
    """The layer in the middle of each window: every layer."""
    blocks: tuple[str, ...]
    """The paths, such as "image→prompt"."""
    probability: float
    """Of the word, with nothing cut."""
    change: torch.Tensor
    """100 (p2 - p1) / p1, p1 the word's own probability and p2 that with the path cut: float32 [blocks, windows], at least -100."""
    log_odds: torch.Tensor
    """Change of log p / (1 - p): float32 [blocks, windows]."""
    forwards: int
    """Batches that were run."""
    object: str | None
    """The object's patches in words, if there are any."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "schema": "llava-microscope/flow/1",
            "model": self.trace.model_name,
            "prompt": self.trace.prompt,
            "token": {"position": self.token, "text": self.trace.tokens[self.token].text},
            "window": self.window,
            "centres": list(self.centres),
            "object": self.object,
            "probability": self.probability,
            "blocks": {
                name: {"change": change, "log_odds": log_odds}
                for name, change, log_odds in zip(self.blocks, self.change.tolist(), self.log_odds.tolist(), strict=True)
            },
            "forwards": self.forwards,
        }


def information_flow(trace: Trace, token: Any, window: int | None = None, object: Any = None) -> Flow:  # noqa: A002 - the field's own word
    """Cut each path to one word of the answer, given as its number or as a word, in each window of layers.

    Paths lead from the image to the prompt, to the answer so far and to the row that emits the word ("last"), and on between these. "prompt"
    is the text from the first image token on, "answer so far" the answer's tokens before that row; a path that does not exist is left out.
    With `object`, a `where` of image positions, there are paths from these and from the rest of the image too. A window of k layers around
    layer l has layers l - k // 2 up to l + (k + 1) // 2, exclusive, as far as they exist; by default k is about a fifth of the layers.

    Raises InterpError for a token that the answer does not have, a window of more layers than there are, an object that is no part of the
    image or all of it, and a trace without a model.
    """
    vlm = instance("trace", trace, Trace, A_TRACE).vlm
    position = answer_token(trace, token)
    width = round(vlm.n_layers / 5) if window is None else whole_number("window", window, 1, vlm.n_layers, hint=f"the layers of {vlm.name}")
    width = max(1, width)
    words, chosen = (None, []) if object is None else _object(trace, object)
    with vlm.lock:
        replay = Replay.of(up_to(trace, position))
        paths = _paths(trace, position, chosen)
        having = with_attention(replay)
        reads = torch.stack([readable(replay, layer) for layer in having]).any(0)
        paths = {name: path for name, path in paths.items() if all(path) and reads[torch.tensor(path[0])[:, None], path[1]].any()}
        windows = [frozenset(range(*_around(layer, width, vlm.n_layers))) & frozenset(having) for layer in range(vlm.n_layers)]
        cuts = [Cut(tuple(rows), tuple(sources), layers) for rows, sources in paths.values() for layers in windows]
        states, forwards = cut_states(replay, cuts, [position - 1])
        found = scores(replay.trace, states, [position])
    shape = (len(paths), len(windows))
    changed = found.log_probability[:, 0]
    return Flow(
        trace=trace,
        token=position,
        window=width,
        centres=tuple(range(vlm.n_layers)),
        blocks=tuple(paths),
        probability=changed[0].exp().item(),
        change=100 * (changed[1:] - changed[0]).expm1().view(shape),
        log_odds=(found.log_odds[1:, 0] - found.log_odds[0, 0]).view(shape),
        forwards=forwards,
        object=words,
    )


def up_to(trace: Trace, position: int) -> Trace:
    """The trace without what stands behind the row that emits `tokens[position]`, which no earlier row reads."""
    return dataclasses.replace(trace, tokens=trace.tokens[: position + 1], states=trace.states[:, :position])


def _paths(trace: Trace, position: int, chosen: Sequence[int]) -> dict[str, tuple[list[int], list[int]]]:
    """Name → (rows that may not read, what they may not read); some may be empty."""
    last, start = position - 1, trace.answer_start
    image = trace.positions("image")
    stations = {
        "prompt": text_behind_picture(trace, min(start, last)),
        "answer so far": list(range(start, last)),
        "last": [last],
    }
    origins = {"image": image}
    if chosen:
        origins |= {"object": list(chosen), "rest": sorted(set(image) - set(chosen))}
    out = {f"{name}→{station}": (rows, sources) for name, sources in origins.items() for station, rows in stations.items()}
    out |= {f"prompt→{station}": (stations[station], stations["prompt"]) for station in ("answer so far", "last")}
    return out | {"answer so far→last": (stations["last"], stations["answer so far"])}


def _object(trace: Trace, where: Any) -> tuple[str, list[int]]:
    """The object's image positions, in words and as numbers."""
    try:
        words, found = select(trace, where)
    except InterpError as error:
        raise InterpError(f"object: {error}") from error
    image = set(trace.positions("image"))
    if not found or not set(found) < image:
        raise InterpError(f"object is {shown(where)}; it must be some of the image's tokens, not all of them, and nothing else.")
    return words, found


def _around(layer: int, width: int, n_layers: int) -> tuple[int, int]:
    return max(0, layer - width // 2), min(n_layers, layer + (width + 1) // 2)
