"""Attention rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers"): attention multiplied through the layers.

R = A_last ... A_0 with A = (mean over heads + I) / 2, which stands for the residual connection. It follows where attention points, through all
layers, and nothing else: sinks and early layers dominate it in decoders, so both can be left out.
"""

from typing import Any

import torch

from ..devices import retry_on_oom
from ..models.attend import Heads
from ..tracing.replay import Replay, linear_layers
from ..tracing.select import answer_token
from ..tracing.trace import Trace
from ..validation import flag, index, instance, one_of
from .maps import PatchMap
from .rows import Over
from .sinks import find_sinks

_ROWS = 256  # of attention weights at a time
_LOWER = "Take a smaller picture or a shorter answer, or choose a smaller model."
_NOTE = "Multiplies where attention points through the layers; it knows nothing of what the heads moved, or of the layers' other parts."


def rollout(trace: Trace, token: Any, start_layer: int = 0, *, over: Over = "mean", sinks: bool = True) -> PatchMap:
    """The rollout from one token of the answer, given as its number or as a word, down to the input of `start_layer`.

    `over`: how heads are reduced. `sinks`: False drops the columns of attention sinks in every layer.

    Raises InterpError for a token or layer that does not exist, and if memory runs out.
    """
    position = answer_token(instance("trace", trace, Trace, "a Trace, as Vlm.trace returns"), token)
    flows = rollout_matrix(trace, start_layer, over=over, sinks=sinks)
    method = f"rollout, {over} over heads" + (f", from layer {start_layer}" if start_layer else "") + ("" if sinks else ", without sinks")
    note, linear = _NOTE, linear_layers(trace.vlm)
    if linear:
        note += f" {len(linear)} of {trace.n_layers} layers mix positions by other means than attention and are left out."
    return PatchMap(trace, position, method, flows[position - 1].clone(), note)


def rollout_matrix(trace: Trace, start_layer: int = 0, *, over: Over = "mean", sinks: bool = True) -> torch.Tensor:
    """R for all rows: float32 [T, T] on the CPU, each row summing to 1. Takes one forward pass, and the decoder's blocks once more.

    Layers without attention (the linear ones of Qwen3.5) count as the identity. Raises as `rollout` does.
    """
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    start_layer = index("start_layer", start_layer, 0, trace.n_layers - 1, f"{trace.model_name} has layers 0 to {trace.n_layers - 1}")
    one_of("over", over, ["mean", "max"])
    dropped = [] if flag("sinks", sinks) else list(find_sinks(trace).all)

    def run(less: int) -> torch.Tensor:
        flows = torch.eye(trace.length)

        def read(heads: Heads) -> None:
            nonlocal flows
            flows = step(_reduced(heads, over, max(1, _ROWS // less)), flows, dropped)

        replay = Replay.of(trace)
        replay.run(replay.entering(start_layer), layer=start_layer, read=read)
        return flows.cpu()

    with vlm.lock, torch.no_grad():
        return retry_on_oom(run, _LOWER)


def step(weights: torch.Tensor, flows: torch.Tensor, dropped: list[int]) -> torch.Tensor:
    """One layer more: `weights` [T, T] reduced over heads, `flows` [T, T] of the layers below it."""
    if dropped:
        weights[:, dropped] = 0
    total = weights.sum(-1, keepdim=True)
    attended = torch.where(total > 0, weights / total.clamp(min=1e-12), torch.eye(len(weights), device=weights.device))
    return (attended @ flows.to(weights) + flows.to(weights)) / 2


def _reduced(heads: Heads, over: Over, rows: int) -> torch.Tensor:
    """The layer's weights reduced over heads, [T, T], a few rows of all heads at a time."""
    parts = torch.arange(heads.query.shape[2], device=heads.query.device).split(rows)
    weights = (heads.weights(part)[0] for part in parts)
    return torch.cat([part.mean(0) if over == "mean" else part.amax(0) for part in weights])
