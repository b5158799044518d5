"""What the view of a word is told about changed runs: the answer without some patches, and the fewest that flip a word."""

from typing import TypedDict

from ...attention.changed import Changed
from ...attention.evidence import Evidence
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


class Fewest(TypedDict):
    """The fewest patches without which a word is no longer the likeliest: positions, the word's probability with and without them."""

    positions: list[int]
    flipped: bool
    instead: str | None
    before: float
    after: float
    tried: int


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


def fewest(evidence: Evidence) -> Fewest:
    """Smallest evidence, in the form the view reads."""
    return {
        "positions": list(evidence.patches),
        "flipped": evidence.flipped,
        "instead": evidence.instead,
        "before": evidence.probability,
        "after": evidence.probabilities[-1] if evidence.probabilities else evidence.probability,
        "tried": evidence.forwards,
    }
