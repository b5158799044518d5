"""What the view of a word is told about changed runs: the answer without some patches."""

from typing import TypedDict

from ...attention.changed import Changed
from ...errors import InterpError
from .steer import AnswerText, DiffPiece, answer_diff, answer_text


class WhatIf(TypedDict):
    """The answer without some patches beside the plain one; for each token of the plain answer, its probability in both runs, and the KL in nats."""

    plain: AnswerText
    changed: AnswerText
    diff: list[DiffPiece]
    before: list[float]
    after: list[float]
    kl: list[float]
    about: str


def what_if(changed: Changed, about: str) -> WhatIf:
    """An answer without some patches, in the form the view reads. `about`: what was done to them."""
    if changed.answer is None:
        raise InterpError("This run has no second answer; leave answer=False out.")
    before, after = changed.probability
    return {
        "plain": answer_text(changed.plain_answer),
        "changed": answer_text(changed.answer),
        "diff": answer_diff(changed.diff, changed.plain_answer, changed.answer),
        "before": before.tolist(),
        "after": after.tolist(),
        "kl": changed.kl.tolist(),
        "about": about,
    }
