"""The embedding lens: which words of the input embedding matrix a state points at.

It asks what stands at a position in the language of the decoder's input, where the logit lens asks what comes next in that of its output.
Projected patches are known to be near the input embeddings of what they show in some models and far from all words in others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.unembed import block_peaks
from ..models.vlm import Vlm
from ..tracing.trace import Trace
from .lens import LOWER, Buffers, Lens
from .reading import Asked, asked, top_scores

_STEP = 4096  # embedding rows that are converted to float32 together
_LEAST = 1e-12  # length of an embedding row below which it counts as zero, as in `normalize`


@dataclass(frozen=True)
class CosineReader:
    """Cosine similarities with the rows of the input embeddings. A family's scale factor for embeddings changes no cosine."""

    inverse_lengths: torch.Tensor
    """1 / length of each row: float32 [vocabulary], on the CPU."""

    @classmethod
    def of(cls, vlm: Vlm) -> "CosineReader":
        """Raises InterpError for a model whose input embeddings lack some of its output words."""
        rows, words = vlm.model.get_input_embeddings().weight.shape[0], len(vlm.vocabulary.texts)
        if rows < words:
            raise InterpError(f"{vlm.name} has {words} words and {rows} input embeddings, so no embedding lens; use another lens.")
        lengths = torch.cat([block.norm(dim=-1) for _, block in _blocks(vlm)])
        return cls(lengths.clamp(min=_LEAST).reciprocal().cpu())

    def scores(self, vlm: Vlm, layer: int, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - see `Reader`
        """See `Reader`."""
        weight = vlm.model.get_input_embeddings().weight
        rows = weight[ids.to(weight.device)].float().cpu() * self.inverse_lengths[ids, None]
        return normalize(states.float(), dim=-1) @ rows.T

    def chunks(self, vlm: Vlm, layer: int, states: torch.Tensor, buffers: Buffers) -> Iterator[tuple[slice, torch.Tensor]]:  # noqa: ARG002
        """See `Reader`."""
        buffer, words = buffers[0], len(self.inverse_lengths)
        states, scale = normalize(states.to(buffer), dim=-1), self.inverse_lengths.to(buffer.device)
        for start in range(0, len(states), len(buffer)):
            part = states[start : start + len(buffer)]
            out = buffer[: len(part)]
            for columns, block in _blocks(vlm):
                torch.mm(part, block.to(buffer.device).T, out=out[:, columns])
            for at in range(0, len(part), len(buffers[1])):
                piece = out[at : at + len(buffers[1])]
                piece[:, :words] *= scale
                yield slice(start + at, start + at + len(piece)), piece


def embedding_lens(trace: Trace, top_k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None) -> Lens:
    """The words whose input embeddings have the largest cosine similarity with the states, at every layer and position (or some).

    It needs no training. Ids that the tokenizer cannot decode are never listed.

    Raises InterpError for a `top_k` below 1 or above the vocabulary, and for layers or positions that do not exist.
    """
    want = asked(trace, top_k, layers, positions)
    with want.vlm.lock, torch.no_grad():
        reader = CosineReader.of(want.vlm)
        ids, scores = retry_on_oom(lambda less: _read(want, reader, want.vlm.unembed.buffers(want.shape[1], less)), LOWER)
    return Lens(want.trace, want.layers, want.positions, ids, scores, None, None, "embedding", reader)


def _read(want: Asked, reader: CosineReader, buffers: Buffers) -> tuple[torch.Tensor, torch.Tensor]:
    unembed = want.vlm.unembed
    ids = torch.empty(*want.shape, want.top_k, dtype=torch.int64, device=unembed.device)
    best = torch.empty(*want.shape, want.top_k, device=unembed.device)
    for axis, layer in enumerate(want.layers):
        for at, scores in reader.chunks(want.vlm, layer, want.states(layer), buffers):
            peaks = block_peaks(scores)
            unembed.hide_undecodable(scores, peaks)
            best[axis, at], ids[axis, at] = top_scores(scores, peaks, want.top_k)
    return ids.cpu(), best.cpu()


def _blocks(vlm: Vlm) -> Iterator[tuple[slice, torch.Tensor]]:
    """The embedding rows of the vocabulary as float32, in blocks where they must be converted: (columns, rows)."""
    words, weight = len(vlm.vocabulary.texts), vlm.model.get_input_embeddings().weight.detach()
    step = words if weight.dtype == torch.float32 else _STEP
    for start in range(0, words, step):
        yield slice(start, min(start + step, words)), weight[start : min(start + step, words)].float()
