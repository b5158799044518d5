"""SteeringResult answers and sweeps as the compact dictionary that the steer view draws. Knows neither gradio nor HTML, and loads no model."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InterpError
from ...steering.edit_hooks import EditEffect
from ...steering.edits import Edit
from ...steering.generation import Answer
from ...steering.results import SteeringResult, Sweep

SCHEMA = "llava-microscope/steer-view/1"
_SETTINGS = ("max_new_tokens", "temperature", "seed")
_PLACES = {
    "all": "everywhere but BOS and attention sinks",
    "image": "image tokens",
    "prompt": "prompt tokens",
    "answer": "the answer and the position before it",
}
_NAMED = 6  # positions that are named one by one


def running_payload(
    model: str,
    prompt: str,
    settings: Mapping[str, Any],
    plain: str,
    steered: str,
    *,
    run: str | None = None,
    stopped: bool = False,
    sweep: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The view's data while both answers grow, or, with `stopped`, after they were stopped. `sweep` stays shown beside them."""
    return {
        "schema": SCHEMA,
        "run": run,
        "state": "stopped" if stopped else "running",
        "model": model,
        "prompt": prompt,
        "settings": {name: settings[name] for name in _SETTINGS},
        "notes": [],
        "plain": {"text": plain, "finished": None},
        "steered": {"text": steered, "finished": None},
        "diff": None,
        "tokens": None,
        "kl": None,
        "words": None,
        "edits": None,
        "sweep": sweep,
    }


