"""`explain`: say in a sentence what each feature responds to, by a model on a server that is shown the feature's top pictures."""

import argparse
import functools
from collections.abc import Iterable
from pathlib import Path

from ..errors import InterpError
from . import answers, asking
from .client import Messages, RefusedError, Request
from .dimmed import conversation, dimmed
from .explanation_files import feature_of, key_of, write_explanations
from .journal import Entry
from .study import Study
from .top_images import TopImages

NAME, HELP = "explain", "say what each feature responds to"
FOLDER = "explanations"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--explainer", metavar="MODEL", help="the name of a model on the server")
    parser.add_argument("--filters", type=Path, metavar="FILE", help="explain exactly the features of a filters.json")
    parser.add_argument(
        "--pictures", type=int, default=5, metavar="N", help="top pictures to show of each; those behind them are never sent"
    )
    asking.add(parser)


def run(study: Study, args: argparse.Namespace) -> None:
    """Explain what is not explained yet, and write the explanations in the format of multimodal-sae."""
    if not args.explainer:
        raise InterpError("--explainer is missing: the name of a model on the server, as it lists it at /v1/models.")
    top = TopImages.open(study)
    if not 1 <= args.pictures <= top.each:
        raise InterpError(
            f"--pictures is {args.pictures}; the study keeps {top.each} for each feature, so it must be from 1 to {top.each}."
        )
    features, silent = wanted(study, top, args.filters)
    requests = [Request(key_of(study.module, each), functools.partial(_messages, top, each, args.pictures)) for each in features]
    stage = asking.Stage(study, NAME, {"pictures": args.pictures, "prompt": answers.EXPLAIN})
    entries = asking.ask(stage, args.explainer, requests, answers.explanation, args)
    if entries is not None:
        texts = _explanations(entries.values())
        file = write_explanations(study.folder / FOLDER, study.module, texts)
        unable = sum(text == answers.UNABLE for text in texts.values())
        asked = [entries[request.key] for request in requests]
        parts = [f"{len(texts) - unable} explained", f"{unable} without anything in common"]
        parts += [f"{silent} never active"] if silent else []
        print(f"{', '.join(parts)}: {file}")  # noqa: T201 - what the command is for
        if failed := asking.failures(asked):
            print(failed)  # noqa: T201


def wanted(study: Study, top: TopImages, filters: Path | None) -> tuple[list[int], int]:
    """The features to explain, ascending, and the number of those asked for that are active on no picture."""
    chosen = study.chosen(filters)
    if chosen is None:
        return top.features, 0
    active = set(top.features)
    features = [feature for feature in chosen if feature in active]
    return features, len(chosen) - len(features)


def _messages(top: TopImages, feature: int, pictures: int) -> Messages:
    shown = [(each.picture, each.heat) for each in top.shown(feature, pictures)]
    try:
        return conversation(dimmed(shown), answers.EXPLAIN.format(count=len(shown)))
    except InterpError as error:  # it may be active at padding alone, which no picture shows
        raise RefusedError(str(error)) from error


def _explanations(entries: Iterable[Entry]) -> dict[int, str]:
    """The explanation of each feature that has one."""
    return {feature_of(entry.key): answers.explanation(entry.answer) for entry in entries if not entry.failure}
