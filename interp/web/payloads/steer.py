"""The payload of the steer view: two answers and what the edits did, and a sweep."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ...errors import InterpError
from ...steering.edit_hooks import EditEffect
from ...steering.edits import Edit
from ...steering.generation import Answer
from ...steering.results import SteeringResult, Sweep

SCHEMA = "llava-microscope/steer-view/1"
_PLACES = {
    "all": "everywhere except BOS and attention sinks",
    "image": "image tokens",
    "prompt": "prompt tokens",
    "answer": "the answer and the position before it",
}
_NAMED = 6  # at most so many positions are listed one by one


class Settings(TypedDict):
    """How both answers were generated."""

    max_new_tokens: int
    temperature: float
    seed: int


class AnswerText(TypedDict):
    """`finished`: None while it grows."""

    text: str
    finished: bool | None


class DiffPiece(TypedDict):
    """A piece of both answers; `op`: equal, replace, delete or insert."""

    op: str
    plain: str
    steered: str


class WordChance(TypedDict):
    """Probability of a word at each token of the plain answer."""

    word: str
    plain: list[float]
    steered: list[float]


class Direction(TypedDict):
    """The direction of an edit: a feature with its label ("" if it has none), or a vector with its name."""

    label: str
    feature: int | None
    sae: str | None
    layer: int


class EditOutcome(Direction):
    """One edit and what it did: at how many positions it acted (`fired`), and how far it moved the states there (`absolute`, and `relative` to their length)."""

    unit: str
    value: float
    where: str
    fired: int
    absolute: float
    relative: float


class SweepPoint(TypedDict):
    """One value of a sweep. While it is answered, all but `value` and `answer` are None. `kl`: the mean over the answer."""

    value: float
    answer: str
    finished: bool | None
    diff: list[DiffPiece] | None
    kl: float | None
    relative: float | None


class SweepPayload(Direction):
    """A sweep. `state`: running, stopped or done; `others`: how many edits stay unchanged; `current`: the value of the pair shown with it."""

    state: str
    unit: str
    others: int
    current: float | None
    points: list[SweepPoint]


class SteerPayload(TypedDict):
    """The view's data. `state`: running, stopped or done; what is only known at the end is None before."""

    schema: str
    run: str | None
    state: str
    model: str
    prompt: str
    settings: Settings
    notes: list[str]
    plain: AnswerText
    steered: AnswerText
    diff: list[DiffPiece] | None
    tokens: list[str] | None
    kl: list[float] | None
    words: list[WordChance] | None
    edits: list[EditOutcome] | None
    sweep: SweepPayload | None


def running_payload(
    model: str,
    prompt: str,
    settings: Mapping[str, Any],
    plain: str,
    steered: str,
    *,
    run: str | None = None,
    stopped: bool = False,
    sweep: SweepPayload | None = None,
) -> SteerPayload:
    """The view's data while both answers grow, or, with `stopped`, after they were stopped. `sweep` stays shown with them."""
    return {
        "schema": SCHEMA,
        "run": run,
        "state": "stopped" if stopped else "running",
        "model": model,
        "prompt": prompt,
        "settings": _settings(settings),
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
    sweep: SweepPayload | None = None,
) -> SteerPayload:
    """The view's data. `labels`: names of features by (SAE, feature); those without one are shown by their number.

    Raises InterpError for a KL or a probability that is not finite: JSON cannot hold it, and gradio would turn it into null.
    """
    return {
        "schema": SCHEMA,
        "run": run,
        "state": "done",
        "model": result.model_name,
        "prompt": result.prompt,
        "settings": _settings(settings),
        "notes": list(result.notes),
        "plain": answer_text(result.plain_answer),
        "steered": answer_text(result.steered_answer),
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


def sweep_payload(sweep: Sweep, labels: Mapping[tuple[str, int], str], *, current: float | None = None) -> SweepPayload:
    """The sweep's part of the view's data. `current`: the value of the pair shown with it, which is marked."""
    points: list[SweepPoint] = [
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
) -> SweepPayload:
    """As `sweep_payload` while the answers grow: one answer so far for each value. `others`: how many edits stay unchanged."""
    points: list[SweepPoint] = [
        {"value": value, "answer": answer, "finished": None, "diff": None, "kl": None, "relative": None}
        for value, answer in zip(values, answers, strict=True)
    ]
    return _sweep("stopped" if stopped else "running", edit, others, labels, current, points)


def _sweep(
    state: str, edit: Edit, others: int, labels: Mapping[tuple[str, int], str], current: float | None, points: list[SweepPoint]
) -> SweepPayload:
    return {"state": state, "unit": edit.unit, **_direction(edit, labels), "others": others, "current": current, "points": points}


def _direction(edit: Edit, labels: Mapping[tuple[str, int], str]) -> Direction:
    """The direction of an edit: a feature with its label ("" if it has none), or a vector."""
    if edit.sae is None or edit.feature is None:
        return {"label": edit.name, "feature": None, "sae": None, "layer": edit.at}
    return {"label": labels.get((edit.sae.name, edit.feature), ""), "feature": edit.feature, "sae": edit.sae.name, "layer": edit.at}


def _edit(applied: EditEffect, labels: Mapping[tuple[str, int], str]) -> EditOutcome:
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


def _settings(settings: Mapping[str, Any]) -> Settings:
    return {"max_new_tokens": settings["max_new_tokens"], "temperature": settings["temperature"], "seed": settings["seed"]}


def answer_text(answer: Answer) -> AnswerText:
    """An answer that is complete."""
    return {"text": answer.text, "finished": answer.finished}


def text_diff(result: SteeringResult) -> list[DiffPiece]:
    """`SteeringResult.diff` as readers see it: see `answer_diff`."""
    return answer_diff(result.diff, result.plain_answer, result.steered_answer)


def answer_diff(diff: Sequence[Mapping[str, str]], plain: Answer, steered: Answer) -> list[DiffPiece]:
    """A diff of two answers as readers see it: the plain sides add up to the plain answer, the steered sides to the other one.

    Token by token if the tokens spell the text; if not (special tokens, characters of several tokens), word by word.
    """
    pieces = [dict(piece) for piece in diff]
    for side, answer in (("plain", plain), ("steered", steered)):
        filled = [piece for piece in pieces if piece[side]]
        if answer.finished and filled:
            filled[-1][side] = filled[-1][side].removesuffix(answer.tokens[-1])
        filled = [piece for piece in pieces if piece[side]]
        if filled:
            filled[0][side] = filled[0][side].lstrip()
            filled[-1][side] = filled[-1][side].rstrip()
        if "".join(piece[side] for piece in pieces) != answer.text:
            return _word_diff(plain.text, steered.text)
    return [
        {"op": _operation(piece), "plain": piece["plain"], "steered": piece["steered"]}
        for piece in pieces
        if piece["plain"] or piece["steered"]
    ]


def _operation(piece: Mapping[str, str]) -> str:
    if piece["op"] == "equal":
        return "equal"
    return "replace" if piece["plain"] and piece["steered"] else "delete" if piece["plain"] else "insert"


def _word_diff(plain: str, steered: str) -> list[DiffPiece]:
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
