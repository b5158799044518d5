"""What steering gives back: a plain and a steered answer, and sweeps of them."""

import difflib
from dataclasses import dataclass
from typing import Any

from .edit_hooks import EditEffect
from .edits import Edit
from .generation import Answer


def difference(plain: Answer, steered: Answer) -> list[dict[str, str]]:
    """Token by token: pieces {"op": "equal" | "replace" | "delete" | "insert", "plain": text, "steered": text} in order."""
    matcher = difflib.SequenceMatcher(a=plain.ids, b=steered.ids, autojunk=False)
    return [
        {"op": op, "plain": "".join(plain.tokens[a:b]), "steered": "".join(steered.tokens[c:d])} for op, a, b, c, d in matcher.get_opcodes()
    ]


@dataclass(frozen=True)
class SteeringResult:
    """A plain and a steered answer to one picture and prompt."""

    model_name: str
    prompt: str
    plain_answer: Answer
    steered_answer: Answer
    applied: tuple[EditEffect, ...]
    kl: tuple[float, ...]
    """KL(plain || steered) in nats at each position of the plain answer, both reading the plain answer; kl[0] is the first answer token."""
    words: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    """Word → its probability (all single-token spellings) plain and steered, at the same positions as `kl`."""
    notes: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """The answer without edits."""
        return self.plain_answer.text

    @property
    def steered(self) -> str:
        """The answer with all edits."""
        return self.steered_answer.text

    @property
    def fired(self) -> tuple[int, ...]:
        """How many positions each edit really changed."""
        return tuple(applied.fired for applied in self.applied)

    @property
    def diff(self) -> list[dict[str, str]]:
        """Token by token: pieces {"op": "equal" | "replace" | "delete" | "insert", "plain": text, "steered": text} in order."""
        return difference(self.plain_answer, self.steered_answer)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "schema": "llava-microscope/steering/1",
            "model": self.model_name,
            "prompt": self.prompt,
            "plain": self.plain,
            "steered": self.steered,
            "plain_finished": self.plain_answer.finished,
            "steered_finished": self.steered_answer.finished,
            "diff": self.diff,
            "tokens": list(self.plain_answer.tokens),
            "kl": list(self.kl),
            "words": {word: {"plain": list(plain), "steered": list(steered)} for word, (plain, steered) in self.words.items()},
            "edits": [applied.to_dict() for applied in self.applied],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Sweep:
    """The same edit at several values."""

    values: tuple[float, ...]
    """Of `edit`'s unit."""
    edit: Edit
    runs: tuple[SteeringResult, ...]
    """One for each value."""

    def to_list(self) -> list[dict[str, Any]]:
        """One {strength (or the edit's own unit), answer, kl} for each value; kl is the mean over the plain answer's positions, in nats."""
        return [
            {self.edit.unit: value, "answer": run.steered, "kl": sum(run.kl) / len(run.kl), "relative": run.applied[0].relative}
            for value, run in zip(self.values, self.runs, strict=True)
        ]
