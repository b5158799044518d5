"""Where the rows that emit the answer point their attention, for every layer and head.

One forward pass, in which softmax is computed for these rows only. Attention is where a head looks, not what the answer needed: most of it rests
on sinks, and removing what it rests on often changes nothing. `value_norms` says how much a head takes from where it looks; whether the
answer needed it is for `interp.knockout` and `interp.faithfulness` to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.attend import Heads
from ..tracing.replay import Replay, linear_layers
from ..tracing.select import answer_token
from ..tracing.trace import Kind, Trace
from ..validation import as_whole, flag, index, instance, one_of, sequence, shown, whole_numbers
from .maps import PatchMap
from .sinks import Sinks, find_sinks
from .values import value_norms

Over = Literal["mean", "max"]
Share = Literal["image", "prompt", "answer", "sinks"]
_SHARES: dict[str, tuple[Kind, ...]] = {"image": ("image",), "prompt": ("prompt", "special", "separator"), "answer": ("answer",)}
_LOWER = "Ask for fewer tokens or layers, take a smaller picture, or choose a smaller model."
_NOTE = "Shows where attention points, not what the answer needed: it often rests on tokens that can be removed without a change."
_WEIGHTED = "Shows how much these heads move from each position into the row, not whether later layers use it."


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention weights of the rows that emit some tokens of the answer. All tensors are float32 on the CPU."""

    trace: Trace
    layers: tuple[int, ...]
    """Axis 0. Layers without attention (the linear ones of Qwen3.5) are left out."""
    tokens: tuple[int, ...]
    """Axis 2: positions of the tokens in `trace.tokens`. Row `token` - 1 emits a token, and its weights are those of that row."""
    weights: torch.Tensor
    """[layers, heads, queries, T]: softmax of the scaled, masked scores; each row sums to 1."""
    value_norms: torch.Tensor | None
    """Norm of each position's value times the head's slice of the output projection: [layers, heads, T]. None where `value_norms` has none."""
    sinks: Sinks

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, without its trace."""
        return self.weights.nbytes + (0 if self.value_norms is None else self.value_norms.nbytes)

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return self.weights.shape[1]

    def share(self, kind: Share) -> torch.Tensor:
        """Share of the attention on one kind of token: [layers, heads, queries]. The four kinds sum to 1.

        "prompt" includes special tokens and separators. A sink counts under "sinks" only.
        """
        one_of("kind", kind, [*_SHARES, "sinks"])
        sinks = list(self.sinks.all)
        if kind == "sinks":
            return self.weights[..., sinks].sum(-1)
        return self.weights[..., [i for i in self.trace.positions(*_SHARES[kind]) if i not in sinks]].sum(-1)

    def map(
        self,
        token: Any,
        layer: int | None = None,
        head: int | None = None,
        grid: int = 0,
        *,
        over: Over = "mean",
        sinks: bool = True,
        weighted: bool = False,
    ) -> torch.Tensor:
        """`patch_map` over one patch grid: [rows, cols]."""
        return self.patch_map(token, layer, head, over=over, sinks=sinks, weighted=weighted).map(grid)

    def patch_map(
        self,
        token: Any,
        layer: int | None = None,
        head: int | None = None,
        *,
        over: Over = "mean",
        sinks: bool = True,
        weighted: bool = False,
    ) -> PatchMap:
        """The attention of one token's row, as a map.

        `layer`, `head`: one of each, or None for all of them, reduced by their mean or maximum. `sinks`: False sets sinks to 0. `weighted`:
        each weight times the norm of what the head reads there, |A V W_O|: what the head moves rather than where it points (Kobayashi et al.
        2020, "Attention is Not Only a Weight").

        Raises InterpError for a token, layer or head that is not here, and for `weighted` with a model that gates its attention's output.
        """
        one_of("over", over, ["mean", "max"])
        flag("sinks", sinks)
        position = answer_token(self.trace, token)
        if position not in self.tokens:
            raise InterpError(
                f"Token {shown(token)} was not asked for; call interp.attention(trace, tokens=[{position - self.trace.answer_start}])."
            )
        layers = slice(None) if layer is None else [self._layer(layer)]
        heads = slice(None) if head is None else [index("Head", head, 0, self.n_heads - 1, f"there are {self.n_heads}, counted from 0")]
        chosen = self.weights[layers][:, heads, self.tokens.index(position)]
        if flag("weighted", weighted):
            if self.value_norms is None:
                raise InterpError(
                    f"The attention of {self.trace.model_name} gates its output after the values are summed, or projects it as no other model "
                    "does, so its weights cannot be weighed by its values. Leave out weighted=True."
                )
            chosen = chosen * self.value_norms[layers][:, heads]
        values = chosen.mean((0, 1)) if over == "mean" else chosen.amax((0, 1))
        if not sinks:
            values = values.clone()
            values[list(self.sinks.all)] = 0
        where = ", ".join(f"{name} {value}" for name, value in (("layer", layer), ("head", head)) if value is not None)
        rest = " and ".join(name for name, value in (("layers", layer), ("heads", head)) if value is None)
        parts = [
            "value-weighted attention" if weighted else "attention",
            where,
            f"{over} over {rest}" if rest else "",
            "" if sinks else "without sinks",
        ]
        return PatchMap(self.trace, position, ", ".join(part for part in parts if part), values, _WEIGHTED if weighted else _NOTE)

    def readers(self, positions: Sequence[int]) -> torch.Tensor:
        """How much of each token's attention falls on these positions, mean over layers and heads: [queries]."""
        last = self.trace.length - 1
        rows = [index("Position", i, 0, last, f"there are positions 0 to {last}") for i in whole_numbers("positions", positions)]
        return self.weights[..., rows].sum(-1).mean((0, 1))

    def to_dict(self) -> dict[str, Any]:
        """Shares and mean maps as plain JSON types; the weights themselves are a tensor's business."""
        trace, grids = self.trace, range(len(self.trace.grids))
        start = trace.answer_start
        return {
            "schema": "llava-microscope/attention/1",
            "model": trace.model_name,
            "prompt": trace.prompt,
            "answer": trace.answer,
            "layers": list(self.layers),
            "tokens": [
                {
                    "token": position - start,
                    "text": trace.tokens[position].text,
                    "shares": {kind: self.share(kind)[..., q].tolist() for kind in ("image", "prompt", "answer", "sinks")},
                    "maps": [self.map(position - start, grid=grid).tolist() for grid in grids],
                }
                for q, position in enumerate(self.tokens)
            ],
            "sinks": {"tower": list(self.sinks.tower), "decoder": list(self.sinks.decoder)},
        }

    def _layer(self, layer: object) -> int:
        number = as_whole(layer)
        if number not in self.layers:
            raise InterpError(f"Layer {shown(layer)} is not here; there are {', '.join(map(str, self.layers))}.")
        return self.layers.index(number)