def steer_payload(
    result: SteeringResult,
    settings: Mapping[str, Any],
    labels: Mapping[tuple[str, int], str],
    *,
    run: str | None = None,
    sweep: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The view's data. `labels`: names of features by (SAE, feature); those without one are shown by their number.

    Raises InterpError for a KL or a probability that is not finite: JSON has no word for it, and gradio would turn it into "unknown".
    """
    return {
        "schema": SCHEMA,
        "run": run,
        "state": "done",
        "model": result.model_name,
        "prompt": result.prompt,
        "settings": {name: settings[name] for name in _SETTINGS},
        "notes": list(result.notes),
        "plain": _answer(result.plain_answer),
        "steered": _answer(result.steered_answer),
        "diff": text_diff(result),
        "tokens": list(result.plain_answer.tokens),
        "kl": _finite("KL", result.kl),
        "words": [
            {
                "word": word,
                "plain": _finite(f"the probability of {word!r}", plain),
                "steered": _finite(f"the probability of {word!r}", steered),
            }
            for word, (plain, steered) in result.words.items()
        ],
        "edits": [_edit(applied, labels) for applied in result.applied],
        "sweep": sweep,
    }


def sweep_payload(sweep: Sweep, labels: Mapping[tuple[str, int], str], *, current: float | None = None) -> dict[str, Any]:
    """The sweep's part of the view's data. `current`: the value that the pair beside it has, to be marked."""
    points = [
        {
            "value": value,
            "answer": run.steered,
            "finished": run.steered_answer.finished,
            "diff": text_diff(run),
            "kl": _short(sum(_finite("KL", run.kl)) / len(run.kl)),
            "relative": _short(run.applied[0].relative),
        }
        for value, run in zip(sweep.values, sweep.runs, strict=True)
    ]
    return _sweep("done", sweep.edit, len(sweep.runs[0].applied) - 1, labels, current, points)


def running_sweep(
    edit: Edit,
    values: Sequence[float],
    answers: Sequence[str],
    labels: Mapping[tuple[str, int], str],
    *,
    others: int = 0,
    current: float | None = None,
    stopped: bool = False,
) -> dict[str, Any]:
    """As `sweep_payload` while the answers grow: one answer so far for each value. `others`: how many edits stay unchanged beside the one swept."""
    points = [
        {"value": value, "answer": answer, "finished": None, "diff": None, "kl": None, "relative": None}
        for value, answer in zip(values, answers, strict=True)
    ]
    return _sweep("stopped" if stopped else "running", edit, others, labels, current, points)


def _sweep(
    state: str, edit: Edit, others: int, labels: Mapping[tuple[str, int], str], current: float | None, points: list[dict[str, Any]]
) -> dict[str, Any]:
    return {"state": state, "unit": edit.unit, **_direction(edit, labels), "others": others, "current": current, "points": points}


def _direction(edit: Edit, labels: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """What is pushed along: a feature with its label, "" where it has none, or a vector."""
    if edit.sae is None or edit.feature is None:
        return {"label": edit.name, "feature": None, "sae": None, "layer": edit.at}
    return {"label": labels.get((edit.sae.name, edit.feature), ""), "feature": edit.feature, "sae": edit.sae.name, "layer": edit.at}


def _edit(applied: EditEffect, labels: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    edit = applied.edit
    return {
        **_direction(edit, labels),
        "unit": edit.unit,
        "value": edit.value,
        "where": place(edit.where),
        "fired": applied.fired,
        "absolute": _short(applied.absolute),
        "relative": _short(applied.relative),
    }


def place(where: Any) -> str:
    """An edit's `where` in words. Rows and columns count from 1, as the pictures of the other views do."""
    if isinstance(where, str):
        return _PLACES[where]
    if "positions" in where:
        named = ", ".join(map(str, where["positions"][:_NAMED])) + (", …" if len(where["positions"]) > _NAMED else "")
        return f"position {named}" if len(where["positions"]) == 1 else f"{len(where['positions'])} positions: {named}"
    grid = f" of grid {where['grid'] + 1}" if where.get("grid") else ""
    if "box" in where:
        top, left, bottom, right = (edge + 1 for edge in where["box"])
        return f"patches of rows {top} to {bottom}, columns {left} to {right}{grid}"
    row, column = where["patches"][0]
    return (f"patch row {row + 1}, column {column + 1}" if len(where["patches"]) == 1 else f"{len(where['patches'])} patches") + grid


def _answer(answer: Answer) -> dict[str, Any]:
    return {"text": answer.text, "finished": answer.finished}


def text_diff(result: SteeringResult) -> list[dict[str, str]]:
    """The pieces of `SteeringResult.diff` as readers see the answers: all plain sides together are the plain answer, all steered sides the steered one.

    Token by token where the tokens read as the text does. Where they do not (special tokens, characters of several tokens), word by word.
    """
    pieces = [dict(piece) for piece in result.diff]
    for side, answer in (("plain", result.plain_answer), ("steered", result.steered_answer)):
        filled = [piece for piece in pieces if piece[side]]
        if answer.finished and filled:
            filled[-1][side] = filled[-1][side].removesuffix(answer.tokens[-1])
        filled = [piece for piece in pieces if piece[side]]
        if filled:
            filled[0][side] = filled[0][side].lstrip()
            filled[-1][side] = filled[-1][side].rstrip()
        if "".join(piece[side] for piece in pieces) != answer.text:
            return _word_diff(result.plain, result.steered)
    return [{**piece, "op": _operation(piece)} for piece in pieces if piece["plain"] or piece["steered"]]


def _operation(piece: Mapping[str, str]) -> str:
    if piece["op"] == "equal":
        return "equal"
    return "replace" if piece["plain"] and piece["steered"] else "delete" if piece["plain"] else "insert"


def _word_diff(plain: str, steered: str) -> list[dict[str, str]]:
    old, new = re.findall(r"\s*\S+", plain), re.findall(r"\s*\S+", steered)
    codes = difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    return [{"op": op, "plain": "".join(old[a:b]), "steered": "".join(new[c:d])} for op, a, b, c, d in codes]


def _finite(name: str, values: Sequence[float]) -> list[float]:
    for position, value in enumerate(values):
        if not math.isfinite(value):
            raise InterpError(f"With these edits {name} is {value} at token {position} of the plain answer. Push less.")
    return [_short(value) for value in values]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
