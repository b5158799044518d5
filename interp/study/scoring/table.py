"""The table of a study's scores: for each figure and category, how many features, their mean, and the controls beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..answers import CLASSES
from .cases import Record, reasons
from .measures import mean

TOTAL = "total"
NAMES = {
    "iou": "IoU",
    "soft_iou": "soft IoU",
    "auprc": "AUPRC",
    "clip": "CLIP score",
    "f1": "detection F1",
    "balanced_accuracy": "detection balanced accuracy",
    "consistency": "consistency",
}
"""Figures as readers know them."""


def table(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each figure and category that occurs, and for all features together ("total"). JSON types.

    "mean" and every control are means over the features that have the figure; "features" counts those, "undefined" the others by the reason, and
    "failed" pictures without a score.
    """
    figures = list(dict.fromkeys(figure for record in records for figure in record.figures)) or ["none"]
    rows = []
    for figure in figures:
        for category in [*_categories(records), TOTAL]:
            some = [record for record in records if category in {record.category, TOTAL}]
            scored = [record.figures[figure] for record in some if record.figures.get(figure, {}).get("score") is not None]
            lacking = [record.undefined or "no mask" for record in some if record.figures.get(figure, {}).get("score") is None]
            controls = dict.fromkeys(name for one in scored for name in one if name != "score")
            rows.append(
                {
                    "figure": figure,
                    "category": category,
                    "features": len(scored),
                    "mean": mean(one["score"] for one in scored),
                    "controls": {name: mean(one.get(name) for one in scored) for name in controls},
                    "undefined": reasons(lacking),
                    "failed": _sum(record.failed for record in some),
                }
            )
    return rows


def _categories(records: Sequence[Record]) -> list[str]:
    """Those of the paper first, in its order."""
    there = {record.category for record in records}
    return [*(name for name in CLASSES if name in there), *sorted(there.difference(CLASSES))]


def _sum(counts: Any) -> dict[str, int]:
    out: dict[str, int] = {}
    for each in counts:
        for reason, number in each.items():
            out[reason] = out.get(reason, 0) + number
    return dict(sorted(out.items()))


def written(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text to be read in a terminal, one block for each figure."""
    blocks = []
    for figure in dict.fromkeys(row["figure"] for row in rows):
        own = [row for row in rows if row["figure"] == figure]
        controls = list(dict.fromkeys(name for row in own for name in row["controls"]))
        lines = [[NAMES.get(figure, figure), "features", "mean", *controls, "undefined", "failed pictures"]]
        for row in own:
            numbers = [row["mean"], *(row["controls"].get(name) for name in controls)]
            lines.append(
                [
                    row["category"] or "(no category)",
                    str(row["features"]),
                    *("-" if number is None else f"{number:.3f}" for number in numbers),
                    _listed(row["undefined"]),
                    _listed(row["failed"]),
                ]
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        blocks.append("\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines))
    return "\n\n".join(blocks)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in counts.items()) or "-"
