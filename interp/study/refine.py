"""`refine`: turn each explanation into a short label and the kind of thing it names, by a language model on a server."""

import argparse
import functools
import hashlib
from pathlib import Path

from ..errors import InterpError
from . import answers, asking
from .client import Messages, Request
from .explain import named
from .explanation_files import key_of, read_texts, write_labels
from .said import CLASSES, EXPLANATIONS, LABELS
from .study import Study

NAME, HELP = "refine", "turn explanations into short labels"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--refiner", metavar="MODEL", help="the name of a model on the server; it need not see pictures")
    parser.add_argument("--filters", type=Path, metavar="FILE", help="refine exactly the features of a filters.json")
    parser.add_argument("--explanations", type=Path, metavar="FOLDER", help="with files of multimodal-sae  (default: those of the study)")
    parser.add_argument("--name", metavar="NAME", help="refines explanations-NAME into labels-NAME and classes-NAME")
    asking.add(parser)


def run(study: Study, args: argparse.Namespace) -> None:
    """Refine what is not refined yet, and write labels and classes. What the explainer could not describe has neither."""
    if not args.refiner:
        raise InterpError("--refiner is missing: the name of a model on the server, as it lists it at /v1/models.")
    texts = wanted(study, args.explanations or study.folder / named(EXPLANATIONS, args.name), args.filters)
    able = {feature: text for feature, text in texts.items() if text != answers.UNABLE}
    requests = {feature: Request(_key(study.module, feature, text), functools.partial(_messages, text)) for feature, text in able.items()}
    stage = asking.Stage(study, named(NAME, args.name), {"prompt": answers.REFINE})
    entries = asking.ask(stage, args.refiner, list(requests.values()), answers.refined, args)
    if entries is None:
        return
    asked = {feature: entries[request.key] for feature, request in requests.items()}
    made = {feature: answers.refined(entry.answer) for feature, entry in asked.items() if not entry.failure}
    file = write_labels(study.folder / named(LABELS, args.name), study.module, {feature: each.label for feature, each in made.items()})
    kinds = {feature: each.kind for feature, each in made.items() if each.kind}
    write_labels(study.folder / named(CLASSES, args.name), study.module, kinds)
    unable, unclear = len(texts) - len(able), len(made) - len(kinds)
    print(f"{len(made)} labels, {unclear} of them of no known class, {unable} without anything in common: {file}")  # noqa: T201 - what the command is for
    if failed := asking.failures(list(asked.values())):
        print(failed)  # noqa: T201


def wanted(study: Study, folder: Path, filters: Path | None) -> dict[int, str]:
    """The explanations of the study's layer, of exactly the features of a filter. Raises InterpError if there are none."""
    layer = study.found["sae"]["layer"]
    texts = read_texts(folder).get(layer, {})
    chosen = study.chosen(filters)
    found = {feature: text for feature, text in sorted(texts.items()) if chosen is None or feature in chosen}
    if not found:
        raise InterpError(
            f"{folder} explains {'none of these features' if texts else f'no feature of layer {layer}, which the SAE reads'}."
        )
    return found


def _key(module: str, feature: int, text: str) -> str:
    """With the explanation, so that another one is refined anew."""
    return f"{key_of(module, feature)} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _messages(text: str) -> Messages:
    return [{"role": "user", "content": answers.REFINE.format(explanation=text)}]
