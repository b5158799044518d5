"""What is scored, features with their labels, and what the scores of one feature are."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..explanation_files import key_of

NO_LABEL, UNABLE, NO_PICTURES = "no label", "unable", "no pictures"
"""Why a feature has no score, whatever the measure."""
_UNABLE = re.compile(r"unable to produce descriptions", re.IGNORECASE)
_TRIES = 50


@dataclass(frozen=True)
class Case:
    """A feature and what is said of it."""

    feature: int
    name: str
    """As multimodal-sae names it: model.layers.24_feature7."""
    said: str = ""
    """Its label, "" if it has none."""
    explanation: str = ""
    category: str = ""

    @property
    def undefined(self) -> str:
        """Why there is nothing to score; "" if there is."""
        return UNABLE if _UNABLE.search(self.said or self.explanation) else "" if self.said else NO_LABEL


def cases_of(
    module: str,
    labels: Mapping[int, str],
    explanations: Mapping[int, str],
    categories: Mapping[int, str],
    chosen: Iterable[int] | None = None,
) -> list[Case]:
    """Exactly the features of `chosen`, whether anything is said of them or not; by default all with a label or an explanation. In ascending order."""
    return [
        Case(
            feature,
            key_of(module, feature),
            labels.get(feature, ""),
            explanations.get(feature, ""),
            categories.get(feature, "").lower().replace("colour", "color"),
        )
        for feature in sorted({*labels, *explanations} if chosen is None else set(chosen))
    ]


def other(case: Case, among: Sequence[Case], rng: random.Random) -> Case | None:
    """Another feature at random, with another label; None if a number of tries finds none."""
    for one in rng.choices(among, k=_TRIES):
        if not one.undefined and one.said.casefold() != case.said.casefold():
            return one
    return None


@dataclass(frozen=True)
class Record:
    """The scores of one feature by one measure."""

    feature: str
    label: str
    category: str
    figures: Mapping[str, Mapping[str, float | None]]
    """By the name of a figure: its "score", and those of its controls by their names."""
    undefined: str = ""
    """Why there is no score; "" if there is."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Pictures without a score, by the reason."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the measure keeps beside these, as in the files of multimodal-sae."""

    @classmethod
    def without(cls, case: Case, undefined: str, **more: Any) -> "Record":
        """Of a feature that has no score."""
        return cls(case.name, case.said, case.category, {}, undefined, **more)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        held = asdict(self)
        return {"feature": self.feature, **held.pop("details"), **held}


def reasons(found: Iterable[str]) -> dict[str, int]:
    """How many times each reason occurs; "" is none."""
    return dict(sorted(Counter(reason for reason in found if reason).items()))


def commonest(failed: Mapping[str, int]) -> str:
    """The reason of most failures."""
    return max(failed, key=lambda reason: failed[reason], default="")
