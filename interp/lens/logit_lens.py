"""The logit lens: the model's own final norm and head on every layer of a trace (nostalgebraist 2020, "interpreting GPT: the logit lens").

Rows of (layer, position) are read in chunks through one pair of buffers, so layers x positions x vocabulary is never held at once.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..files import write_text
from ..models.unembed import BLOCK, block_peaks
from ..tracing.select import grid_of
from ..tracing.trace import EMBED, Trace, checked_layer
from ..validation import as_whole, index, instance, sequence, shown, whole_number

_LOWER = "Ask for fewer layers or positions, load the model with quantize='4bit', or choose a smaller model."


@dataclass(frozen=True)
class Lens:
    """The most probable words at every layer and position.

    Axis 0 follows `layers`, axis 1 `positions`; all tensors are on the CPU. Probabilities are a float32 softmax over the full vocabulary:
    intermediate scores, not calibrated beliefs.
    """

    trace: Trace
    layers: tuple[int, ...]
    """Layer numbers, `EMBED` (-1) for the input of block 0."""
    positions: tuple[int, ...]
    """Rows of the trace; row i predicts token i + 1."""
    ids: torch.Tensor
    """Token ids of the k most probable readings: int64 [layers, T, k]."""
    probs: torch.Tensor
    """Their probabilities: float32 [layers, T, k]."""
    entropy: torch.Tensor
    """Entropy of the whole distribution, in nats: float32 [layers, T]."""
    log_z: torch.Tensor
    """Log of the softmax denominator: float32 [layers, T]."""

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, without its trace."""
        return self.ids.nbytes + self.probs.nbytes + self.entropy.nbytes + self.log_z.nbytes

    def texts(self, layer: int, position: int) -> list[str]:
        """The k most probable words at one layer and position."""
        row = self.ids[self._layer(layer), self._position(position)]
        return [self.trace.vlm.vocabulary.texts[i] for i in row.tolist()]

    def resolve(self, word: str, *, first_piece: bool = False) -> dict[str, int]:
        """The single-token spellings of a word (with and without leading space, as given and capitalised) and their ids.

        Raises InterpError for a word of several tokens, unless `first_piece`.
        """
        vlm = self.trace.vlm
        return vlm.vocabulary.resolve(word, vlm.tokenizer, first_piece=first_piece)

    def probability(self, word: str, *, first_piece: bool = False) -> torch.Tensor:
        """Probability of a word, summed over its single-token spellings: float32 [layers, T]."""
        ids = torch.tensor(list(self.resolve(word, first_piece=first_piece).values()))
        unembed = self.trace.vlm.unembed
        out = torch.empty(self.log_z.shape)

        def read(_less: int) -> None:
            for axis, states in self._states():
                out[axis] = (unembed.some_logits(states, ids).cpu() - self.log_z[axis, :, None]).exp().sum(-1)

        with self.trace.vlm.lock, torch.no_grad():
            retry_on_oom(read, _LOWER)
        return out

    def rank(self, word: str, *, first_piece: bool = False) -> torch.Tensor:
        """Rank of a word's best spelling in the full vocabulary, 0 for the most probable: int64 [layers, T]."""
        ids = torch.tensor(list(self.resolve(word, first_piece=first_piece).values()))
        unembed = self.trace.vlm.unembed
        out = torch.empty(self.log_z.shape, dtype=torch.int64)

        def read(less: int) -> None:
            buffers = unembed.buffers(less)
            for axis, states in self._states():
                for rows, logits in unembed.chunks(states, buffers[0]):
                    best = logits[:, ids].amax(-1, keepdim=True)
                    out[axis, rows] = (logits > best).sum(-1).cpu()

        with self.trace.vlm.lock, torch.no_grad():
            retry_on_oom(read, _LOWER)
        return out

    def first_layer(self) -> torch.Tensor:
        """For each position, the first of `layers` with the same top word as the last one: int64 [T], layer numbers."""
        same = self.ids[..., 0] == self.ids[-1, :, 0]
        return torch.tensor(self.layers)[same.int().argmax(0)]

    def grid(self, layer: int, grid: int = 0) -> list[list[tuple[str, float]]]:
        """Rows x cols of (most probable word, probability) over one patch grid."""
        axis = self._layer(layer)
        texts = self.trace.vlm.vocabulary.texts
        out = []
        for row in grid_of(self.trace, grid).positions.tolist():
            cells = [self._position(position) for position in row]
            out.append([(texts[int(self.ids[axis, cell, 0])], float(self.probs[axis, cell, 0])) for cell in cells])
        return out

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        trace, texts = self.trace, self.trace.vlm.vocabulary.texts
        return {
            "schema": "llava-microscope/logit-lens/1",
            "model": trace.model_name,
            "prompt": trace.prompt,
            "answer": trace.answer,
            "finished": trace.finished,
            "notes": list(trace.notes),
            "layers": list(self.layers),
            "positions": list(self.positions),
            "tokens": [{"id": token.id, "text": token.text, "kind": token.kind} for token in trace.tokens],
            "grids": [
                {"name": grid.name, "positions": grid.positions.tolist(), "boxes": grid.boxes.round(decimals=2).tolist()}
                for grid in trace.grids
            ],
            "regions": [{"name": region.name, "positions": region.positions.tolist(), "box": list(region.box)} for region in trace.regions],
            "vocabulary": {str(i): texts[i] for i in sorted(set(self.ids.flatten().tolist()))},
            "ids": self.ids.tolist(),
            "probs": [[[float(f"{p:.4g}") for p in row] for row in rows] for rows in self.probs.tolist()],
            "entropy": [[round(value, 4) for value in row] for row in self.entropy.tolist()],
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` into a file."""
        write_text(path, lambda: json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False))

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the interactive view as one file that opens without a server. Needs a lens of all positions."""
        from ..web.payloads.lens import lens_payload  # noqa: PLC0415 - the view is not needed for numbers
        from ..web.standalone import standalone_html  # noqa: PLC0415

        write_text(path, lambda: standalone_html(lens_payload(self)))

    def _states(self) -> Iterator[tuple[int, torch.Tensor]]:
        rows = torch.tensor(self.positions)
        for axis, layer in enumerate(self.layers):
            yield axis, self.trace.residual(layer)[rows]

    def _layer(self, layer: int) -> int:
        number = as_whole(layer)
        if number not in self.layers:
            raise InterpError(f"This lens does not hold layer {shown(layer)}; it holds {', '.join(map(str, self.layers))}.")
        return self.layers.index(number)

    def _position(self, position: int) -> int:
        number = as_whole(position)
        if number not in self._rows:
            raise InterpError(f"This lens does not hold position {shown(position)}; ask for it in logit_lens(..., positions=...).")
        return self._rows[number]

    @property
    def _rows(self) -> dict[int, int]:
        rows = self.__dict__.get("_row_of")
        if rows is None:
            rows = {position: row for row, position in enumerate(self.positions)}
            object.__setattr__(self, "_row_of", rows)
        return rows


def logit_lens(trace: Trace, top_k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None) -> Lens:
    """Read every layer (or `layers`) at every position (or `positions`) with the model's own final norm and head.

    The last layer equals the model's own logits. Ids that the tokenizer cannot decode are never listed, but stay in the denominator.

    Raises InterpError for a `top_k` below 1 or above the vocabulary, and for layers or positions that do not exist.
    """
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    unembed = vlm.unembed
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
    some = None if positions is None else torch.tensor(rows)
    with vlm.lock, torch.no_grad():
        read = retry_on_oom(lambda less: _read(trace, chosen, some, top_k, unembed.buffers(less)), _LOWER)
    return Lens(trace, chosen, rows, *read)


def affordable_layers(trace: Trace, tflop: float) -> tuple[int, ...]:
    """Evenly spread layers that can be read at every position with `tflop` TFLOP; `EMBED`, the default and the last layer are always included.

    One layer takes 2 x positions x width x vocabulary operations: 0.15 TFLOP for LLaVA-1.5 7B, 3 for LLaVA-NeXT 8B with its tiles.
    """
    vlm = trace.vlm
    last = trace.n_layers - 1
    one = 2e-12 * trace.length * vlm.d_model * len(vlm.vocabulary.texts)
    count = min(trace.n_layers + 1, max(2, int(tflop / one)))
    spread = torch.linspace(EMBED, last, count).round().int().tolist()
    return tuple(sorted({EMBED, *spread, vlm.default_layer, last}))


def _read(
    trace: Trace, layers: Sequence[int], index: torch.Tensor | None, top_k: int, buffers: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, probs, entropy, log_z) of a `Lens`; `index`: its positions, None for all."""
    unembed, (logits_buffer, weights_buffer) = trace.vlm.unembed, buffers
    shape = (len(layers), trace.states.shape[1] if index is None else len(index))
    ids = torch.empty(*shape, top_k, dtype=torch.int64, device=unembed.device)
    probs = torch.empty(*shape, top_k, device=unembed.device)
    entropy, log_z = torch.empty(shape, device=unembed.device), torch.empty(shape, device=unembed.device)
    for axis, layer in enumerate(layers):
        states = trace.residual(layer) if index is None else trace.residual(layer)[index]
        for at, logits in unembed.chunks(states, logits_buffer):
            peaks = block_peaks(logits)
            peak = peaks.amax(-1, keepdim=True)
            weights = torch.sub(logits, peak, out=weights_buffer[: len(logits)]).exp_()
            total = weights.sum(-1)
            z = peak[:, 0] + total.log()
            # H = -sum p log p = log z - sum p x: no second pass for log p.
            entropy[axis, at] = (z - torch.linalg.vecdot(weights, logits) / total).clamp(min=0)
            log_z[axis, at] = z
            unembed.hide_undecodable(logits, peaks)
            values, found = _top_k(logits, peaks, top_k)
            ids[axis, at] = found
            probs[axis, at] = (values - z[:, None]).exp()
    return ids.cpu(), probs.cpu(), entropy.cpu(), log_z.cpu()


def _top_k(logits: torch.Tensor, peaks: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact top k: values and columns. The k largest values are in the k blocks with the largest peaks, so only those are sorted."""
    if k >= peaks.shape[1]:
        values, columns = logits.topk(k)
        return values, columns
    blocks = peaks.topk(k).indices
    members = logits.view(len(logits), -1, BLOCK).gather(1, blocks[..., None].expand(-1, -1, BLOCK)).flatten(1)
    values, at = members.topk(k)
    return values, blocks.gather(1, at // BLOCK) * BLOCK + at % BLOCK
