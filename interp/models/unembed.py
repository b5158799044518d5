"""From a residual state to the model's logits: the final norm, the head, and whatever the model does to logits after its head.

What comes after the head (a soft cap, a scale) is decided by comparison with the model's real logits, never by a config field alone: some
classes carry the field and ignore it. Knows rows of states, not layers or pictures.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..devices import free_bytes
from ..errors import InterpError
from .hooks import Hooks

if TYPE_CHECKING:
    from .vlm import Vlm

BLOCK = 64
"""Buffers are padded to a multiple of so many columns, so that they can be looked at block by block."""
# A product of fewer rows is slower, for the head's weights are read anew for each: on a GPU a thousand rows of a large vocabulary hide that.
_BUFFER_BYTES = {"cpu": 80 << 20, "cuda": 512 << 20}
_SLICE_ROWS = 32  # rows that are looked at together: what fits a processor's cache is read several times for free
_LOWEST = torch.finfo(torch.float32).min  # for columns that must never win; finite, for 0 x -inf is not a number
Finish = Callable[[torch.Tensor], torch.Tensor]


class Unembed:
    """The output side of one model."""

    def __init__(self, vlm: "Vlm") -> None:
        self._norm: Any = vlm.norm
        self._head: Any = vlm.head
        self._vocabulary = len(vlm.vocabulary.texts)
        self.device: torch.device = vlm.head.weight.device  # a model that is spread over several has its head on the last
        self._norm_device: torch.device = next(vlm.norm.parameters()).device
        self._slice = _SLICE_ROWS if self.device.type == "cpu" else 1 << 30  # a GPU wants few large steps
        self._hidden = torch.tensor(vlm.vocabulary.undecodable, dtype=torch.long, device=self.device)
        self._hidden_blocks = self._hidden.div(BLOCK, rounding_mode="floor").unique()
        self._finish = _find_finish(vlm)

    def buffers(self, less: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Two float32 buffers, reused throughout: logits [rows, columns] and as many columns for one slice of them.

        Rows by the memory that is free, `less` times fewer; columns are the vocabulary, padded to whole blocks.
        """
        columns = -(-self._vocabulary // BLOCK) * BLOCK
        rows = max(1, min(_BUFFER_BYTES[self.device.type], free_bytes(self.device) // 8) // (columns * 4 * less))
        logits = torch.empty(rows, columns, device=self.device)
        logits[:, self._vocabulary :] = _LOWEST
        return logits, torch.empty(min(rows, self._slice), columns, device=self.device)

    def chunks(self, states: torch.Tensor, buffer: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits of all rows of `states` [N, d], slice by slice: (which rows, float32 [rows, columns] that lie in `buffer`)."""
        for start in range(0, len(states), len(buffer)):
            logits = buffer[: min(len(buffer), len(states) - start)]
            self._write(states[start : start + len(logits)], logits[:, : self._vocabulary])
            for at in range(0, len(logits), self._slice):
                piece = logits[at : at + self._slice]
                yield slice(start + at, start + at + len(piece)), piece

    def _write(self, states: torch.Tensor, out: torch.Tensor) -> None:
        normed = self._normed(states)
        if type(self._head) is nn.Linear and self._head.bias is None and normed.dtype == out.dtype:
            torch.mm(normed, self._head.weight.T, out=out)  # the head's own product, without a new tensor for every chunk
        else:
            out.copy_(self._head(normed))
        self._finish(out)

    def _normed(self, states: torch.Tensor) -> torch.Tensor:
        return self._norm(states.to(self._norm_device)).to(self.device)

    def some_logits(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits of a few ids only: float32 [N, ids]."""
        normed, ids = self._normed(states), ids.to(self.device)
        bias = getattr(self._head, "bias", None)
        logits = nn.functional.linear(normed, self._head.weight[ids], None if bias is None else bias[ids])
        return self._finish(logits.float())

    def hide_undecodable(self, logits: torch.Tensor, peaks: torch.Tensor) -> None:
        """Set ids that the tokenizer does not know below all others, in place, and the peaks of their blocks anew."""
        if len(self._hidden):
            logits.index_fill_(1, self._hidden, _LOWEST)
            peaks[:, self._hidden_blocks] = logits.view(len(logits), -1, BLOCK)[:, self._hidden_blocks].amax(-1)


def block_peaks(logits: torch.Tensor) -> torch.Tensor:
    """The largest value of every block of columns: [rows, blocks]."""
    return logits.view(len(logits), -1, BLOCK).amax(-1)


def _find_finish(vlm: "Vlm") -> Finish:
    """What the model does to its logits after the head, found by running it on a few words of text."""
    ids = vlm.tokenizer("The cat sat on the mat.", return_tensors="pt").input_ids.to(vlm.model.device)
    with vlm.lock, torch.inference_mode(), Hooks() as hooks:  # the lock first: another thread's run must not be caught
        (last,) = hooks.capture([vlm.blocks[-1]])
        real = vlm.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        plain = vlm.head(vlm.norm(last[0])).float().to(real)
    differences = {name: (finish(plain.clone()) - real).abs().max().item() for name, finish in _finishes(vlm.model.config).items()}
    best = min(differences, key=lambda name: differences[name])
    if not differences[best] <= 2e-2 * real.abs().max().item():
        raise InterpError(
            f"The logits of {vlm.name!r} are not its head on its normed last state (nearest try: {best}, off by {differences[best]:.3g}); "
            f"a lens would show something else than the model says."
        )
    return _finishes(vlm.model.config)[best]


def _finishes(config: Any) -> dict[str, Finish]:
    """Every arithmetic that some family does after its head, in place, with this config's own constants; "plain" first."""
    text = config.get_text_config()
    finishes: dict[str, Finish] = {"plain": lambda logits: logits}
    if cap := getattr(text, "final_logit_softcapping", None):
        finishes["soft cap"] = lambda logits: logits.div_(cap).tanh_().mul_(cap)
    if scale := getattr(text, "logit_scale", None):
        finishes["logit_scale"] = lambda logits: logits.mul_(scale)
    if scaling := getattr(text, "logits_scaling", None):
        finishes["logits_scaling"] = lambda logits: logits.div_(scaling)
    return finishes
