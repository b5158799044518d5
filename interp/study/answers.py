"""What the explaining and the refining model are asked to write, and how their answers are read.

The tags are those of multimodal-sae. A tag is found in any case, in bold or code, with a colon or in brackets; a model's thinking before its answer
is dropped. Whatever else an answer may be is `MalformedError`, with the reason.
"""

import re
from dataclasses import dataclass

from .client import MalformedError

UNABLE = "Unable to produce descriptions"
"""The explanation of a feature that the explaining model could not describe."""
CLASSES = ("scene", "object", "part", "material", "texture", "color")

EXPLAIN = f"""\
These are {{count}} pictures in which one unit of a vision-language model is active. Where it is active the picture has its natural brightness; \
the less it is active, the darker the picture was made. Look at the bright parts only; the dark surroundings are there for orientation.

What do the bright parts of all pictures have in common? It may be a scene, an object, a part of one, a material, a texture or a color. Describe it \
as precisely as all pictures allow, in one short sentence without details that only some of them show.

Answer with one line:
[EXPLANATION]: your description
If the bright parts have nothing in common, answer instead:
{UNABLE}"""

REFINE = """\
This sentence describes what a unit of a vision-language model responds to in pictures:

{explanation}

1. Name what it describes in at most three words, as one would label it: a noun, or a color, texture or material.
2. Say what kind of thing that is: scene, object, part (of an object or body), material, texture or color.

Answer with two lines:
[ANSWER] the name
[CLASS] the kind"""

_LONGEST_LABEL = 8  # words; more are a sentence
_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_UNABLE = re.compile(r"unable\s+to\s+produce\s+(?:any\s+)?descriptions?", re.IGNORECASE)
_REFUSAL = re.compile(
    r"(?:i['\u2019]?m|i\s+am)\s+(?:very\s+)?sorry|sorry\b|i\s+(?:can(?:not|['\u2019]t)|am\s+unable|apologi[sz]e)|as\s+an\s+ai\b",
    re.IGNORECASE,
)


def explanation(answer: str) -> str:
    """The explanation in an answer, on one line, or `UNABLE`."""
    said = _after(answer, "EXPLANATION")
    if said is None:
        if _UNABLE.search(answer):
            return UNABLE
        raise MalformedError(_without(answer, "EXPLANATION"))
    return UNABLE if _UNABLE.match(said) else said


@dataclass(frozen=True)
class Refined:
    """What a refining model made of an explanation."""

    label: str
    kind: str | None
    """One of `CLASSES`; None if the answer names none of them."""


def refined(answer: str) -> Refined:
    """The label and the class in an answer. A missing or unknown class is no fault: the label is what counts."""
    label = _after(answer, "ANSWER")
    if label is None:
        raise MalformedError(_without(answer, "ANSWER"))
    label = label.strip(".! \"'“”\u2018\u2019")
    if not label:
        raise MalformedError("the name in it is empty")
    if len(label.split()) > _LONGEST_LABEL:
        raise MalformedError(f"the name in it has more than {_LONGEST_LABEL} words")
    try:
        kind = (_after(answer, "CLASS") or "").casefold().rstrip(".").replace("colour", "color")
    except MalformedError:
        kind = ""
    return Refined(label, next((each for each in CLASSES if kind in {each, f"{each}s"}), None))


def _after(answer: str, tag: str) -> str | None:
    """What follows the last tag of this name, up to an empty line or another tag, on one line; None without a tag."""
    answer = _THINKING.sub("", answer)
    parts = re.split(rf"\W*(?:\[\s*{tag}\s*\][*_`]*\s*:?|\b{tag}[*_`]*\s*:)[*_`]*", answer, flags=re.IGNORECASE)
    if len(parts) == 1:
        return None
    said = re.split(r"\n\s*\n|\n?\W*\[[A-Z]+\]|\n\W*[A-Z]{3,}\W*:|```", parts[-1].strip(), maxsplit=1)[0]
    said = " ".join(said.split()).strip("*_` ")
    if not said:
        raise MalformedError(f"nothing follows its [{tag}]")
    if re.fullmatch(r"<.*>|\[.*\]|\.\.\.|…|your description|the name|the kind", said, re.IGNORECASE):
        raise MalformedError(f"it repeats the form instead of filling it in: {said[:60]}")
    if _REFUSAL.match(said):
        raise MalformedError(f"it is a refusal: {said[:60]}")
    return said


def _without(answer: str, tag: str) -> str:
    """Why an answer without its tag cannot be used."""
    said = " ".join(_THINKING.sub("", answer).split())
    if not said:
        return "it is empty"
    return f"it is a refusal: {said[:60]}" if _REFUSAL.match(said) else f"it has no [{tag}]: {said[:60]}"
