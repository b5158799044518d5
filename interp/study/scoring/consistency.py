"""Does what was said of a feature agree with the pictures? 1 or 0 from a judge who sees label, explanation and the pictures, dimmed where it is inactive.

The control ("random features") shows the same pictures with what was said of another feature.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..client import Messages
from ..dimmed import dimmed
from ..top_images import TopImages
from .cases import NO_PICTURES, Case, Record, other
from .detection import NO_ANSWER
from .judges import Asker, conversation

_AGREES = """\
These pictures show where one unit of a vision-language model is active: there they have their natural brightness; the less it is active, the darker \
they were made. Somebody says of this unit:

label: {label}
explanation: {explanation}

Does this agree with the bright parts of the pictures? Answer with one digit: 1 if it does, 0 if it does not."""


@dataclass(frozen=True)
class Consistency:
    """The measure, for `cases` of a study."""

    top: TopImages
    asker: Asker
    cases: Sequence[Case]
    pictures: int = 5
    skip: int = 5
    """Of a feature's top pictures: those it was explained by."""
    seed: int = 0

    def __call__(self, cases: Sequence[Case], journal: Path) -> list[Record]:
        """The scores of some features, all of whose questions are asked together."""
        questions: dict[str, Callable[[], Messages]] = {}
        pictures: dict[int, list[Image.Image]] = {}
        for case in cases:
            shown = [] if case.undefined else self.top.shown(case.feature, self.pictures, self.skip)
            if not any(each.heat.any() for each in shown):
                continue
            pictures[case.feature] = dimmed([(each.picture, each.heat) for each in shown])
            control = other(case, self.cases, random.Random(f"{self.seed} {case.feature}"))
            for sort, one in (("own", case), ("other", control)):
                if one is not None:
                    questions[f"{case.name} {sort}"] = _about(pictures[case.feature], one)
        answers = self.asker.ask(questions, journal)
        return [self._record(case, len(pictures.get(case.feature, ())), answers) for case in cases]

    def _record(self, case: Case, k: int, answers: dict[str, bool | None]) -> Record:
        if case.undefined or not k:
            return Record.without(case, case.undefined or NO_PICTURES)
        own, control = (None if (said := answers.get(f"{case.name} {sort}")) is None else float(said) for sort in ("own", "other"))
        if own is None:
            return Record.without(case, NO_ANSWER, failed={NO_ANSWER: 1}, details={"k": k})
        return Record(case.name, case.said, case.category, {"consistency": {"score": own, "random features": control}}, details={"k": k})


def _about(pictures: Sequence[Image.Image], case: Case) -> Callable[[], Messages]:
    text = _AGREES.format(label=case.said, explanation=case.explanation or case.said)
    return lambda: conversation(pictures, text)


def first_of_each(cases: Sequence[Case], count: int) -> list[Case]:
    """The first cases with a label of every category, at most `count` of each, as multimodal-sae judges them."""
    seen: Counter[str] = Counter()
    out = []
    for case in cases:
        if not case.undefined and seen[case.category] < count:
            seen[case.category] += 1
            out.append(case)
    return out
