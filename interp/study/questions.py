"""What to attribute: for each sample, which word of the answer, against which other word. Of the study's own samples, or from a file of multimodal-sae.

That file is a list of {"prompt", "answer", "baseline", "image"}. The answer is put into the model's mouth, and its first token is explained. The
reference takes words as the vocabulary spells them ("Ġdog", "▁dog"), and silently explains <unk> where one is missing; here a plain word will do.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..concepts.samples import Sample
from ..errors import InterpError
from ..tracing.select import content_word
from ..tracing.trace import Trace
from ..validation import shown
from .data import Data

_NEEDED = ("prompt", "answer", "baseline", "image")


@dataclass(frozen=True)
class Question:
    """One sample and what to explain of its answer."""

    sample: Sample
    """With an answer to force, or without."""
    word: str | int | None
    """A word of the answer, or a token's number in it; None for the first content word."""
    baseline: str | None
    """None: the likeliest other token."""

    def token(self, trace: Trace) -> str | int:
        """What to explain, as `interp.attribute` takes it."""
        return content_word(trace) if self.word is None else self.word


@dataclass(frozen=True)
class Questions:
    """All questions, by number."""

    count: int
    by_number: Callable[[], Callable[[int], Question]]
    """Gives a function that is asked in ascending order."""


def of_study(data: Data, prompt: str | None, word: str | None, baseline: str | None, first: int | None) -> Questions:
    """About the study's samples, or the first so many; `prompt` instead of their own."""
    if first is not None and not 1 <= first <= data.count:
        raise InterpError(f"--first is {first}; the study has {data.count} samples.")

    def by_number() -> Callable[[int], Question]:
        samples = data.by_number()

        def question(number: int) -> Question:
            sample = samples(number)
            asked = sample.prompt if prompt is None else prompt
            return Question(Sample(sample.id, sample.picture, asked, path=sample.path), word, baseline)

        return question

    return Questions(data.count if first is None else first, by_number)


def of_file(file: Path) -> Questions:
    """Of a JSON file of multimodal-sae; pictures are looked for beside it. Raises InterpError, naming the entry, for one that cannot be asked."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InterpError(f"--pairs {file} cannot be read ({why}).") from error
    if not isinstance(held, list) or not held:
        raise InterpError(f"--pairs {file} must hold a list of entries with {', '.join(_NEEDED)}.")
    questions = [_question(file, number, entry) for number, entry in enumerate(held)]
    return Questions(len(questions), lambda: questions.__getitem__)


def _question(file: Path, number: int, entry: Any) -> Question:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) and entry[name].strip() for name in _NEEDED):
        raise InterpError(f"Entry {number} of --pairs {file} is {shown(entry)}; it must have text for {', '.join(_NEEDED)}.")
    picture = file.parent / entry["image"]
    if "\0" in entry["image"] or not picture.is_file():
        raise InterpError(f"Entry {number} of --pairs {file} names the picture {shown(entry['image'])}, which is not in {file.parent}.")
    answer, baseline = (_word(entry[name]) for name in ("answer", "baseline"))
    sample = Sample(str(number), picture, entry["prompt"].replace("<image>", "").strip(), answer, str(picture))
    return Question(sample, 0, baseline)


def _word(piece: str) -> str:
    """A word as it is read, from a piece of a vocabulary."""
    return piece.replace("Ġ", " ").replace("▁", " ").strip()
