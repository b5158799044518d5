"""Does what was said of a feature agree with the pictures? 1 or 0 from a judge who sees label, explanation and the pictures, dimmed where it is inactive.

The control ("random features") shows the same pictures with what was said of another feature.
"""

import functools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import InterpError
from ..client import Messages, RefusedError, Request
from ..dimmed import conversation, dimmed
from ..journal import Entry
from ..top_images import TopImages
from .cases import NO_PICTURES, Case, Record, other
from .detection import NO_ANSWER
from .judges import key_of, yes

AGREES = """\
These pictures show where one unit of a vision-language model is active: there they have their natural brightness; the less it is active, the darker \
they were made. Somebody says of this unit:

label: {label}
explanation: {explanation}

Does this agree with the bright parts of the pictures? Answer with one digit: 1 if it does, 0 if it does not."""


@dataclass(frozen=True)
class Consistency:
    """The measure, for `cases` of a study."""

    top: TopImages
    cases: Sequence[Case]
    pictures: int = 5
    skip: int = 5
    """Of a feature's top pictures: those it was explained by."""
    seed: int = 0

    def requests(self, case: Case) -> list[Request]:
        """What is asked about one feature: what was said of it, and then of another. Nothing if there is nothing to judge."""
        if case.undefined or not self._held_out(case):
            return []
        said = [one for one in (case, self._control(case)) if one is not None]
        return [Request(self._key(case, one), functools.partial(self._messages, case.feature, _text(one))) for one in said]

    def record(self, case: Case, entries: Mapping[str, Entry]) -> Record:
        """The scores by the answers."""
        held_out = self._held_out(case)
        if case.undefined or not held_out:
            return Record.without(case, case.undefined or NO_PICTURES)
        own, control = (None if one is None else _answer(entries[self._key(case, one)]) for one in (case, self._control(case)))
        details = {"k": len(held_out)}
        if own is None:
            return Record.without(case, NO_ANSWER, failed={NO_ANSWER: 1}, details=details)
        return Record(case.name, case.said, case.category, {"consistency": {"score": own, "random features": control}}, details=details)

    def _held_out(self, case: Case) -> list[int]:
        return self.top.numbers(case.feature)[self.skip : self.skip + self.pictures]

    def _control(self, case: Case) -> Case | None:
        return other(case, self.cases, random.Random(f"{self.seed} {case.feature}"))

    def _key(self, case: Case, one: Case) -> str:
        return key_of(case.name, _text(one), *map(self.top.id, self._held_out(case)))

    def _messages(self, feature: int, text: str) -> Messages:
        shown = self.top.shown(feature, self.pictures, self.skip)
        try:
            return conversation(dimmed([(each.picture, each.heat) for each in shown]), text)
        except InterpError as error:  # it may be active at padding alone, which no picture shows
            raise RefusedError(str(error)) from error


def _text(case: Case) -> str:
    return AGREES.format(label=case.said, explanation=case.explanation or case.said)


def _answer(entry: Entry) -> float | None:
    return None if entry.failure else float(yes(entry.answer))


def first_of_each(cases: Sequence[Case], count: int) -> list[Case]:
    """The first cases with a label of every category, at most `count` of each, as multimodal-sae judges them."""
    seen: Counter[str] = Counter()
    out = []
    for case in cases:
        if not case.undefined and seen[case.category] < count:
            seen[case.category] += 1
            out.append(case)
    return out
