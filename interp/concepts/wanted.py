"""Which states of a run to keep: those that emit a word, those of the answer, or an average over the prompt's tokens."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InterpError
from ..models.hooks import Hooks
from ..steering.generation import Answer
from ..tracing.select import KINDS, plain_where, select, sinks
from ..tracing.trace import Prompt
from ..validation import sequence, shown, text

if TYPE_CHECKING:
    from ..models.vlm import Vlm

MEAN = -1
"""The position of a row that is an average over several."""
_LONGEST = 200  # characters of a word


@dataclass(frozen=True)
class Wanted:
    """What to keep of each run, checked once."""

    kind: str
    """"words", "answer", "last", "end", "patches" or "where"."""
    words: tuple[str, ...] = ()
    where: Any = None

    @classmethod
    def of(cls, where: Any) -> "Wanted":
        """From what `interp.collect` takes as `where`. Raises InterpError for anything else."""
        if isinstance(where, str) and where in {"answer", "last", "end", "patches"}:
            return cls(where)
        if (isinstance(where, str) and where in KINDS) or isinstance(where, Mapping):
            return cls("where", where=plain_where(where))
        given = [where] if isinstance(where, str) else sequence("where", where, "words; or name a kind of token")
        words = tuple(" ".join(text("A word of where", word, _LONGEST).split()) for word in given)
        if not all(words):
            raise InterpError(
                f"where is {shown(where)}; it must be a word of the answer, or one of {', '.join(KINDS)}, last, end, patches."
            )
        return cls("words", words)

    @property
    def of_answer(self) -> bool:
        """Whether it reads the states that emit the answer, rather than those of the prompt."""
        return self.kind in {"words", "answer", "last", "end"}

    def describe(self) -> str:
        """In words, for results and files."""
        said = " or ".join(map(repr, self.words))
        named = (
            "each patch"
            if self.kind == "patches"
            else f"the mean of {self.where if isinstance(self.where, str) else shown(self.where)} tokens"
        )
        return {
            "words": f"the state that emits {said}",
            "answer": "the mean of the states that emit the answer",
            "last": "the last position of the prompt, which emits the answer's first token",
            "end": "the state that emits the answer's last token, and so has read its words",
        }.get(self.kind, named)


@dataclass(frozen=True)
class Found:
    """The rows kept of one sample."""

    states: torch.Tensor
    """[layers, rows, d] in the model's dtype, on the CPU."""
    positions: tuple[int, ...]
    """Of each row; `MEAN` for an average."""
    word: str = ""
    """The word found, as it was spelled."""


def find_word(tokens: Sequence[str], words: Sequence[str]) -> tuple[int, str] | None:
    """The token of an answer that begins the first of these words (any case, whole words only), and its spelling there; None if none occurs."""
    joined = "".join(tokens)
    ends = torch.tensor([len(token) for token in tokens]).cumsum(0) if tokens else torch.empty(0)
    best: re.Match[str] | None = None
    for word in words:
        spelled = r"\s+".join(map(re.escape, word.split()))
        found = re.search(rf"(?<!\w){spelled}(?!\w)", joined, re.IGNORECASE)
        if found and (best is None or found.start() < best.start()):
            best = found
    if best is None:
        return None
    return int((ends <= best.start()).sum()), best[0]


class Keeper:
    """Keeps, while a batch runs, what `wanted` may need of each layer: positions of the prompt reduced at once, or the states that emit the answer."""

    def __init__(self, wanted: Wanted, layers: Sequence[int], prompts: Sequence[Prompt]) -> None:
        self._wanted, self._layers, self._prompts = wanted, layers, prompts
        self._length = prompts[0].length
        self._steps: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}
        self._seen = dict.fromkeys(layers, 0)
        self._reduced: dict[int, list[torch.Tensor]] = {}
        self._positions: list[tuple[int, ...]] = []

    def on(self, hooks: Hooks, vlm: "Vlm") -> None:
        """Listen to the layers."""
        for layer in self._layers:
            vlm.on_layer(hooks, layer, self._visit(layer))

    def _visit(self, layer: int) -> Callable[[torch.Tensor], None]:
        def keep(hidden: torch.Tensor) -> None:
            start = self._seen[layer]
            self._seen[layer] = start + hidden.shape[1]
            if self._wanted.of_answer:
                # What enters at the prompt's last position, and each step after it, emits a token of the answer.
                if self._seen[layer] >= self._length:
                    self._steps[layer].append(hidden[:, max(0, self._length - 1 - start) :].detach().clone())
            elif start < self._length:
                self._steps[layer].append(hidden[:, : self._length - start].detach())
                if self._seen[layer] >= self._length:
                    self._reduce(layer)

        return keep

    def _reduce(self, layer: int) -> None:
        whole = torch.cat(self._steps[layer], 1)
        self._steps[layer] = []
        rows, positions = [], []
        for states, prompt in zip(whole, self._prompts, strict=True):
            if self._wanted.kind == "patches":
                at = [i for grid in prompt.grids for i in grid.positions.flatten().tolist()]
                if not at:
                    raise InterpError("This model's image tokens are not patches: choose where='image'.")
                rows.append(states[at].cpu())
                positions.append(tuple(at))
            else:
                words, chosen = select(prompt, self._wanted.where, sinks(prompt, states))
                if not chosen:
                    raise InterpError(f"There are no {words} to average other than BOS and attention sinks; choose another `where`.")
                rows.append(states[chosen].float().mean(0, keepdim=True).to(states.dtype).cpu())
                positions.append((MEAN,))
        self._reduced[layer], self._positions = rows, positions

    def found(self, answers: Sequence[Answer], ends: set[int]) -> list[Found | None]:
        """What to keep of each sample; None where the answer does not hold the word."""
        if not self._wanted.of_answer:
            each = zip(*(self._reduced[layer] for layer in self._layers), strict=True)
            return [Found(torch.stack(parts), at) for parts, at in zip(each, self._positions, strict=True)]
        states = torch.stack([torch.cat(self._steps[layer], 1) for layer in self._layers])  # [layers, samples, steps, d]
        return [self._of_answer(states[:, row], answer, ends) for row, answer in enumerate(answers)]

    def _of_answer(self, states: torch.Tensor, answer: Answer, ends: set[int]) -> Found | None:
        base = self._length - 1
        if self._wanted.kind == "last":
            return Found(states[:, :1].cpu(), (base,))
        if self._wanted.kind == "end":
            at = len(answer.ids) - 1
            return Found(states[:, at : at + 1].cpu(), (base + at,))
        said = len(answer.ids) - (answer.ids[-1] in ends)  # the state that ends the answer says no word
        if self._wanted.kind == "answer":
            return Found(states[:, :said].float().mean(1, keepdim=True).to(states.dtype).cpu(), (MEAN,)) if said else None
        found = find_word(answer.tokens[:said], self._wanted.words)
        return None if found is None else Found(states[:, found[0] : found[0] + 1].cpu(), (base + found[0],), found[1])
