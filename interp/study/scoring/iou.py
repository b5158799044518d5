"""Does a feature fire where its label says? Its heat on held-out pictures against the mask that a segmenter finds for the label.

Two controls say what an unrelated label gets: the same mask somewhere else on the picture ("random masks"), and the pictures and heats of other
features against this label ("random features"). A third is multimodal-sae's: this feature's heat on any pictures ("random pictures"). It is low there,
where a picture on which nothing is found counts as 0; without these, it says how the feature does wherever its label is found.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..top_images import Shown, TopImages
from .cases import NO_PICTURES, Case, Record, commonest, other, reasons
from .measures import UNDEFINED, Mask, Overlap, mean, moved, overlap
from .segmenters import Segment

FIGURES = ("iou", "soft_iou", "auprc")
NOT_FOUND, EMPTY = "not found", "empty"
"""Why a picture has no IoU: the segmenter found nothing, or neither mask nor heat covers a pixel."""


@dataclass(frozen=True)
class Iou:
    """The measure, for `cases` of a study."""

    top: TopImages
    segment: Segment
    cases: Sequence[Case]
    pictures: int = 5
    skip: int = 5
    """Of a feature's top pictures: those it was explained by."""
    trials: int = 10
    seed: int = 0

    def __call__(self, case: Case) -> Record:
        """The scores of one feature."""
        if case.undefined:
            return Record.without(case, case.undefined)
        held_out = self.top.shown(case.feature, self.pictures, self.skip)
        if not held_out:
            return Record.without(case, NO_PICTURES)
        masks = [self.segment(each.picture, each.id, case.said) for each in held_out]
        found = [self._one(each, mask) for each, mask in zip(held_out, masks, strict=True)]
        failed = reasons(reason for _, reason in found)
        scores = {figure: [getattr(one, figure) for one, _ in found] for figure in FIGURES}
        controls = {
            "random masks": [one for each, mask in zip(held_out, masks, strict=True) for one in self._moved(case, each, mask)],
            "random features": [self._one(each, self.segment(each.picture, each.id, case.said))[0] for each in self._of_others(case)],
            "random pictures": [
                self._one(each, self.segment(each.picture, each.id, case.said))[0]
                for each in self.top.random(case.feature, self.trials, self.seed)
            ],
        }
        figures = {
            figure: {"score": mean(scores[figure]), **{name: mean(getattr(one, figure) for one in some) for name, some in controls.items()}}
            for figure in FIGURES
        }
        details = {
            "iou_scores": scores["iou"],
            "avg_iou": figures["iou"]["score"],
            "k": len(held_out),
            "defined": {name: sum(one.iou is not None for one in some) / len(some) for name, some in controls.items() if some},
            "activated_pct": mean(float((each.heat > 0).float().mean()) for each in held_out),
            "pictures": [each.id for each in held_out],
        }
        undefined = commonest(failed) if figures["iou"]["score"] is None else ""
        return Record(case.name, case.said, case.category, figures, undefined, failed, details)

    def _one(self, shown: Shown, mask: Mask | None) -> tuple[Overlap, str]:
        """The overlap on one picture, and why it is undefined."""
        if mask is None:
            return UNDEFINED, NOT_FOUND
        found = overlap(shown.heat.numpy(), mask)
        return found, EMPTY if found.iou is None else ""

    def _moved(self, case: Case, shown: Shown, mask: Mask | None) -> list[Overlap]:
        if mask is None:
            return [UNDEFINED] * self.trials
        return moved(shown.heat.numpy(), mask, self.trials, np.random.default_rng([self.seed, case.feature, shown.number]))

    def _of_others(self, case: Case) -> list[Shown]:
        """The first held-out pictures of other features, with their heats."""
        rng = random.Random(f"{self.seed} {case.feature}")
        some = [other(case, self.cases, rng) for _ in range(self.trials)]
        return [each for one in some if one is not None for each in self.top.shown(one.feature, 1, self.skip)]
