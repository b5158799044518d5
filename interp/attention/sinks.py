"""Attention sinks: positions that attention rests on without reading anything there. A bright patch on one of them is no evidence."""

from dataclasses import dataclass

import torch

from ..tracing.trace import EMBED, Trace
from ..validation import instance

_PHI = 20.0
_FIRST_LAYER = 2  # massive activations appear behind the first blocks
_DIMENSIONS = 2
_PART = 16  # of a state is read first
_DEVIATIONS, _TIMES_MEDIAN = 2.0, 2.0


@dataclass(frozen=True)
class Sinks:
    """Positions of both kinds of sink, in order."""

    tower: tuple[int, ...]
    """Image tokens that leave the vision tower as registers: norm at `EMBED` above the mean plus two standard deviations of the image tokens
    and above twice their median. They hold something about the whole picture, not about their place."""
    decoder: tuple[int, ...]
    """Positions with massive activations inside the decoder, and position 0 if it is a special token."""

    @property
    def all(self) -> tuple[int, ...]:
        """Both kinds."""
        return tuple(sorted({*self.tower, *self.decoder}))


def find_sinks(trace: Trace) -> Sinks:
    """The sinks of a trace.

    A decoder sink x has max over d in D of |x_d / rms(x)| above 20 at the input of at least half of the layers from the third on; D are the two
    dimensions in which position 0 is largest in the middle layer (Kang et al. 2025, "See What You Are Told: Visual Attention Sink"). Tower
    sinks are registers after Darcet et al. 2024, "Vision Transformers Need Registers".
    """
    instance("trace", trace, Trace, "a Trace, as Vlm.trace returns")
    return Sinks(_tower(trace), _decoder(trace))


def _tower(trace: Trace) -> tuple[int, ...]:
    rows = trace.positions("image")
    if len(rows) < 2:
        return ()
    norms = trace.residual(EMBED)[rows].float().norm(dim=-1)
    least = max(float(norms.mean() + _DEVIATIONS * norms.std()), _TIMES_MEDIAN * float(norms.median()))
    return tuple(rows[i] for i in (norms > least).nonzero().flatten().tolist())


def _decoder(trace: Trace) -> tuple[int, ...]:
    found = {0} if trace.tokens[0].kind == "special" else set()
    layers = range(_FIRST_LAYER, trace.n_layers)
    if layers:
        dimensions = trace.residual(trace.n_layers // 2)[0].float().abs().topk(min(_DIMENSIONS, trace.states.shape[-1])).indices
        massive = torch.stack([_massive(trace.residual(layer - 1), dimensions) for layer in layers]).float().mean(0)
        found |= set((massive >= 0.5).nonzero().flatten().tolist())
    return tuple(sorted(found))


def _massive(states: torch.Tensor, dimensions: torch.Tensor) -> torch.Tensor:
    """Whether |x_d / rms(x)| exceeds its limit in one of `dimensions`: bool [T]."""
    width = states.shape[-1]
    peak = states[:, dimensions].float().abs().amax(-1)
    least = states[:, : width // _PART].float().square().sum(-1) / width  # no mean square is below this, so few rows are read whole
    out = peak > _PHI * least.sqrt()
    rows = out.nonzero().flatten()
    out[rows] = peak[rows] > _PHI * (states[rows].float().square().mean(-1) + 1e-6).sqrt()
    return out
