"""Judges: who answers yes or no to a question about pictures. A server that speaks OpenAI's chat completions, or CLIP, which needs none.

A judge is a plain function, `Judge`; an answer that failed or cannot be read is None.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ...concepts.clip import Clip
from ..chat import Server, connect
from ..client import MalformedError, Messages, Request, Retry, ask_all
from ..dimmed import data_url
from ..journal import Entry, Journal

_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_SHOWS = """\
Does this picture show what "{label}" names? It may name a scene, an object, a part of one, a material, a texture or a color, and it counts wherever \
in the picture it is.

Answer with one word: yes or no."""


@dataclass(frozen=True)
class Question:
    """Does this picture show what the label names?"""

    key: str
    """Its name, unique among the questions asked together."""
    picture: Image.Image
    label: str
    rivals: Sequence[str] = ()
    """Labels of other features that it may be a picture of instead."""


Judge = Callable[[Sequence[Question], Path], list[bool | None]]
"""(questions, file of a journal) → the answers, in the order of the questions."""


@dataclass(frozen=True)
class Asker:
    """A server and how to ask it."""

    server: Server
    concurrency: int = 8
    retry_failed: bool = False
    retry: Retry = field(default_factory=Retry)

    def ask(self, messages: Mapping[str, Callable[[], Messages]], journal: Path) -> dict[str, bool | None]:
        """The yes or no to each of several conversations; what the journal holds already is not asked again.

        Raises InterpError if the server refuses every request.
        """
        requests = [Request(key, make) for key, make in messages.items()]

        async def asked() -> Mapping[str, Entry]:
            async with connect(self.server) as send:
                return await ask_all(
                    requests, send, held, check=yes, concurrency=self.concurrency, retry=self.retry, retry_failed=self.retry_failed
                )

        with Journal(journal) as held:
            entries = asyncio.run(asked())
        return {key: None if entry.failure else yes(entry.answer) for key, entry in entries.items()}

    def judge(self, questions: Sequence[Question], journal: Path) -> list[bool | None]:
        """The answers of a `Judge`: each picture by itself, without a hint at where the feature is active."""

        def about(question: Question) -> Callable[[], Messages]:
            return lambda: conversation([question.picture], _SHOWS.format(label=question.label))

        answers = self.ask({question.key: about(question) for question in questions}, journal)
        return [answers[question.key] for question in questions]


def conversation(pictures: Sequence[Image.Image], text: str) -> Messages:
    """One turn of the user: pictures, then a text."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def yes(answer: str) -> bool:
    """Whether an answer says yes (or 1) rather than no (or 0). Raises MalformedError for one that says both or neither."""
    said = _THINKING.sub("", answer)
    words = {word.lower() for word in re.findall(r"\b(?:yes|no|[01])\b", said, re.IGNORECASE)}
    if words in ({"yes"}, {"1"}, {"yes", "1"}):
        return True
    if words in ({"no"}, {"0"}, {"no", "0"}):
        return False
    raise MalformedError(f"it says neither yes nor no, or both: {' '.join(said.split())[:60]}")


@dataclass(frozen=True)
class ClipJudge:
    """CLIP as a judge.

    Yes if the picture is nearer to "a picture of LABEL" than to "a picture" and to "a picture of" every rival with another label. The rule needs no
    threshold, which would differ from label to label; a label that says no more than its rivals' is answered no.
    """

    clip: Clip

    def __call__(self, questions: Sequence[Question], _: Path) -> list[bool | None]:
        """The answers of a `Judge`; CLIP never fails to answer."""
        texts = {name: place for place, name in enumerate(dict.fromkeys(text for one in questions for text in self._texts(one)))}
        if not questions:
            return []
        known, seen = self.clip.texts(list(texts)), self.clip.pictures([one.picture for one in questions])
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
