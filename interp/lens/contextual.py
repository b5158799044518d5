"""The contextual lens: which words, in which sentences, the same decoder's states resemble (LatentLens, Krojer et al. 2026, arXiv 2602.00462).

A state is compared by cosine with the states of text at several layers at once, since what a patch holds at one layer may resemble what a
word holds at another. The search is exact: it gives what comparing with every entry in float32 gives.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..devices import retry_on_oom
from ..models.vlm import Vlm
from ..tracing.trace import Trace
from ..validation import flag, instance, whole_number
from .context_index import Context, ContextualIndex
from .lens import LOWER, Buffers, Lens
from .nearest import PAIRS, nearest_words, unit, wide_products
from .reading import asked


class Neighbour(NamedTuple):
    """One entry of an index, as a reading."""

    context: Context
    layer: int
    """The layer of the text's state, which need not be that of the state it resembles."""
    similarity: float


@dataclass(frozen=True)
class ContextReader:
    """See `Reader`. Ids are those of the vocabulary where a word is a single token, and follow it where a word has several pieces."""

    index: ContextualIndex
    ids: torch.Tensor
    """The id of each word of the index: int64 [words], on the CPU."""
    texts: tuple[str, ...]
    """The text of every id: the vocabulary's, and then those of words of several pieces."""

    @classmethod
    def of(cls, vlm: Vlm, index: ContextualIndex) -> "ContextReader":
        """The words of the index as ids: of the spelling with a leading space, if the vocabulary has it."""
        known, ids = vlm.vocabulary.texts, list[int]()
        more: list[str] = []
        number = {piece: i for i, piece in enumerate(known)}
        for word in index.words:
            spellings = (f" {word}", word, f" {word.capitalize()}", word.capitalize(), f" {word.upper()}")
            found = next((number[spelling] for spelling in spellings if spelling in number), None)
            ids.append(len(known) + len(more) if found is None else found)
            more += [f" {word}"] if found is None else []
        return cls(index, torch.tensor(ids), (*known, *more))

    def scores(self, vlm: Vlm, layer: int, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - see `Reader`
        """See `Reader`: the similarity of a word's best entry."""
        queries, out = unit(states, self.index), []
        for number in ids.tolist():
            entries = torch.isin(self.index.word_of, (self.ids == number).nonzero().flatten().to(self.index.word_of)).nonzero().flatten()
            out.append((queries @ self.index.vectors[entries].float().T).amax(-1))
        return torch.stack(out, dim=-1)

    def chunks(self, vlm: Vlm, layer: int, states: torch.Tensor, buffers: Buffers) -> Iterator[tuple[slice, torch.Tensor]]:  # noqa: ARG002
        """See `Reader`: the similarity of every word's best entry, and -1 for tokens that no entry is of."""
        queries, columns = unit(states, self.index), self.ids.to(self.index.vectors.device)[self.index.word_of]
        rows = max(1, min(len(buffers[0]), PAIRS // (len(self.texts) + len(columns))))
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows]
            scores = part.new_full((len(part), len(self.texts)), -1.0)
            for at, similarities in wide_products(part, self.index.vectors):
                scores.scatter_reduce_(1, columns[at].expand(len(part), -1), similarities, "amax")
            yield slice(start, start + len(part)), scores


@dataclass(frozen=True, kw_only=True)
class ContextualLens(Lens):
    """A `Lens` whose words were found in sentences. `ids` beyond the vocabulary stand for words of several pieces."""

    reader: ContextReader
    neighbours: torch.Tensor
    """The best entry of each word, as a row of `index`: int64 [layers, T, k]."""

    @property
    def index(self) -> ContextualIndex:
        """What was searched."""
        return self.reader.index

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The text of every id."""
        return self.reader.texts

    def resolve(self, word: str, *, first_piece: bool = False) -> dict[str, int]:
        """The id of a word of the index, however it is capitalised. Raises InterpError for a word that the index lacks.

        Words of several pieces are whole here, so `first_piece` changes nothing.
        """
        flag("first_piece", first_piece)
        entry = int(self.index.entries(word)[0])
        number = int(self.reader.ids[int(self.index.word_of[entry])])
        return {self.vocabulary[number]: number}

    def context(self, layer: int, position: int, rank: int = 0) -> Neighbour:
        """Where the word of a rank (0 for the best) was read: the sentence around it, the layer of the text, and the similarity."""
        axis, row = self._layer(layer), self._position(position)
        rank = whole_number("rank", rank, 0, self.neighbours.shape[-1] - 1, hint="one of the words that this lens lists")
        entry = int(self.neighbours[axis, row, rank])
        context = self.index.contexts[int(self.index.places[entry])]
        return Neighbour(context, int(self.index.layers[entry]), float(self.probs[axis, row, rank]))

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, without its trace and index."""
        return super().nbytes + self.neighbours.nbytes


def contextual_lens(
    trace: Trace, index: ContextualIndex, top_k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None
) -> ContextualLens:
    """The words whose states in text have the largest cosine similarity with the states of a trace, at every layer and position (or some).

    `index` comes from `load_index` or `build_index`. All layers of its text are searched together. A word is listed once, with its nearest
    context, which `ContextualLens.context` gives.

    Raises InterpError for an index of another model, a `top_k` above its number of words, and layers or positions that do not exist.
    """
    instance("index", index, ContextualIndex, "an index of contexts, as interp.load_index(...) returns")
    want = asked(trace, 1, layers, positions)
    top_k = whole_number("top_k", top_k, 1, len(index.words), hint="the number of words in this index")
    entries = torch.empty(*want.shape, top_k, dtype=torch.int64)
    similarities = torch.empty(*want.shape, top_k)

    def read(less: int) -> None:
        for axis, layer in enumerate(want.layers):
            entries[axis], similarities[axis] = nearest_words(unit(want.states(layer), index), index, top_k, less=less)

    with want.vlm.lock, torch.inference_mode():
        note = index.check(want.vlm)
        reader = ContextReader.of(want.vlm, index)
        retry_on_oom(read, LOWER)
    ids = reader.ids[index.word_of.cpu()[entries]]
    return ContextualLens(
        trace=want.trace,
        layers=want.layers,
        positions=want.positions,
        ids=ids,
        probs=similarities,
        entropy=None,
        log_z=None,
        method="contextual",
        reader=reader,
        note=note,
        neighbours=entries,
    )
