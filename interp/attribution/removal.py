"""The exact effect of parts of the states: each is taken away in a row of a batch, and the blocks behind run again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..devices import retry_on_oom
from ..saes.features import Encoding
from ..steering.generation import rows_at_once
from ..tracing.replay import Replay
from .margin import Margin

LOWER = "Lower `top`, take a smaller picture, load the model with quantize='4bit', or choose a smaller model."


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the states: `amounts[i]` times a direction at `positions[i]`."""

    positions: torch.Tensor
    """int64 [n], ascending."""
    amounts: torch.Tensor
    """float32 [n]"""
    directions: torch.Tensor
    """[d], or [n, d] for each position its own."""

    @classmethod
    def of_feature(cls, encoding: Encoding, feature: int, positions: Sequence[int]) -> "Part":
        """What a feature contributes at those of `positions` where it is active: z / scale times its decoder row."""
        acts = encoding.acts
        wanted = torch.zeros(encoding.trace.length, dtype=torch.bool)
        wanted[list(positions)] = True
        here = ((acts.features == feature) & wanted[acts.tokens]).nonzero().flatten()
        at = acts.tokens[here]
        return cls(at, acts.values[here] / acts.scale[at, 0], encoding.sae.W_dec[feature].float().cpu())

    @classmethod
    def of_states(cls, states: torch.Tensor, positions: Sequence[int]) -> "Part":
        """`states` [T, d] at these positions."""
        at = torch.tensor(sorted(positions))
        return cls(at, torch.ones(len(at)), states[at])

    @property
    def delta(self) -> torch.Tensor:
        """The part itself: float32 [n, d]."""
        return self.amounts[:, None] * self.directions


def effects(margin: Margin, replay: Replay, layer: int, parts: Sequence[Part]) -> torch.Tensor:
    """m(clean) - m(without the part), for each part of the states after `layer`: float32 [parts] on the CPU. The caller holds the lock.

    The unchanged states are a row of every batch, so that rounding in 16 bit, which depends on a batch's shape, cancels. What an SAE would
    find in the changed states is not asked: nothing takes the place of a feature that is gone.
    """
    order = sorted((i for i, part in enumerate(parts) if len(part.positions)), key=lambda i: int(parts[i].positions[0]))

    def run(less: int) -> torch.Tensor:
        out, left = torch.zeros(len(parts)), list(order)
        while left:
            start = replay.first_changed(min(int(parts[left[0]].positions[0]), margin.row))
            size = max(1, rows_at_once(replay.trace.vlm, replay.trace.length - start) // less - 1)
            batch, left = left[:size], left[size:]
            states = margin.states(replay, layer, start)
            rows = states.float().repeat(len(batch) + 1, 1, 1)
            for row, part in zip(rows[1:], (parts[i] for i in batch), strict=True):
                row[(part.positions - start).to(row.device)] -= part.delta.to(row)
            found = margin.after(replay, layer, rows.to(states.dtype), start).cpu()
            out[batch] = found[0] - found[1:]
        return out

    with torch.no_grad():
        return retry_on_oom(run, LOWER)
