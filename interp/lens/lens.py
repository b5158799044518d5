"""The one result of all lenses: which words are read at every layer and position.

A lens differs from another only in how it scores words from a state; that is its `Reader`. The trace keeps the states, so a lens can answer
later what its top words leave open: the score and rank of any word.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..files import write_text
from ..models.vlm import Vlm
from ..tracing.select import grid_of
from ..tracing.trace import Trace
from ..validation import as_whole, shown

LOWER = "Ask for fewer layers or positions, load the model with quantize='4bit', or choose a smaller model."
Method = Literal["logit", "tuned", "token", "embedding", "contextual"]
Buffers = tuple[torch.Tensor, torch.Tensor]
"""As `Unembed.buffers` returns."""
_READ_NEXT = ("logit", "tuned")
_SIMILARITIES = ("embedding", "contextual")


class Reader(Protocol):
    """How a lens scores words from states [N, d] of one layer. A score is a logit or a cosine similarity; the caller holds the model's lock."""

    def scores(self, vlm: Vlm, layer: int, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Scores of a few ids: float32 [N, ids]."""

    def chunks(self, vlm: Vlm, layer: int, states: torch.Tensor, buffers: Buffers) -> Iterator[tuple[slice, torch.Tensor]]:
        """Scores of the whole vocabulary slice by slice, as `Unembed.chunks`: padded to whole blocks, in a buffer that is soon overwritten."""


@dataclass(frozen=True)
class Lens:
    """The best words at every layer and position.

    Axis 0 follows `layers`, axis 1 `positions`; all tensors are on the CPU. Probabilities are a float32 softmax over the full vocabulary:
    intermediate scores, not calibrated beliefs. The embedding lens and the contextual lens have cosine similarities in their place.
    """

    trace: Trace
    layers: tuple[int, ...]
    """Layer numbers, `EMBED` (-1) for the input of block 0."""
    positions: tuple[int, ...]
    """Rows of the trace; row i predicts token i + 1."""
    ids: torch.Tensor
    """Token ids of the k best readings: int64 [layers, T, k]."""
    probs: torch.Tensor
    """Their scores, see `score_name`: float32 [layers, T, k]."""
    entropy: torch.Tensor | None
    """Entropy of the whole distribution, in nats: float32 [layers, T]. None for similarities, which are no distribution."""
    log_z: torch.Tensor | None
    """Log of the softmax denominator: float32 [layers, T]. None for similarities."""
    method: Method
    reader: Reader
    note: str = ""
    """What to know before trusting it, such as that it was trained on other weights."""

    @property
    def reads(self) -> Literal["next", "here"]:
        """Which token the words stand for: the one that comes next, or the one at the position itself."""
        return "next" if self.method in _READ_NEXT else "here"

    @property
    def score_name(self) -> Literal["probability", "cosine similarity"]:
        """What `probs` holds."""
        return "cosine similarity" if self.method in _SIMILARITIES else "probability"

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, without its trace."""
        return sum(tensor.nbytes for tensor in (self.ids, self.probs, self.entropy, self.log_z) if tensor is not None)

    @property
    def vocabulary(self) -> Sequence[str]:
        """The text of every id."""
        return self.trace.vlm.vocabulary.texts

    def texts(self, layer: int, position: int) -> list[str]:
        """The k best words at one layer and position."""
        row = self.ids[self._layer(layer), self._position(position)]
        return [self.vocabulary[i] for i in row.tolist()]

    def resolve(self, word: str, *, first_piece: bool = False) -> dict[str, int]:
        """The single-token spellings of a word (with and without leading space, as given and capitalised) and their ids.

        Raises InterpError for a word of several tokens, unless `first_piece`.
        """
        vlm = self.trace.vlm
        return vlm.vocabulary.resolve(word, vlm.tokenizer, first_piece=first_piece)

    def probability(self, word: str, *, first_piece: bool = False) -> torch.Tensor:
        """Probability of a word, summed over its single-token spellings; or the similarity of its best spelling: float32 [layers, T]."""
        ids = torch.tensor(list(self.resolve(word, first_piece=first_piece).values()))
        vlm = self.trace.vlm
        out = torch.empty(self.ids.shape[:2])

        def read(_less: int) -> None:
            for axis, layer, states in self._states():
                scores = self.reader.scores(vlm, layer, states, ids).cpu()
                out[axis] = scores.amax(-1) if self.log_z is None else (scores - self.log_z[axis, :, None]).exp().sum(-1).clamp(max=1)

        with vlm.lock, torch.no_grad():
            retry_on_oom(read, LOWER)
        return out

    def rank(self, word: str, *, first_piece: bool = False) -> torch.Tensor:
        """Rank of a word's best spelling in the full vocabulary, 0 for the best: int64 [layers, T]."""
        ids = torch.tensor(list(self.resolve(word, first_piece=first_piece).values()))
        vlm = self.trace.vlm
        out = torch.empty(self.ids.shape[:2], dtype=torch.int64)

        def read(less: int) -> None:
            buffers = vlm.unembed.buffers(self.ids.shape[1], less)
            for axis, layer, states in self._states():
                for rows, scores in self.reader.chunks(vlm, layer, states, buffers):
                    best = scores[:, ids].amax(-1, keepdim=True)
                    out[axis, rows] = (scores > best).sum(-1).cpu()

        with vlm.lock, torch.no_grad():
            retry_on_oom(read, LOWER)
        return out

    def first_layer(self) -> torch.Tensor:
        """For each position, the first of `layers` with the same top word as the last one: int64 [T], layer numbers."""
        same = self.ids[..., 0] == self.ids[-1, :, 0]
        return torch.tensor(self.layers)[same.int().argmax(0)]

    def grid(self, layer: int, grid: int = 0) -> list[list[tuple[str, float]]]:
        """Rows x cols of (best word, its score) over one patch grid."""
        axis = self._layer(layer)
        texts = self.vocabulary
        out = []
        for row in grid_of(self.trace, grid).positions.tolist():
            cells = [self._position(position) for position in row]
            out.append([(texts[int(self.ids[axis, cell, 0])], float(self.probs[axis, cell, 0])) for cell in cells])
        return out

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types. Version 2 of the schema has similarities for probabilities and no entropy."""
        trace, texts = self.trace, self.vocabulary
        return {
            "schema": f"llava-microscope/logit-lens/{1 if self.score_name == 'probability' else 2}",
            "method": self.method,
            "reads": self.reads,
            "score_name": self.score_name,
            "note": self.note,
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
            "entropy": None if self.entropy is None else [[round(value, 4) for value in row] for row in self.entropy.tolist()],
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` into a file."""
        write_text(path, lambda: json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False))

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the interactive view as one file that opens without a server. Needs a lens of all positions."""
        from ..web.payloads.lens import lens_payload  # noqa: PLC0415 - the view is not needed for numbers
        from ..web.standalone import standalone_html  # noqa: PLC0415

        write_text(path, lambda: standalone_html(lens_payload(self)))

    def _states(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        rows = torch.tensor(self.positions)
        for axis, layer in enumerate(self.layers):
            yield axis, layer, self.trace.residual(layer)[rows]

    def _layer(self, layer: int) -> int:
        number = as_whole(layer)
        if number not in self.layers:
            raise InterpError(f"This lens does not hold layer {shown(layer)}; it holds {', '.join(map(str, self.layers))}.")
        return self.layers.index(number)

    def _position(self, position: int) -> int:
        number = as_whole(position)
        if number not in self._rows:
            raise InterpError(f"This lens does not hold position {shown(position)}; ask for it in {self.method}_lens(..., positions=...).")
        return self._rows[number]

    @property
    def _rows(self) -> dict[int, int]:
        rows = self.__dict__.get("_row_of")
        if rows is None:
            rows = {position: row for row, position in enumerate(self.positions)}
            object.__setattr__(self, "_row_of", rows)
        return rows
