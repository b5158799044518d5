"""The parts of a report that are figures: each is None as long as its verb has not been run."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InterpError
from ..models.names import parted
from .answers import CLASSES, UNABLE
from .cache_files import INDEX, Cache
from .charts import Chart, number, scores, shares
from .index_block import Tokens
from .journal import read_journal
from .said import CLASSES as KINDS
from .said import EXPLANATIONS, LABELS, labels_of, records_of, texts_of
from .scoring.table import NAMES, table
from .steered_judge import CATEGORIES
from .study import Study
from .training.publish import FIGURES

_DENSE = 0.5
"""Features that are active on a larger share of the pictures say little about any of them."""
_REASONS, _LISTED = 5, 12
Facts = list[tuple[str, str]]
"""Names and values."""


def about(study: Study) -> Facts:
    """What the study is of."""
    plan, found = study.plan, study.found
    model, data, sae = found["model"], found["data"], found["sae"]
    parts = [part for part in parted(model["name"]) if part]
    return [
        ("study", study.folder.resolve().name),
        ("model", f"{' + '.join(map(_place, parts))}{model['revision'] and ' at '}{model['revision']}"),
        ("SAE", f"{_place(plan.sae)}: {sae['features']:,} features of layer {sae['layer']}" if sae else "none yet"),
        (
            "data",
            f"{_place(plan.data)}{plan.split and ', '}{plan.split}{data['revision'] and ' at '}{data['revision']}: {data['count']:,} samples",
        ),
        ("prompt", plan.prompt),
        ("versions", ", ".join(f"{name} {held}" for name, held in found["versions"].items())),
    ]


def _place(source: str) -> str:
    """The id of something on the hub, and of a folder only its name: the page is for others too."""
    path = Path(source).expanduser()
    return path.resolve().name if path.is_absolute() or source.startswith(".") or path.exists() else source


@dataclass(frozen=True)
class Cached:
    """What the cache holds."""

    facts: Facts
    density: Chart


def cached(study: Study) -> Cached | None:
    """The figures of the cache."""
    if not (study.folder / "cache" / INDEX).exists():
        return None
    cache = Cache.open(study)
    pictures, tokens = cache.top["pictures"], Tokens.of(cache)
    features, alive = cache.about["features"], int((pictures > 0).sum())
    on_image = int((tokens.kinds == 0).sum())
    dense = int((pictures > _DENSE * cache.count).sum())
    facts = [
        ("samples", f"{cache.count:,}"),
        ("tokens", f"{len(tokens.kinds):,}, of them {on_image:,} image tokens without sinks"),
        ("activations", f"{cache.about['entries']:,}"),
        ("activations a token", number(cache.about["entries"] / len(tokens.kinds))),
        ("on an image token", number(int(cache.top["tokens_on_pictures"].sum()) / max(1, on_image))),
        ("active on a picture", f"{alive:,} of {features:,} features ({100 * alive / features:.1f} %)"),
        (f"on more than {_DENSE:.0%} of them", f"{dense:,}"),
    ]
    density = shares(
        "On how many pictures features are active",
        f"Features by the share of {cache.count:,} pictures they are active on; {features - alive:,} are active on none and not drawn.",
        (pictures.double() / cache.count).tolist(),
        1 / cache.count,
    )
    return Cached(facts, density)


@dataclass(frozen=True)
class Asked:
    """How the requests of a verb with a server ended."""

    verb: str
    model: str
    requests: int
    failed: int
    reasons: tuple[tuple[str, int], ...]
    """The commonest, and how often."""
    facts: Facts = field(default_factory=list)
    classes: tuple[tuple[str, int, tuple[str, ...]], ...] = ()
    """What sort of things labels name: the class, how many, and some of them."""


def asked(study: Study) -> dict[str, Asked | None]:
    """What `explain` and `refine` have got."""
    explanations, labels, classes = (texts_of(study, name) for name in (EXPLANATIONS, LABELS, KINDS))
    unable = sum(text.casefold().startswith(UNABLE.casefold()) for text in explanations.values())
    counts = Counter(classes.values())
    kinds = [*(kind for kind in CLASSES if counts[kind]), *sorted(counts.keys() - set(CLASSES))]
    grouped = [
        (kind, counts[kind], _some(labels[each] for each, held in classes.items() if held == kind and each in labels)) for kind in kinds
    ]
    if unknown := labels.keys() - classes.keys():
        grouped.append(("no known class", len(unknown), _some(labels[each] for each in sorted(unknown))))
    return {
        "explain": _asked(
            study, "explain", [("explained", f"{len(explanations) - unable:,}"), ("nothing in common", f"{unable:,}")], explanations
        ),
        "refine": _asked(
            study, "refine", [("labels", f"{len(labels):,}"), ("different ones", f"{len(set(labels.values())):,}")], labels, grouped
        ),
    }


def _some(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(label for label, _ in Counter(labels).most_common(_LISTED))


def _asked(
    study: Study, verb: str, facts: Facts, texts: Mapping[int, str], classes: Sequence[tuple[str, int, tuple[str, ...]]] = ()
) -> Asked | None:
    """What a verb's journal says; texts without a journal were put there by hand."""
    entries = read_journal(study.folder / verb / "journal.jsonl")
    if not entries and not texts:
        return None
    last = {key.partition(" ")[0]: entry for key, entry in entries.items()}  # `refine` asks anew about a new explanation
    reasons = Counter(entry.failure.partition(":")[0] for entry in last.values() if entry.failure)
    model = study.settings(verb).get("model", "") if entries else ""
    return Asked(verb, model, len(last), reasons.total(), tuple(reasons.most_common(_REASONS)), facts, tuple(classes))


