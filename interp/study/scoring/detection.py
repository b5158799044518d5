"""Can one tell by its label on which pictures a feature fires? F1 and balanced accuracy of a judge who knows the label only.

Held-out pictures on which the feature is active, against as many hard negatives: top pictures of the features whose decoder directions are nearest,
on which this one is not active. The control ("random features") is the same with another feature's label.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...saes.sae import Sae
from ..top_images import Shown, TopImages
from .cases import NO_PICTURES, Case, Record, other, reasons
from .judges import Judge, Question
from .measures import detection

FIGURES = ("f1", "balanced_accuracy")
NO_NEGATIVES, NO_ANSWER = "no negatives", "no answer"


@dataclass(frozen=True)
class DetectionScore:
    """The measure, for `cases` of a study."""

    top: TopImages
    sae: Sae
    judge: Judge
    cases: Sequence[Case]
    pictures: int = 5
    skip: int = 5
    """Of a feature's top pictures: those it was explained by."""
    seed: int = 0
    neighbours: int = 10
    """Features whose pictures are the negatives."""

    def __call__(self, cases: Sequence[Case], journal: Path) -> list[Record]:
        """The scores of some features, all of whose questions are asked together."""
        said = {case.feature: case.said for case in self.cases if not case.undefined}
        near = nearest(self.sae, [case.feature for case in cases], self.top.features, self.neighbours)
        tests = [self._test(case, near[case.feature], said) for case in cases]
        answers = iter(self.judge([question for test in tests for question in test.questions], journal))
        return [test.record([next(answers) for _ in test.questions]) for test in tests]

    def _test(self, case: Case, near: Sequence[int], said: Mapping[int, str]) -> "_Test":
        if case.undefined:
            return _Test(case, case.undefined)
        active = self.top.shown(case.feature, self.pictures, self.skip)
        if not active:
            return _Test(case, NO_PICTURES)
        among = sorted({number for feature in near for number in self.top.numbers(feature)})
        inactive = self.top.inactive(case.feature, len(active), self.seed, among)
        if not inactive:
            return _Test(case, NO_NEGATIVES)
        rivals = tuple(said[feature] for feature in near if feature in said)
        control = other(case, self.cases, random.Random(f"{self.seed} {case.feature}"))
        questions = [
            Question(f"{case.name} {name} {sort} {each.id}", each.picture, label, rivals)
            for name, label in (("own", case.said), ("other", control.said if control else ""))
            if label
            for sort, some in (("active", active), ("inactive", inactive))
            for each in some
        ]
        return _Test(case, "", tuple(active), tuple(inactive), tuple(questions))


@dataclass(frozen=True)
class _Test:
    """The questions about one feature: of its own label, then of the other; of each, active pictures first."""

    case: Case
    undefined: str
    active: tuple[Shown, ...] = ()
    inactive: tuple[Shown, ...] = ()
    questions: tuple[Question, ...] = ()

    def record(self, answers: Sequence[bool | None]) -> Record:
        if self.undefined:
            return Record.without(self.case, self.undefined)
        count, both = len(self.active), len(self.active) + len(self.inactive)
        own, control = (detection(some[:count], some[count:]) for some in (answers[:both], answers[both:]))
        details = {
            "k": both,
            "active": dict(zip([each.id for each in self.active], answers[:count], strict=True)),
            "inactive": dict(zip([each.id for each in self.inactive], answers[count:both], strict=True)),
        }
        failed = reasons(NO_ANSWER for answer in answers[:both] if answer is None)
        if own.f1 is None:
            return Record.without(self.case, NO_ANSWER, failed=failed, details=details)
        figures = {name: {"score": getattr(own, name), "random features": getattr(control, name)} for name in FIGURES}
        return Record(self.case.name, self.case.said, self.case.category, figures, "", failed, details)


def nearest(sae: Sae, features: Sequence[int], among: Sequence[int], count: int) -> dict[int, list[int]]:
    """For each feature, those of `among` whose decoder directions have the largest cosine with its own, nearest first, itself left out."""
    directions, rest = sae.W_dec, torch.tensor(sorted(among), dtype=torch.int64)
    with torch.inference_mode():
        cosines = (directions[features] @ directions.T / directions.norm(dim=1).clamp(min=1e-12)).float().cpu()[:, rest]
        ranked = cosines.sort(dim=1, descending=True, stable=True).indices[:, : count + 1]
    return {
        feature: [one for one in rest[order].tolist() if one != feature][:count] for feature, order in zip(features, ranked, strict=True)
    }