def attention(trace: Trace, tokens: Sequence[Any] | None = None, layers: Sequence[int] | None = None) -> Attention:
    """Attention of the rows that emit `tokens` of the answer (numbers or words; default: all of them), in `layers` (default: all that attend).

    Takes one forward pass over the picture, the prompt and the answer.

    Raises InterpError for tokens that the answer does not have, layers that do not exist or have no attention, and if memory runs out.
    """
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    start = trace.answer_start
    every = range(len(trace.tokens) - start)
    asked = every if tokens is None else sequence("tokens", tokens, "tokens of the answer, as numbers or words")
    positions = tuple(dict.fromkeys(answer_token(trace, token) for token in asked))
    chosen = _layers(trace, layers)

    def run(_less: int) -> Attention:
        return _Rows(trace, positions, chosen).run()

    with vlm.lock, torch.no_grad():
        return retry_on_oom(run, _LOWER)


def _layers(trace: Trace, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers asked for. Raises InterpError unless they exist and have attention."""
    linear = linear_layers(trace.vlm)
    attending = [layer for layer in range(trace.n_layers) if layer not in linear]
    if layers is None:
        return tuple(attending)
    there_are = f"{trace.model_name} has layers 0 to {trace.n_layers - 1}"
    listed = sequence("layers", layers, "layer numbers, at least one")
    chosen = tuple(dict.fromkeys(index("Layer", layer, 0, trace.n_layers - 1, there_are) for layer in listed))
    if without := [layer for layer in chosen if layer in linear]:
        raise InterpError(f"Layer {without[0]} of {trace.model_name} has no attention; choose from {', '.join(map(str, attending))}.")
    return chosen


class _Rows:
    """Collects the wanted rows while the model runs: each is written once, to its place, and nothing waits for a GPU before the end."""

    def __init__(self, trace: Trace, tokens: tuple[int, ...], layers: tuple[int, ...]) -> None:
        self._trace, self._tokens, self._layers = trace, tokens, layers
        self._weights: torch.Tensor | None = None
        self._norms: dict[int, torch.Tensor | None] = {}

    def run(self) -> Attention:
        Replay.of(self._trace, read=self._read)
        assert self._weights is not None
        norms = [self._norms[layer] for layer in self._layers]
        return Attention(
            trace=self._trace,
            layers=self._layers,
            tokens=self._tokens,
            weights=self._weights.cpu(),
            value_norms=None if any(each is None for each in norms) else torch.stack([each.cpu() for each in norms if each is not None]),
            sinks=find_sinks(self._trace),
        )

    def _read(self, heads: Heads) -> None:
        if heads.layer not in self._layers:
            return
        axis, device = self._layers.index(heads.layer), heads.query.device
        length, first, last = self._trace.length, heads.first, heads.key.shape[2]
        if self._weights is None:
            self._weights = torch.zeros(len(self._layers), heads.query.shape[1], len(self._tokens), length, device=device)
        here = [(q, token - 1 - first) for q, token in enumerate(self._tokens) if first < token <= last]
        if here:
            at, rows = (torch.tensor(numbers, device=device) for numbers in zip(*here, strict=True))
            self._weights[axis, :, at.to(self._weights.device), :last] = heads.weights(rows)[0].to(self._weights.device)
        if last == length:
            self._norms[heads.layer] = value_norms(heads)