@dataclass(frozen=True)
class Scored:
    """One figure: its distribution over features, and its means by class, beside the controls."""

    name: str
    chart: Chart | None
    """None if no feature has it."""
    controls: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]


def scored(study: Study) -> list[Scored] | None:
    """The figures of `score`."""
    out = []
    order = list(NAMES)
    for records in sorted(
        records_of(study).values(),
        key=lambda held: min((order.index(f) for one in held for f in one.figures if f in NAMES), default=len(order)),
    ):
        rows = table(records)
        for figure in dict.fromkeys(row["figure"] for row in rows):
            own = [row for row in rows if row["figure"] == figure]
            *_, total = own
            values = [held for record in records if (held := record.figures.get(figure, {}).get("score")) is not None]
            marks = {name: value for name, value in {"mean": total["mean"], **total["controls"]}.items() if value is not None}
            name = NAMES.get(figure, figure)
            chart = scores(name, f"{name} of {len(values):,} features, with the means of the controls.", values, marks) if values else None
            out.append(Scored(name, chart, tuple(dict.fromkeys(name for row in own for name in row["controls"])), tuple(own)))
    return out or None


@dataclass(frozen=True)
class Run:
    """A run of a verb that may have several: `steer` and `attribute`, with the features for which they did most, and `train-sae`."""

    name: str
    facts: Facts
    failures: int
    features: tuple[tuple[str, ...], ...]
    """A row each, as `columns` say."""
    columns: tuple[str, ...]


def steered(study: Study) -> list[Run] | None:
    """The runs of `steer`, which may have several names."""
    out = []
    for name, held, settings in _summaries(study, "llava-microscope/study-steer/1"):
        features = held["features"]
        changed = sum(each["changed"] > 0 for each in features)
        facts = [
            ("features", f"{len(features):,}"),
            ("samples", f"{held['samples']:,}"),
            ("change an answer", f"{changed:,}"),
            *_judged(held.get("judged")),
            *((key, str(settings[key])) for key in ("unit", "value", "where", "ask") if settings.get(key) is not None),
        ]
        most = sorted(features, key=lambda each: -each["kl"])[:_LISTED]
        rows = tuple((_named(study, each["feature"]), f"{each['changed']} of {each['samples']}", number(each["kl"])) for each in most)
        out.append(Run(name, facts, len(held["failures"]), rows, ("feature", "answers changed", "mean KL, nats")))
    return out or None


def _judged(judged: dict[str, Any] | None) -> Facts:
    """What a judge made of the changes, beside the controls."""
    if judged is None:
        return []
    named = [("changes, as a judge sees them", judged["categories"]), ("with another feature's label (control)", judged["controls"])]
    return [(name, ", ".join(f"{CATEGORIES[key]} {count}" for key, count in counts.items())) for name, counts in named if counts]


def trained(study: Study) -> list[Run]:
    """The SAEs that were trained in this study."""
    out = []
    for file in sorted(study.folder.glob(f"*/sae/{FIGURES}")):
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            loss = held["loss"]
            facts = [
                ("states to train on", f"{sum(held['pool']):,} of {held['samples']:,} samples"),
                ("held out", f"{held['held_out']:,} samples"),
                ("loss recovered", number(loss["recovered"])),
                ("features never active on held-out tokens", f"{held['dead']:.1%}"),
            ]
            rows = tuple(
                (kind, f"{one['tokens']:,}", number(one["explained_variance"]), number(one["l0"]), number(one["dead"]))
                for kind, one in ((kind, held[kind]) for kind in ("image", "text"))
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InterpError(f"{file} is damaged ({error}). Restore it, or move its folder away.") from error
        out.append(Run(file.parent.parent.name, facts, 0, rows, ("held-out tokens", "number", "explained variance", "L0", "share dead")))
    return out


def attributed(study: Study) -> list[Run] | None:
    """The runs of `attribute`, which may have several names."""
    out = []
    for name, held, settings in _summaries(study, "llava-microscope/study-attribution/1"):
        words = held["words"]
        facts = [
            ("samples", f"{held['samples']:,}"),
            ("words", ", ".join(words[:_LISTED]) + (f" and {len(words) - _LISTED} more" if len(words) > _LISTED else "")),
            ("estimate and exact effect correlate at", number(held["pearson"])),
            *((key, str(settings[key])) for key in ("word", "baseline", "norms") if settings.get(key)),
        ]
        rows = tuple(
            (
                _named(study, each["feature"]),
                f"{each['samples']:,}",
                f"{each['sum']:+.3f}",
                f"{each['exact']:+.3f}" if "exact" in each else number(None),
            )
            for each in held["features"][:_LISTED]
        )
        out.append(Run(name, facts, len(held["failures"]), rows, ("feature", "samples with it", "mean score, logits", "exact")))
    return out or None


def _named(study: Study, feature: int) -> str:
    label = labels_of(study).get(feature, "")
    return f"{label} #{feature}" if label else f"#{feature}"


def _summaries(study: Study, schema: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, summary and settings of all runs of a verb, whatever their folders are called."""
    out = []
    for file in sorted(study.folder.glob("*/summary.json")):
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InterpError(f"{file} is damaged ({error}). Restore it, or move its folder away.") from error
        if isinstance(held, dict) and held.get("schema") == schema:
            out.append((file.parent.name, held, study.settings(file.parent.name)))
    return out
