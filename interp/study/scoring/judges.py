"""Judges: who answers yes or no to "does this picture show what the label names?". A model on a server, or CLIP, which needs none."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from ...concepts.clip import Clip
from ..client import MalformedError, Messages
from ..dimmed import conversation

SHOWS = """\
Does this picture show what "{label}" names? It may name a scene, an object, a part of one, a material, a texture or a color, and it counts wherever \
in the picture it is.

Answer with one word: yes or no."""
_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """Does this picture show what the label names?"""

    picture: Callable[[], Image.Image]
    """Called when the question is asked: the pictures of thousands do not fit in memory."""
    label: str
    rivals: Sequence[str] = ()
    """Labels of other features that it may be a picture of instead."""

    def messages(self) -> Messages:
        """For a model on a server: the picture by itself, without a hint at where the feature is active."""
        return conversation([self.picture()], SHOWS.format(label=self.label))


def yes(answer: str) -> bool:
    """Whether an answer says yes (or 1) rather than no (or 0). Raises MalformedError for one that says both or neither."""
    said = _THINKING.sub("", answer)
    words = {word.lower() for word in re.findall(r"\b(?:yes|no|[01])\b", said, re.IGNORECASE)}
    if words in ({"yes"}, {"1"}, {"yes", "1"}):
        return True
    if words in ({"no"}, {"0"}, {"no", "0"}):
        return False
    raise MalformedError(f"it says neither yes nor no, or both: {' '.join(said.split())[:60]}")


def key_of(name: str, *said: str) -> str:
    """A request's name: the feature's, and what the answer depends on, so that another label is judged anew."""
    return f"{name} {hashlib.sha256(repr(said).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class ClipJudge:
    """CLIP as a judge.

    Yes if the picture is nearer to "a picture of LABEL" than to "a picture" and to "a picture of" every rival with another label. The rule needs no
    threshold, which would differ from label to label; a label that says no more than its rivals' is answered no.
    """

    clip: Clip

    def __call__(self, questions: Sequence[Question]) -> list[bool | None]:
        """The answers in the order of the questions. CLIP never fails to answer."""
        if not questions:
            return []
        texts = {name: place for place, name in enumerate(dict.fromkeys(text for one in questions for text in self._texts(one)))}
        known, seen = self.clip.texts(list(texts)), self.clip.pictures([one.picture() for one in questions])
        answers: list[bool | None] = []
        for one, picture in zip(questions, seen, strict=True):
            own, *others = (known[[texts[text] for text in self._texts(one)]] @ picture).tolist()
            answers.append(own > max(others))
        return answers

    @staticmethod
    def _texts(one: Question) -> list[str]:
        """The label's text, then those that it must beat."""
        own = _named(one.label)
        return [own, *dict.fromkeys(text for text in ("a picture", *map(_named, one.rivals)) if text != own)]


def _named(label: str) -> str:
    return f"a picture of {label.strip().lower()}"
