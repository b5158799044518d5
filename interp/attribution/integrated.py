"""The exact effect of one feature, spread over positions: integrated gradients (Sundararajan et al. 2017) along that feature alone.

The feature goes from absent to what it is, at all positions together, and everything else stays. So the scores sum up to its exact effect, up
to the error of the midpoint rule. Moving all features together would sum up to the effect of all, and agree worse with that of each.
"""

from dataclasses import dataclass
from typing import Any

import torch

from ..devices import retry_on_oom
from ..saes.features import encode
from ..saes.sae import Sae
from ..steering.generation import rows_at_once
from ..tracing.replay import Replay
from ..tracing.select import grid_of
from ..tracing.trace import Trace
from ..validation import whole_number
from .attribute import readable
from .margin import Margin
from .removal import Part, effects

_LOWER = "Take a smaller picture, load the model with quantize='4bit', or choose a smaller model."
_MOST_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Integrated:
    """What one feature did for one word of the answer, position by position."""

    margin: Margin
    feature: int
    steps: int
    scores: torch.Tensor
    """Its share of the effect at every position, in logits: float32 [T]."""
    score: float
    """Their sum."""
    exact: float
    """m(clean) - m(without the feature): what `score` should be."""

    def map(self, grid: int = 0) -> torch.Tensor:
        """The scores on each patch: float32 [rows, cols]. Raises InterpError if there is no such grid."""
        return self.scores[grid_of(self.margin.trace, grid).positions]


def integrated(
    trace: Trace, sae: Sae, token: Any, feature: int, baseline: str | None = None, steps: int = 20, *, where: Any = "all"
) -> Integrated:
    """Integrated gradients of one feature for one token of the answer, at `steps` midpoints; rows of few batches.

    Token, baseline and `where` are as in `attribute`. Raises InterpError as that does, for a feature that does not exist, and for steps below 1
    or above 1000.
    """
    encoding = encode(trace, sae)
    feature, steps = sae.check(feature), whole_number("steps", steps, 1, _MOST_STEPS)
    margin = Margin.of(trace, token, baseline)
    part = Part.of_feature(encoding, feature, readable(encoding, where, margin)[1])
    scores, exact = torch.zeros(trace.length), 0.0
    if len(part.positions):
        with trace.vlm.lock:
            replay = Replay.of(trace)
            slope = retry_on_oom(lambda less: _mean_slope(margin, replay, sae.layer, part, steps, less), _LOWER)
            exact = float(effects(margin, replay, sae.layer, [part])[0])
        scores[part.positions] = part.amounts * slope
    return Integrated(margin, feature, steps, scores, float(scores.double().sum()), exact)


def _mean_slope(margin: Margin, replay: Replay, layer: int, part: Part, steps: int, less: int) -> torch.Tensor:
    """<dm/dx, direction> at the positions of the part, averaged over its amounts between none and all: float32 [positions]."""
    start = replay.first_changed(int(part.positions[0]))
    behind = replay.trace.n_layers - layer  # each keeps what its gradient needs
    size = max(1, rows_at_once(replay.trace.vlm, replay.trace.length - start) // (behind * less))
    states, at = margin.states(replay, layer, start), part.positions - start
    total = torch.zeros(len(at))
    for missing in (1 - (torch.arange(steps) + 0.5) / steps).split(size):
        with torch.enable_grad():
            rows = states.float().repeat(len(missing), 1, 1)
            rows[:, at.to(rows.device)] -= (missing[:, None, None] * part.delta).to(rows)
            rows = rows.to(states.dtype).requires_grad_()
            (gradient,) = torch.autograd.grad(margin.after(replay, layer, rows, start).sum(), rows)
        total += (gradient[:, at.to(gradient.device)].float().cpu() * part.directions).sum((0, 2))
    return total / steps
