"""Does a label fit the pictures that its feature fires on? CLIPScore of held-out pictures and the label: 100 max(0, cos), as torchmetrics has it.

Controls: pictures of the study drawn at random, in several runs ("random pictures"), and the labels of other features ("random features").
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from ...concepts.clip import Clip
from ..top_images import TopImages
from .cases import NO_PICTURES, Case, Record, other
from .measures import mean


@dataclass(frozen=True)
class ClipScore:
    """The measure, for `cases` of a study."""

    top: TopImages
    clip: Clip
    cases: Sequence[Case]
    pictures: int = 5
    skip: int = 5
    """Of a feature's top pictures: those it was explained by."""
    trials: int = 30
    seed: int = 0

    @cached_property
    def _pool(self) -> torch.Tensor:
        """Embeddings of the pictures that were kept at random: [N, d]."""
        return self.clip.pictures([each.picture for each in self.top.random(0, None)])

    def __call__(self, case: Case) -> Record:
        """The scores of one feature."""
        if case.undefined:
            return Record.without(case, case.undefined)
        held_out = self.top.shown(case.feature, self.pictures, self.skip)
        if not held_out:
            return Record.without(case, NO_PICTURES)
        rng = random.Random(f"{self.seed} {case.feature}")
        others = [one.said for one in (other(case, self.cases, rng) for _ in range(self.trials)) if one is not None]
        seen, texts = self.clip.pictures([each.picture for each in held_out]), self.clip.texts([case.said, *others])
        drawn = [rng.sample(range(len(self._pool)), min(self.pictures, len(self._pool))) for _ in range(self.trials)]
        scores = self._scores(seen, texts[0])
        figure = {
            "score": mean(scores),
            "random pictures": mean(score for some in drawn for score in self._scores(self._pool[some], texts[0])),
            "random features": mean(score for text in texts[1:] for score in self._scores(seen, text)),
        }
        details = {"clip_scores": scores, "avg_score": figure["score"], "k": len(held_out), "pictures": [each.id for each in held_out]}
        return Record(case.name, case.said, case.category, {"clip": figure}, details=details)

    @staticmethod
    def _scores(pictures: torch.Tensor, text: torch.Tensor) -> list[float]:
        return (100 * (pictures @ text).clamp(min=0)).tolist()
