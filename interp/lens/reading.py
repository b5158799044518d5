"""What all lenses share: which layers and positions are asked for, and the best words of a row of scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..models.unembed import BLOCK
from ..models.vlm import Vlm
from ..tracing.trace import EMBED, Trace, checked_layer
from ..validation import index, instance, sequence, whole_number


@dataclass(frozen=True)
class Asked:
    """What a lens is asked to read."""

    trace: Trace
    top_k: int
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    every: bool
    """Whether these are all positions."""

    @property
    def vlm(self) -> Vlm:
        """The trace's model."""
        return self.trace.vlm

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, T)."""
        return len(self.layers), len(self.positions)

    def states(self, layer: int) -> torch.Tensor:
        """The states of one layer at the positions: [T, d]."""
        states = self.trace.residual(layer)
        return states if self.every else states[torch.tensor(self.positions)]


def asked(trace: Trace, top_k: int, layers: Sequence[int] | None, positions: Sequence[int] | None) -> Asked:
    """The arguments of a lens, checked. Raises InterpError for a `top_k` that the vocabulary lacks, and for what the trace lacks."""
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    listed = len(vlm.vocabulary.texts) - len(vlm.vocabulary.undecodable)
    top_k = whole_number("top_k", top_k, 1, listed, hint=f"the number of words {vlm.name} can say")
    chosen, rows = tuple(range(EMBED, trace.n_layers)), tuple(range(trace.length))
    if layers is not None:
        chosen = tuple(
            checked_layer(each, trace.model_name, trace.n_layers) for each in sequence("layers", layers, "layer numbers, at least one")
        )
    if positions is not None:
        there_are = f"the trace has {trace.length} positions, 0 to {trace.length - 1}"
        rows = tuple(
            index("Position", each, 0, trace.length - 1, there_are) for each in sequence("positions", positions, "positions, at least one")
        )
    return Asked(trace, top_k, chosen, rows, positions is None)


def affordable_layers(trace: Trace, tflop: float, also: Sequence[int] = ()) -> tuple[int, ...]:
    """Evenly spread layers that can be read at every position with `tflop` TFLOP.

    `EMBED`, the default layer, the last one and those in `also` are always included.

    One layer takes 2 x positions x width x vocabulary operations: 0.15 TFLOP for LLaVA-1.5 7B, 3 for LLaVA-NeXT 8B with its tiles.
    """
    vlm = trace.vlm
    last = trace.n_layers - 1
    one = 2e-12 * trace.length * vlm.d_model * len(vlm.vocabulary.texts)
    count = min(trace.n_layers + 1, max(2, int(tflop / one)))
    spread = torch.linspace(EMBED, last, count).round().int().tolist()
    return tuple(sorted({EMBED, *spread, *also, vlm.default_layer, last}))


def top_scores(scores: torch.Tensor, peaks: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact top k of rows whose columns fill whole blocks: values and columns; `peaks` as `block_peaks` returns.

    The k largest values are in the k blocks with the largest peaks, so only those are sorted.
    """
    if k >= peaks.shape[1]:
        values, columns = scores.topk(k)
        return values, columns
    blocks = peaks.topk(k).indices
    members = scores.view(len(scores), -1, BLOCK).gather(1, blocks[..., None].expand(-1, -1, BLOCK)).flatten(1)
    values, at = members.topk(k)
    return values, blocks.gather(1, at // BLOCK) * BLOCK + at % BLOCK
