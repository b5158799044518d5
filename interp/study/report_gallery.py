"""The features that a report shows: the best, the median and the worst by the first figure that was scored, and any, drawn with a seed."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .charts import Picture, number, picture
from .explanation_files import feature_of
from .said import explanations_of, labels_of, records_of
from .scoring.table import NAMES
from .study import Study
from .top_images import NAME, TopImages

_PICTURES = 5


@dataclass(frozen=True)
class Card:
    """A feature."""

    feature: int
    label: str
    explanation: str
    figures: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Some features in groups."""

    figure: str
    """What best and worst go by; "" if nothing is scored, so that there are only random ones."""
    pool: str
    """What pictures are ranked by: the mean or the maximal activation."""
    groups: tuple[tuple[str, tuple[Card, ...]], ...]


def gallery(study: Study, each: int, seed: int) -> Gallery | None:
    """`each` features of each group; None as long as there are no top pictures."""
    if not (study.folder / NAME).is_dir():
        return None
    top = TopImages.open(study)
    figure, scores = _scores(study)
    groups = _chosen(scores, top.features, each, seed)
    labels, explanations = labels_of(study), explanations_of(study)
    cards = {
        feature: _card(top, feature, labels.get(feature, ""), explanations.get(feature, ""), scores.get(feature), figure)
        for _, features in groups
        for feature in features
    }
    return Gallery(
        figure, top.cache.about["pool"], tuple((name, tuple(cards[feature] for feature in features)) for name, features in groups)
    )


def _scores(study: Study) -> tuple[str, dict[int, float]]:
    """The first figure, in the order of tables, that any feature has, by its name for readers, and the features' scores."""
    records = [record for held in records_of(study).values() for record in held]
    for figure, name in NAMES.items():
        found = {
            feature_of(record.feature): score for record in records if (score := record.figures.get(figure, {}).get("score")) is not None
        }
        if found:
            return name, found
    return "", {}


def _chosen(scores: Mapping[int, float], active: Sequence[int], each: int, seed: int) -> list[tuple[str, list[int]]]:
    """Groups of features; none is in two of the first three, and random ones come from all that are active on a picture."""
    ranked = sorted(scores, key=lambda feature: (-scores[feature], feature))
    best, rest = ranked[:each], ranked[each:]
    worst, rest = rest[max(0, len(rest) - each) :], rest[: max(0, len(rest) - each)]
    start = max(0, (len(rest) - each) // 2)
    drawn = sorted(random.Random(seed).sample(active, min(each, len(active))))
    groups = [("best", best), ("median", rest[start : start + each]), ("worst", worst[::-1]), ("at random", drawn)]
    return [(name, features) for name, features in groups if features]


def _card(top: TopImages, feature: int, label: str, explanation: str, score: float | None, figure: str) -> Card:
    shown = top.shown(feature, _PICTURES)
    most = max((float(one.heat.max()) for one in shown), default=0.0)
    figures = [("pictures", f"{int(top.cache.top['pictures'][feature]):,}"), ("highest activation shown", number(most))]
    if figure and score is not None:
        figures.insert(0, (figure, number(score)))
    return Card(feature, label, explanation if explanation != label else "", tuple(figures), tuple(picture(one, most) for one in shown))
