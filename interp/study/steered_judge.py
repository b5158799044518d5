"""A judge of steered answers: a model on a server that sees the picture, the question, both answers and what the feature is said to stand for.

The judge of multimodal-sae sees the two answers alone. As a control, some changes are judged again with the label of another feature: what they
are given of categories 2 and 3 is what the judge finds anywhere.
"""

import argparse
import functools
import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from ..validation import whole_number
from . import asking
from .client import MalformedError, Messages, RefusedError, Request
from .dimmed import conversation
from .journal import Entry
from .study import Study

if TYPE_CHECKING:
    from .steered import Answered, Steered

CATEGORIES = {"1": "no effect", "2": "mentions it", "3": "is shaped by it", "4": "something else"}
"""Those of multimodal-sae."""
JUDGE = """\
A vision-language model was asked about this picture twice. The second time, one unit inside it was turned up or down while it answered. The unit is \
said to stand for "{label}".

Question: {prompt}

First answer: {original}

Second answer: {clamped}

What is the difference between the two answers?
1: none that matters
2: the second one mentions {label}, or does not mention it any more, and is otherwise much the same
3: {label} shapes the second answer as a whole: what it describes, or how it reasons
4: something that has nothing to do with {label}, or the second answer makes no sense

Answer with one digit."""
_THINKING = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def judge(study: Study, steered: "Steered", args: argparse.Namespace) -> Mapping[str, Entry] | None:
    """Have the changes judged that are not judged yet. What `asking.ask` returns."""
    controls = whole_number("controls", args.controls, 0)
    changed = [each for each in steered.answers if each.changed and each.label]
    labels = sorted({each.label for each in steered.answers if each.label})
    requests = [_request(steered, each, each.label) for each in changed]
    rng = random.Random(f"controls {steered.name}")
    for each in rng.sample(changed, min(controls, len(changed))) if len(labels) > 1 else []:
        other = rng.choice([label for label in labels if label != each.label])
        requests.append(_request(steered, each, other))
    return asking.ask(asking.Stage(study, steered.judge, {"prompt": JUDGE}), args.judge, requests, category, args)


def category(answer: str) -> str:
    """The category in a judge's answer. Raises MalformedError for one that names none, or several."""
    said = _THINKING.sub("", answer)
    found = set(re.findall(r"(?<![\d.])[1-4](?![\d.]*\d)", said))
    if len(found) != 1:
        raise MalformedError(f"it names {'no category' if not found else 'several categories'}: {' '.join(said.split())[:60]}")
    return found.pop()


def _request(steered: "Steered", each: "Answered", label: str) -> Request:
    return Request(each.key(label), functools.partial(_messages, steered, each, label))


def _messages(steered: "Steered", each: "Answered", label: str) -> Messages:
    told = JUDGE.format(label=label, prompt=each.prompt, original=each.original, clamped=each.clamped)
    try:
        with Image.open(steered.picture(each.sample)) as picture:
            return conversation([picture.convert("RGB")], told)
    except OSError as error:
        raise RefusedError(f"the copy of its picture cannot be read ({error})") from error
