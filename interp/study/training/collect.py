"""The states that an SAE is trained on: one layer over the study's samples and, if asked, a text, in parts of a chunk of samples each.

BOS, attention sinks and special tokens are left out, as they are when features are ranked. The words before the picture, whose states are the
same in every sample, count once in each part. Within a part the kinds are balanced exactly; what is too much of one is drawn away at random. Samples
that are held out for measuring are not read.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from ...concepts.samples import Sample
from ...errors import InterpError
from ...lens.text_states import sixteen, text_states
from ...models.vlm import Vlm
from ...tracing.record import tokens_of
from ...tracing.select import sinks
from ...tracing.trace import Prompt
from ..prompt_states import prompt_states
from .balance import counts
from .passages import Passages

IMAGE, CONVERSATION, PASSAGE = range(3)
"""Kinds of rows: tokens of pictures, of prompts and answers, of the text beside."""
_LENGTH = 128  # tokens of a passage
_TOGETHER = 16  # passages


@dataclass(frozen=True)
class Mixture:
    """What rows a pool is made of."""

    layer: int
    image_share: Fraction
    """Of all rows."""
    passages: Passages | None
    text_share: Fraction
    """Of the rows that are not of pictures, how many are of the text beside."""
    per_picture: int | None
    """Rows of one picture at most, drawn at random."""
    answers: int
    """Tokens of the model's own answer to read as well, at most."""
    held_out: int
    """Every so many-th sample is left for measuring."""
    seed: int

    @property
    def shares(self) -> tuple[Fraction, Fraction, Fraction]:
        """Of each kind."""
        text = self.text_share if self.passages else Fraction(0)
        return self.image_share, (1 - self.image_share) * (1 - text), (1 - self.image_share) * text

    @property
    def settings(self) -> dict[str, Any]:
        """In plain types."""
        return {
            "layer": self.layer,
            "shares": [str(each) for each in self.shares],
            "text": self.passages.about if self.passages else None,
            "per_picture": self.per_picture,
            "answers": self.answers,
            "held_out": self.held_out,
            "seed": self.seed,
        }

    def is_held_out(self, number: int) -> bool:
        """Whether a sample is left for measuring."""
        return number % self.held_out == self.held_out - 1


def part(vlm: Vlm, mixture: Mixture, samples: Sequence[Sample], first: int) -> dict[str, torch.Tensor]:
    """The rows of some samples, numbered from `first`: "states" [N, d] in 16 bits, "kind" uint8 [N]. The same whoever computes it.

    Raises InterpError if they do not even hold the smallest mixture of exactly these proportions.
    """
    wanted = [(first + at, sample) for at, sample in enumerate(samples) if not mixture.is_held_out(first + at)]
    if not wanted:
        return {"states": torch.empty(0, vlm.d_model, dtype=torch.float16), "kind": torch.empty(0, dtype=torch.uint8)}
    pictures, conversations = _rows(vlm, mixture, wanted)
    there = [len(pictures), len(conversations), None]
    chosen = counts(there, mixture.shares)
    if not sum(chosen):
        raise InterpError(
            f"Samples {wanted[0][0]} to {wanted[-1][0]} have {len(pictures)} tokens of pictures and {len(conversations)} of prompts and answers, too few "
            f"for shares of {' : '.join(map(str, mixture.shares))}. Change --image-share or --text-share, or let the model answer: --answers 32."
        )
    generator = torch.Generator().manual_seed(random.Random(f"{mixture.seed} {first}").getrandbits(63))
    drawn = [
        rows[torch.randperm(len(rows), generator=generator)[:count]] for rows, count in zip((pictures, conversations), chosen, strict=False)
    ]
    if mixture.passages and chosen[PASSAGE]:
        drawn.append(_text_rows(vlm, mixture, mixture.passages, chosen[PASSAGE], random.Random(f"text {mixture.seed} {first}")))
    kinds = torch.repeat_interleave(torch.arange(3, dtype=torch.uint8), torch.tensor(chosen))
    return {"states": sixteen(torch.cat([rows.float() for rows in drawn])), "kind": kinds}


def _rows(vlm: Vlm, mixture: Mixture, samples: Sequence[tuple[int, Sample]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The states at the tokens of pictures, and of prompts and answers: both [N, d] in 16 bits."""
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    begun: set[tuple[int, ...]] = set()
    for read in prompt_states(vlm, [sample for _, sample in samples], mixture.layer, mixture.answers):
        for at, prompt, states in read.each(vlm):
            before, image, text = rows_of(prompt, states)
            if (beginning := tuple(token.id for token in prompt.tokens[: min(image, default=0)])) not in begun:
                begun.add(beginning)
                text = before + text
            if mixture.per_picture is not None and len(image) > mixture.per_picture:
                image = sorted(random.Random(f"{mixture.seed} picture {samples[at][0]}").sample(image, mixture.per_picture))
            found[IMAGE].append(_checked(vlm, states[image]))
            found[CONVERSATION].append(_checked(vlm, states[text]))
    pictures, conversations = (torch.cat(rows) for rows in found)
    return pictures, conversations


def rows_of(prompt: Prompt, states: torch.Tensor) -> tuple[list[int], list[int], list[int]]:
    """The positions of words before the picture, of the picture's tokens, and of words behind it and of the answer, without BOS and sinks.

    What stands before the picture has the same states in every sample that begins with the same words.
    """
    left_out = set(sinks(prompt, states))
    image, text = (
        [position for position in prompt.positions(*kinds) if position not in left_out] for kinds in (("image",), ("prompt", "answer"))
    )
    first = min(image, default=0)
    return [position for position in text if position < first], image, [position for position in text if position >= first]


def _checked(vlm: Vlm, states: torch.Tensor) -> torch.Tensor:
    if not states.isfinite().all():
        raise InterpError(f"The states of {vlm.name} are not finite in {states.dtype}. Load the model in a wider dtype.")
    return sixteen(states.float())


def _text_rows(vlm: Vlm, mixture: Mixture, passages: Passages, count: int, rng: random.Random) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    while sum(map(len, parts)) < count:
        ids = [row[:_LENGTH] for row in vlm.tokenizer([passages.draw(rng) for _ in range(_TOGETHER)]).input_ids if len(row) > 1]
        if not ids:
            continue
        states = text_states(vlm, ids, [mixture.layer])[mixture.layer].cpu()
        for row, hidden in zip(ids, states, strict=True):
            prompt = Prompt(tuple(tokens_of(vlm, row)), ())
            *_, text = rows_of(prompt, hidden[: len(row)])
            parts.append(
                _checked(vlm, hidden[[position for position in text if position]])
            )  # many models keep a sink at the first position
    return torch.cat(parts)[:count]
