"""The logit lens: the model's own final norm and head on every layer of a trace (nostalgebraist 2020, "interpreting GPT: the logit lens").

Rows of (layer, position) are read in chunks through one pair of buffers, so layers x positions x vocabulary is never held at once. Lenses
that move the states first (see `translators.py`) are read by the same code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..devices import retry_on_oom
from ..models.unembed import block_peaks
from ..models.vlm import Vlm
from ..tracing.trace import Trace
from .lens import LOWER, Buffers, Lens, Method, Reader
from .reading import Asked, asked, top_scores


@dataclass(frozen=True)
class HeadReader:
    """Logits of the model's own norm and head."""

    def scores(self, vlm: Vlm, layer: int, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """See `Reader`."""
        return vlm.unembed.some_logits(self.moved(layer, states), ids)

    def chunks(self, vlm: Vlm, layer: int, states: torch.Tensor, buffers: Buffers) -> Iterator[tuple[slice, torch.Tensor]]:
        """See `Reader`."""
        return vlm.unembed.chunks(self.moved(layer, states), buffers[0])

    def moved(self, layer: int, states: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - a trained lens moves each layer differently
        """What the norm gets in place of the states of a layer."""
        return states


def logit_lens(trace: Trace, top_k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None) -> Lens:
    """Read every layer (or `layers`) at every position (or `positions`) with the model's own final norm and head.

    The last layer equals the model's own logits. Ids that the tokenizer cannot decode are never listed, but stay in the denominator.

    Raises InterpError for a `top_k` below 1 or above the vocabulary, and for layers or positions that do not exist.
    """
    return read_distributions(asked(trace, top_k, layers, positions), "logit", HeadReader())


def read_distributions(want: Asked, method: Method, reader: Reader, note: str = "") -> Lens:
    """A lens of probabilities: the softmax of what `reader` scores."""
    vlm = want.vlm
    with vlm.lock, torch.no_grad():
        read = retry_on_oom(lambda less: _read(want, reader, vlm.unembed.buffers(want.shape[1], less)), LOWER)
    return Lens(want.trace, want.layers, want.positions, *read, method, reader, note)


def _read(want: Asked, reader: Reader, buffers: Buffers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, probs, entropy, log_z) of a `Lens`."""
    vlm, device = want.vlm, want.vlm.unembed.device
    ids = torch.empty(*want.shape, want.top_k, dtype=torch.int64, device=device)
    probs = torch.empty(*want.shape, want.top_k, device=device)
    entropy, log_z = torch.empty(want.shape, device=device), torch.empty(want.shape, device=device)
    for axis, layer in enumerate(want.layers):
        for at, logits in reader.chunks(vlm, layer, want.states(layer), buffers):
            peaks = block_peaks(logits)
            peak = peaks.amax(-1, keepdim=True)
            weights = torch.sub(logits, peak, out=buffers[1][: len(logits)]).exp_()
            total = weights.sum(-1)
            z = peak[:, 0] + total.log()
            # H = -sum p log p = log z - sum p x: no second pass for log p.
            entropy[axis, at] = (z - torch.linalg.vecdot(weights, logits) / total).clamp(min=0)
            log_z[axis, at] = z
            vlm.unembed.hide_undecodable(logits, peaks)
            values, found = top_scores(logits, peaks, want.top_k)
            ids[axis, at] = found
            probs[axis, at] = (values - z[:, None]).exp().clamp(max=1)  # rounding takes a certain word past 1
    return ids.cpu(), probs.cpu(), entropy.cpu(), log_z.cpu()
