"""From residual states to the model's logits: the final norm, the head, and whatever the model does to logits after its head.

What follows the head (a soft cap, a scale) is found by comparison with the model's real logits, not read from the config: some classes have
the field and ignore it.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..devices import free_bytes
from ..errors import InterpError
from .hooks import Hooks
from .vocabulary import Vocabulary

BLOCK = 64
"""Buffers are padded to a multiple of this many columns, so that they can be reduced block by block."""
# Each product reads all of the head's weights, so few rows are inefficient; on a GPU it takes about a thousand rows to hide that.
_BUFFER_BYTES = {"cpu": 80 << 20, "cuda": 512 << 20}
_SLICE_ROWS = 32  # rows reduced together on a CPU: few enough to stay in its cache for several passes
_LOWEST = torch.finfo(torch.float32).min  # for columns that must never win; finite, because 0 * -inf is NaN
Finish = Callable[[torch.Tensor], torch.Tensor]


class Unembed:
    """The output side of one model. `finish` is what it does to its logits after the head, in place; see `find_finish`."""

    def __init__(self, norm: Any, head: Any, vocabulary: Vocabulary, finish: Finish) -> None:
        self._norm, self._head, self.finish = norm, head, finish
        self._vocabulary = len(vocabulary.texts)
        self.device: torch.device = head.weight.device  # the last one, where a model is spread over several
        self._norm_device: torch.device = next(norm.parameters()).device
        self._slice = _SLICE_ROWS if self.device.type == "cpu" else 1 << 30  # a GPU wants few large steps
        self._hidden = torch.tensor(vocabulary.undecodable, dtype=torch.long, device=self.device)
        self._hidden_blocks = self._hidden.div(BLOCK, rounding_mode="floor").unique()

    def buffers(self, states: int, less: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Two float32 buffers to reuse throughout: logits [rows, columns], and one slice [slice rows, columns] for working on them.

        Columns are the vocabulary padded to whole blocks. Rows: one for each of the most `states` that are read at once, or as many as the free
        memory allows, divided by `less`.
        """
        columns = -(-self._vocabulary // BLOCK) * BLOCK
        most = min(_BUFFER_BYTES[self.device.type], free_bytes(self.device) // 8) // (columns * 4)
        rows = max(1, min(states, most) // less)
        logits = torch.empty(rows, columns, device=self.device)
        logits[:, self._vocabulary :] = _LOWEST
        return logits, torch.empty(min(rows, self._slice), columns, device=self.device)

    def chunks(self, states: torch.Tensor, buffer: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits of `states` [N, d] slice by slice: (which rows, float32 [rows, columns]). The logits are views of `buffer`, soon overwritten."""
        for start in range(0, len(states), len(buffer)):
            logits = buffer[: min(len(buffer), len(states) - start)]
            self._write(states[start : start + len(logits)], logits[:, : self._vocabulary])
            for at in range(0, len(logits), self._slice):
                piece = logits[at : at + self._slice]
                yield slice(start + at, start + at + len(piece)), piece

    def _write(self, states: torch.Tensor, out: torch.Tensor) -> None:
        normed = self.normed(states)
        if type(self._head) is nn.Linear and self._head.bias is None and normed.dtype == out.dtype:
            torch.mm(normed, self._head.weight.T, out=out)  # the head's own product, without allocating for every chunk
        else:
            out.copy_(self._head(normed))
        self.finish(out)

    def normed(self, states: torch.Tensor) -> torch.Tensor:
        """What the final norm makes of states [N, d], on the head's device."""
        return self._norm(states.to(self._norm_device)).to(self.device)

    def some_logits(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits of a few ids: float32 [N, ids]."""
        return self._some_logits(self.normed(states), ids)

    def wide_logits(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """As `some_logits`, multiplied in float32: for differences of logits, which in 16 bit lose their last digits."""
        return self._some_logits(self.normed(states).float(), ids)

    def _some_logits(self, normed: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        ids, bias = ids.to(self.device), getattr(self._head, "bias", None)
        weight, bias = (None if part is None else part[ids].to(normed.dtype) for part in (self._head.weight, bias))
        return self.finish(nn.functional.linear(normed, weight, bias).float())  # type: ignore[arg-type]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of the whole vocabulary for a few states [N, d], through which gradients can flow: float32 [N, vocabulary]."""
        return self.finish(self._head(self.normed(states)).float())

    def hide_undecodable(self, logits: torch.Tensor, peaks: torch.Tensor) -> None:
        """Set the logits of ids that the tokenizer does not know below all others, in place, and update the peaks of their blocks."""
        if len(self._hidden):
            logits.index_fill_(1, self._hidden, _LOWEST)
            peaks[:, self._hidden_blocks] = logits.view(len(logits), -1, BLOCK)[:, self._hidden_blocks].amax(-1)


def block_peaks(logits: torch.Tensor) -> torch.Tensor:
    """The largest value of every block of columns: [rows, blocks]."""
    return logits.view(len(logits), -1, BLOCK).amax(-1)


def find_finish(model: Any, last_block: nn.Module, norm: Any, head: Any, ids: torch.Tensor) -> Finish:
    """What the model does to its logits after the head, found by running it on the text `ids` [1, T]. The caller holds the model's lock.

    Raises InterpError if no known arithmetic turns the head on the normed last state into the model's logits.
    """
    with torch.inference_mode(), Hooks() as hooks:
        (last,) = hooks.capture([last_block])
        real = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        plain = head(norm(last[0])).float().to(real)
    finishes = _finishes(model.config)
    differences = {name: (finish(plain.clone()) - real).abs().max().item() for name, finish in finishes.items()}
    best = min(differences, key=lambda name: differences[name])
    if not differences[best] <= 2e-2 * real.abs().max().item():
        raise InterpError(
            f"The logits of this {type(model).__name__} are not its head applied to its normed last state (closest match: {best}, "
            f"off by {differences[best]:.3g}), so a lens would not show what the model predicts. Undo what changes its logits."
        )
    return finishes[best]


def _soft_cap(cap: float, logits: torch.Tensor) -> torch.Tensor:
    if logits.requires_grad:  # the gradient of tanh needs its result unchanged
        return torch.tanh(logits / cap) * cap
    return logits.div_(cap).tanh_().mul_(cap)


def _finishes(config: Any) -> dict[str, Finish]:
    """Everything that any family does after its head, in place, with this config's constants; "plain" first, so that it wins ties."""
    text = config.get_text_config()
    finishes: dict[str, Finish] = {"plain": lambda logits: logits}
    if cap := getattr(text, "final_logit_softcapping", None):
        finishes["soft cap"] = functools.partial(_soft_cap, cap)
    if scale := getattr(text, "logit_scale", None):
        finishes["logit_scale"] = lambda logits: logits.mul_(scale)
    if scaling := getattr(text, "logits_scaling", None):
        finishes["logits_scaling"] = lambda logits: logits.div_(scaling)
    return finishes
