"""The fewest patches without which the model says another word, found greedily: remove the patch that hurts the word most, until it flips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InterpError
from ..tracing.replay import Replay
from ..tracing.select import answer_token
from ..tracing.trace import Trace
from ..validation import instance
from .changed import scores
from .cuts import Cut, cut_states, readable, with_attention
from .flow import up_to
from .knockout import A_TRACE

_MOST = 32  # patches removed before the search is given up; backgrounds take more than anyone would look at


@dataclass(frozen=True, eq=False)
class Evidence:
    """Patches whose removal changes a word."""

    trace: Trace
    token: int
    """Position of the word in `trace.tokens`."""
    patches: tuple[int, ...]
    """Image positions in the order of removal. Empty if the word is said without the picture, too."""
    probability: float
    """Of the word, with the whole picture."""
    probabilities: tuple[float, ...]
    """After each removal."""
    flipped: bool
    """Whether another word is now more probable. If not, the search ended after 32 patches, or the word does not depend on the picture."""
    instead: str | None
    """The word that is then the most probable, as it reads within a sentence; None if it did not flip."""
    forwards: int
    """Sets of patches tried, each a forward pass by itself; many run in a batch."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "schema": "llava-microscope/evidence/1",
            "model": self.trace.model_name,
            "prompt": self.trace.prompt,
            "token": {"position": self.token, "text": self.trace.tokens[self.token].text},
            "patches": list(self.patches),
            "probability": self.probability,
            "probabilities": list(self.probabilities),
            "flipped": self.flipped,
            "instead": self.instead,
            "forwards": self.forwards,
        }


def smallest_evidence(trace: Trace, token: Any) -> Evidence:
    """Remove image tokens one after another until a word of the answer, given as its number or as a word, is no longer the most probable.

    A removed one is read by no other row in any layer, as if it had been deleted and the others had kept their positions. In each step every
    remaining image token is tried, and the one whose removal lowers the word's log-odds most is removed for good: with N image tokens about
    N forward passes a step, 32 steps at most. A smaller set may exist, since the search never takes a step back.

    Raises InterpError for a token that the answer does not have, a token that is not the most probable in its place, as in an answer that
    was given, and a trace without a model.
    """
    vlm = instance("trace", trace, Trace, A_TRACE).vlm
    position = answer_token(trace, token)
    said, image = trace.tokens[position].id, trace.positions("image")
    with vlm.lock, torch.no_grad():
        search = _Search(Replay.of(up_to(trace, position)), position)
        (plain, top), (_, without_picture) = search.tried([[], image])
        if top != said:
            raise InterpError(
                f"Token {trace.tokens[position].text!r} is not the most probable in its place: {vlm.vocabulary.texts[top]!r} is, so removing "
                "patches cannot flip it. Choose a token that the model says by itself."
            )
        removed: list[int] = []
        after: list[float] = []
        while without_picture != said and top == said and len(removed) < min(_MOST, len(image)):
            candidates = [each for each in image if each not in removed]
            found = search.tried([[*removed, each] for each in candidates])
            best = min(range(len(found)), key=lambda i: (found[i][1] == said, found[i][0]))
            log_odds, top = found[best]
            removed.append(candidates[best])
            after.append(_probability(log_odds))
    return Evidence(
        trace=trace,
        token=position,
        patches=tuple(removed),
        probability=_probability(plain),
        probabilities=tuple(after),
        flipped=top != said,
        instead=None if top == said else vlm.vocabulary.texts[top],
        forwards=search.forwards,
    )


class _Search:
    """Tries sets of patches and counts them."""

    def __init__(self, replay: Replay, token: int) -> None:
        self._replay, self._token = replay, token
        self._layers = with_attention(replay)
        self._reads = torch.stack([readable(replay, layer) for layer in self._layers]).any(0)
        self.forwards = 0

    def tried(self, sets: Sequence[Sequence[int]]) -> list[tuple[float, int]]:
        """Without each of the sets: log-odds of the word, and the most probable id. An empty set costs nothing."""
        self.forwards += sum(map(bool, sets))
        states, _ = cut_states(self._replay, [self._without(positions) for positions in sets], [self._token - 1])
        found = scores(self._replay.trace, states, [self._token])
        return list(zip(found.log_odds[1:, 0].tolist(), found.top[1:, 0].tolist(), strict=True))

    def _without(self, positions: Sequence[int]) -> Cut:
        readers = self._reads[:, list(positions)].any(1)
        readers[list(positions)] = False  # what they read themselves is read by no one
        return Cut(tuple(readers.nonzero().flatten().tolist()), tuple(positions), frozenset(self._layers))


def _probability(log_odds: float) -> float:
    return torch.tensor(log_odds).sigmoid().item()
