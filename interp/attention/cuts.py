"""Attention cut: rows that may not read some positions, in some layers and heads (Geva et al. 2023, "Dissecting Recall of Factual Associations").

A cut entry leaves the softmax; the row's other weights grow in its place. Many cuts are rows of one batch, and only what they change is run
again: from the first layer they act in, from the first position they reach.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.attend import Heads, Mask
from ..steering.generation import rows_at_once
from ..tracing.replay import Replay
from ..tracing.trace import Trace

_TOKENS = 512  # positions of a batch, if one of its rows does not have more: few cuts that differ in where they begin, yet large products
_LOWER = "Load the model with quantize='4bit', take a smaller picture, or choose a smaller model."


@dataclass(frozen=True)
class Cut:
    """Which rows may not read which positions. Entries that the model does not read anyway may be among them."""

    rows: tuple[int, ...]
    positions: tuple[int, ...]
    layers: frozenset[int]
    heads: tuple[int, ...] | None = None
    """None: all."""


def cut_off(cuts: Sequence[Cut], trace: Trace) -> Mask:
    """A mask for `attending`: row i of the batch under `cuts[i]`, in prompts and in decode steps alike, since positions are absolute.

    Raises InterpError, during the run, for a row that would have nothing left to read.
    """
    kinds = {(cut.rows, cut.positions, cut.heads): 0 for cut in cuts}
    kinds = {kind: number for number, kind in enumerate(kinds, 1)}
    numbers = [kinds[cut.rows, cut.positions, cut.heads] for cut in cuts]
    by_head = any(cut.heads is not None for cut in cuts)

    @functools.lru_cache(maxsize=4)  # one for each device: in a decode step the last one's is of no use any more
    def allowed(first: int, heads: int, queries: int, keys: int, device: torch.device) -> torch.Tensor:
        """What each kind of cut leaves: [1 + kinds, 1 or heads, queries, keys]; the first cuts nothing."""
        table = torch.ones(1 + len(kinds), heads if by_head else 1, queries, keys, dtype=torch.bool)
        for (rows, positions, some), number in kinds.items():
            of_kind = table[number] if some is None else table[number, list(some)]
            inside = torch.tensor([row - first for row in rows if first <= row < first + queries], dtype=torch.long)
            gone = torch.tensor([position for position in positions if position < keys], dtype=torch.long)
            of_kind[:, inside[:, None], gone] = False
            if some is not None:
                table[number, list(some)] = of_kind
        return table.to(device)

    def mask(heads: Heads) -> torch.Tensor | None:
        which = [number if heads.layer in cut.layers else 0 for number, cut in zip(numbers, cuts, strict=True)]
        if not any(which):
            return None
        _, count, queries, _ = heads.query.shape
        table = allowed(heads.first, count, queries, heads.key.shape[2], heads.query.device)
        out = heads.visible() & table[torch.tensor(which, device=table.device)]
        if blind := (~out.any(-1)).nonzero().tolist():
            raise _nothing_left(trace, heads.first + blind[0][2], heads.layer)
        return out

    return mask


def cut_states(replay: Replay, cuts: Sequence[Cut], rows: Sequence[int]) -> tuple[torch.Tensor, int]:
    """The last layer's states at `rows` before the final norm, under each cut, and in how many batches they were computed.

    [cuts, rows, d] in the model's dtype on the CPU. The answer is that of the trace (teacher forcing). A cut that cuts nothing is not run:
    its states are the trace's own.
    """
    trace = replay.trace
    plain = trace.residual(trace.n_layers - 1)[list(rows)]
    starts = {row: replay.first_changed(row) for row in {min(cut.rows) for cut in cuts if _cuts_something(cut)}}
    order = sorted(
        (starts[min(cut.rows)], min(cut.layers), number) for number, cut in enumerate(cuts) if _cuts_something(cut)
    )  # neighbours share most of what they need

    def run(less: int) -> tuple[torch.Tensor, int]:
        out, count = plain.repeat(len(cuts), 1, 1), 0
        for start, layer, numbers in _batches(order, replay, less):
            count += 1
            chosen = [cuts[number] for number in numbers]
            hidden = replay.entering(layer, start).expand(len(chosen), -1, -1)
            states = replay.run(hidden, layer=layer, start=start, mask=cut_off(chosen, trace))
            reached = [at for at, row in enumerate(rows) if row >= start]
            changed = states[:, [rows[at] - start for at in reached]].to(out)
            out[torch.tensor(numbers)[:, None], reached] = changed
        return out, count

    with trace.vlm.lock, torch.no_grad():
        return retry_on_oom(run, _LOWER)


def readable(replay: Replay, layer: int) -> torch.Tensor:
    """Which positions each row reads in a layer: bool [T, T] on the CPU."""
    mask, length = replay.masks[layer], replay.trace.length
    return torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask[0, 0].cpu()


def with_attention(replay: Replay) -> list[int]:
    """The layers that have attention."""
    return [layer for layer in range(replay.trace.n_layers) if layer not in replay.without_attention]


def _cuts_something(cut: Cut) -> bool:
    return bool(cut.rows and cut.positions and cut.layers)


def _batches(order: Iterable[tuple[int, int, int]], replay: Replay, less: int) -> Iterator[tuple[int, int, list[int]]]:
    """Batches of cuts, from (start, layer, number) of each in order: (start, layer, numbers)."""
    vlm, length = replay.trace.vlm, replay.trace.length
    batch: list[tuple[int, int, int]] = []
    most = 0
    for each in order:
        if len(batch) == most:
            if batch:
                yield _joined(batch)
            batch, positions = [], length - each[0]
            most = max(1, min(rows_at_once(vlm, positions), _TOKENS // positions) // less)
        batch.append(each)
    if batch:
        yield _joined(batch)


def _joined(batch: list[tuple[int, int, int]]) -> tuple[int, int, list[int]]:
    return batch[0][0], min(layer for _, layer, _ in batch), [number for *_, number in batch]


def _nothing_left(trace: Trace, row: int, layer: int) -> InterpError:
    text = repr(trace.tokens[row].text) if row < trace.length else "which the answer reached"
    return InterpError(
        f"The sources are everything that row {row} ({text}) can read in layer {layer}, itself included, so its attention would be empty. "
        "Choose fewer sources, or other targets or layers."
    )
