"""What is explained: by how much the model prefers one word of its answer to another word, and the gradient of that at an earlier layer."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..attention.relevancy import baseline_id
from ..errors import InterpError
from ..tracing.replay import Replay
from ..tracing.select import answer_token
from ..tracing.trace import Trace
from .fixed_norms import fixed_norms

Norms = Literal["fixed", "free"]
NORMS: tuple[Norms, ...] = ("fixed", "free")


@dataclass(frozen=True, eq=False)
class Margin:
    """m = logit[said] - logit[other] at the row that emits a token of the answer."""

    trace: Trace
    token: int
    """Position of the token in `trace.tokens`."""
    said: int
    """Its id."""
    other: int
    """The id of the baseline."""

    @classmethod
    def of(cls, trace: Trace, token: Any, baseline: str | None) -> "Margin":
        """For a token of the answer, given as its number or as a word. `baseline` None: the likeliest other token at that row.

        Raises InterpError for a token that the answer does not have, and a baseline of several tokens or of the token itself.
        """
        vlm, position = trace.vlm, answer_token(trace, token)
        said = trace.tokens[position].id
        with vlm.lock, torch.no_grad():
            logits = vlm.unembed.logits(trace.residual(trace.n_layers - 1)[position - 1 : position])[0]
            if baseline is None:
                others = logits.clone()
                others[[said, *vlm.vocabulary.undecodable]] = -torch.inf
                other = int(others.argmax())
            else:
                other = baseline_id(vlm, baseline, said)
        return cls(trace, position, said, other)

    @property
    def row(self) -> int:
        """The position that emits the token."""
        return self.token - 1

    @functools.cached_property
    def clean(self) -> float:
        """The value of m in the trace itself."""
        with self.trace.vlm.lock, torch.no_grad():
            return float(self.at(self.trace.residual(self.trace.n_layers - 1)[self.row : self.token]))

    @property
    def baseline(self) -> str:
        """The text of the baseline."""
        return self.trace.vlm.vocabulary.texts[self.other]

    def at(self, states: torch.Tensor) -> torch.Tensor:
        """The value of m for last-layer states of the row, [N, d]: float32 [N], through which gradients can flow."""
        logits = self.trace.vlm.unembed.wide_logits(states, torch.tensor([self.said, self.other]))
        return logits[:, 0] - logits[:, 1]

    def after(self, replay: Replay, layer: int, hidden: torch.Tensor, start: int = 0) -> torch.Tensor:
        """The value of m with `hidden` [B, T - start, d] as the states after `layer`, from position `start` on: float32 [B]."""
        return self.at(replay.run(hidden, layer=layer + 1, start=start)[:, self.row - start])

    def states(self, replay: Replay, layer: int, start: int = 0) -> torch.Tensor:
        """The states after `layer` in the trace, from position `start` on, where the next block takes them in: [1, T - start, d]."""
        if layer + 1 < self.trace.n_layers:
            return replay.entering(layer + 1, start)
        return self.trace.residual(layer)[start:][None].to(self.trace.vlm.unembed.device)

    def gradient(self, replay: Replay, layer: int, norms: Norms = "free") -> torch.Tensor:
        """dm/dx after `layer` at every position: float32 [T, d] on the CPU. One forward and one backward pass of the blocks behind.

        Block by block, with the trace's states in between, so that only one block's activations are held. `norms`: see `fixed_norms`.
        """
        vlm = self.trace.vlm
        with torch.enable_grad(), fixed_norms((*vlm.blocks, vlm.norm) if norms == "fixed" else ()):
            last = self.states(replay, self.trace.n_layers - 1).detach().requires_grad_()
            (above,) = torch.autograd.grad(self.at(last[:, self.row]).sum(), last)
            for index in reversed(range(layer + 1, self.trace.n_layers)):
                entering = replay.entering(index).detach().requires_grad_()
                leaving = replay.run(entering, layer=index, stop=index + 1)
                (above,) = torch.autograd.grad(leaving, entering, above.to(leaving))
        if not above.isfinite().all():
            raise InterpError(f"The gradients of {vlm.name} overflow in {self.trace.states.dtype}. Load the model in a wider dtype.")
        return above[0].float().cpu()
