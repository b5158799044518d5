"""Can one tell by its label on which pictures a feature fires? F1 and balanced accuracy of a judge who knows the label only.

Held-out pictures on which the feature is active, against as many hard negatives: top pictures of the features whose decoder directions are nearest,
on which this one is not active. The control ("random features") is the same with another feature's label.
"""

import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...saes.sae import Sae
from ..client import Request
from ..journal import Entry
from ..top_images import TopImages
from .cases import NO_PICTURES, Case, Record, other, reasons
from .judges import Question, key_of, yes
from .measures import detection

FIGURES = ("f1", "balanced_accuracy")
NO_NEGATIVES, NO_ANSWER = "no negatives", "no answer"


@dataclass(frozen=True)
class DetectionTest:
    """What a judge is asked about one feature: whether pictures show its own label, and then another's. Of each, active pictures come first."""

    case: Case
    undefined: str = ""
    active: Sequence[str] = ()
    """Ids of pictures."""
    inactive: Sequence[str] = ()
    questions: Sequence[Question] = ()

    @property
    def keys(self) -> list[str]:
        """The names of the questions, as requests to a server."""
        ids = [*self.active, *self.inactive] * 2  # without another label, the second half is not asked
        return [key_of(self.case.name, question.label, name) for question, name in zip(self.questions, ids, strict=False)]

    def requests(self) -> list[Request]:
        """The questions for a server."""
        return [Request(key, question.messages) for key, question in zip(self.keys, self.questions, strict=True)]

    def of_entries(self, entries: Mapping[str, Entry]) -> Record:
        """The scores by a server's answers."""
        return self.record([None if entries[key].failure else yes(entries[key].answer) for key in self.keys])

    def record(self, answers: Sequence[bool | None]) -> Record:
        """The scores by the answers to the questions; None is one that failed."""
        if self.undefined:
            return Record.without(self.case, self.undefined)
        count, both = len(self.active), len(self.active) + len(self.inactive)
        own, control = (detection(some[:count], some[count:]) for some in (answers[:both], answers[both:]))
        details = {
            "k": both,
            "active": dict(zip(self.active, answers[:count], strict=True)),
            "inactive": dict(zip(self.inactive, answers[count:both], strict=True)),
        }
        failed = reasons(NO_ANSWER for answer in answers[:both] if answer is None)
        if own.f1 is None:
            return Record.without(self.case, NO_ANSWER, failed=failed, details=details)
        figures = {name: {"score": getattr(own, name), "random features": getattr(control, name)} for name in FIGURES}
        return Record(self.case.name, self.case.said, self.case.category, figures, "", failed, details)


@dataclass(frozen=True)
class DetectionScore:
    """The measure, for `cases` of a study."""

    top: TopImages
    sae: Sae
    cases: Sequence[Case]
    pictures: int = 5
    skip: int = 5
    """Of a feature's top pictures: those it was explained by."""
    seed: int = 0
    neighbours: int = 10
    """Features whose pictures are the negatives."""
    _said: Mapping[int, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_said", {case.feature: case.said for case in self.cases if not case.undefined})

    def score(self, judge: Callable[[Sequence[Question]], list[bool | None]], cases: Sequence[Case]) -> list[Record]:
        """The scores of some features by a judge who is asked all of their questions together."""
        tests = self.tests(cases)
        answers = iter(judge([question for test in tests for question in test.questions]))
        return [test.record([next(answers) for _ in test.questions]) for test in tests]

    def tests(self, cases: Sequence[Case]) -> list[DetectionTest]:
        """What is asked about some features, which should be few: their directions are compared with all others at once."""
        near = nearest(self.sae, [case.feature for case in cases], self.top.features, self.neighbours)
        return [self._test(case, near[case.feature]) for case in cases]

    def _test(self, case: Case, near: Sequence[int]) -> DetectionTest:
        if case.undefined:
            return DetectionTest(case, case.undefined)
        active = self.top.numbers(case.feature)[self.skip : self.skip + self.pictures]
        if not active:
            return DetectionTest(case, NO_PICTURES)
        among = sorted({number for feature in near for number in self.top.numbers(feature)})
        inactive = self.top.inactive_numbers(case.feature, len(active), self.seed, among)
        if not inactive:
            return DetectionTest(case, NO_NEGATIVES)
        control = other(case, self.cases, random.Random(f"{self.seed} {case.feature}"))
        rivals = tuple(self._said[feature] for feature in near if feature in self._said)
        questions = [
            Question(functools.partial(self.top.picture, number), one.said, rivals)
            for one in (case, control)
            if one is not None
            for number in [*active, *inactive]
        ]
        return DetectionTest(case, "", [self.top.id(one) for one in active], [self.top.id(one) for one in inactive], questions)


def nearest(sae: Sae, features: Sequence[int], among: Sequence[int], count: int) -> dict[int, list[int]]:
    """For each feature, those of `among` whose decoder directions have the largest cosine with its own, nearest first, itself left out."""
    directions, rest = sae.W_dec, torch.tensor(sorted(among), dtype=torch.int64)
    with torch.inference_mode():
        cosines = (directions[features] @ directions.T / directions.norm(dim=1).clamp(min=1e-12)).float().cpu()[:, rest]
        ranked = cosines.sort(dim=1, descending=True, stable=True).indices[:, : count + 1]
    return {
        feature: [one for one in rest[order].tolist() if one != feature][:count] for feature, order in zip(features, ranked, strict=True)
    }
