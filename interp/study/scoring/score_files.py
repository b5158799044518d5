"""Files of scores: one JSON list a measure, which multimodal-sae's readers take, and its own lists of IoU and CLIP scores.

    [{"feature": "model.layers.24_feature7", "iou_scores": [0.4, null], "avg_iou": 0.4, "k": 2, "activated_pct": 0.1, "label": "dog", …}, …]

What is undefined is null here. In the reference's own files, a picture on which nothing was found is -1 in the list and 0 in the mean, and a feature
that could not be described has the mean -1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import InterpError
from ...files import write_whole
from ...validation import as_number, shown
from .cases import UNABLE, Case, Record, reasons
from .iou import NOT_FOUND
from .measures import mean

_LISTS = {"iou": ("iou_scores", "avg_iou"), "clip": ("clip_scores", "avg_score")}
_FAILED = -1


def write_records(file: Path, records: Sequence[Record]) -> None:
    """Write records. Raises OSError."""
    write_json(file, [record.to_dict() for record in records])


def write_json(file: Path, data: Any) -> None:
    """Write all of a JSON file or nothing. Raises OSError."""
    write_whole(file, json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def read_records(file: Path) -> list[Record]:
    """The records in a file of this package, or in one of multimodal-sae, whose failures (-1) become undefined again.

    Raises InterpError for a file that cannot be read or is no list of scores.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InterpError(f"The scores {file} cannot be read ({error.strerror if isinstance(error, OSError) else 'not JSON'}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("feature"), str) for row in rows):
        raise InterpError(
            f"{file} must hold a list of scores, each with its feature, such as {{'feature': 'model.layers.24_feature7', …}}."
        )
    return [_own(row, file) if "figures" in row else _reference(row, file) for row in rows]


def _own(row: Mapping[str, Any], file: Path) -> Record:
    about = {name: row[name] for name in ("feature", "label", "category", "figures", "undefined", "failed") if name in row}
    try:
        return Record(**about, details={name: value for name, value in row.items() if name not in about})
    except TypeError as error:
        raise InterpError(f"{file} is damaged: {shown(row['feature'])} lacks entries ({error}).") from error


def _reference(row: Mapping[str, Any], file: Path) -> Record:
    figure = next((name for name, (scores, _) in _LISTS.items() if scores in row), None)
    scores = row.get(_LISTS[figure][0]) if figure else None
    if figure is None or not isinstance(scores, list) or any(as_number(score) is None and score is not None for score in scores):
        raise InterpError(f"{file} has no list of scores for {shown(row['feature'])}: neither iou_scores nor clip_scores.")
    case = Case(0, row["feature"], str(row.get("label") or ""))
    failed = reasons(NOT_FOUND for score in scores if score is None or score == _FAILED)
    defined = [None if score is None or score == _FAILED else float(score) for score in scores]
    details = {name: value for name, value in row.items() if name not in {"feature", "label"}}
    if (score := mean(defined)) is None:
        return Record.without(case, case.undefined or (NOT_FOUND if scores else UNABLE), failed=failed, details=details)
    return Record(case.name, case.said, "", {figure: {"score": score}}, "", failed, details)


def as_reference(records: Sequence[Record], measure: str) -> list[dict[str, Any]]:
    """The list as multimodal-sae would have written it, with its keys only. `measure`: "iou" or "clip"."""
    scores, average = _LISTS[measure]
    out = []
    for record in records:
        held = [_FAILED if value is None else value for value in record.details.get(scores, [])]
        row = {
            "feature": record.feature,
            scores: held,
            average: sum(value for value in held if value != _FAILED) / len(held) if held else _FAILED,
            "k": len(held) or _FAILED,
        }
        if measure == "iou":
            row["activated_pct"] = record.details["activated_pct"] if held else _FAILED
        out.append(row | {"label": record.label})
    return out


def failures_as_zero(record: Record) -> Record:
    """The record of an IoU as multimodal-sae counts it: pictures on which nothing was found are 0, in the controls too."""
    scores = record.details.get("iou_scores")
    if not scores:
        return record
    shares = {"score": sum(score is not None for score in scores) / len(scores), **record.details["defined"]}
    figure = {name: shares[name] * (value or 0.0) if name in shares else value for name, value in record.figures["iou"].items()}
    return replace(record, figures={"iou": figure}, undefined="", failed={})
