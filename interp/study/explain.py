"""`explain`: say what each feature responds to, by a model on a server that is shown the feature's top pictures, or by the model itself."""

import argparse
import functools
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import InterpError
from ..validation import shown
from . import answers, asking, self_explain, work
from .client import Messages, RefusedError, Request
from .dimmed import conversation, dimmed
from .explanation_files import feature_of, key_of, write_explanations
from .journal import Entry
from .said import EXPLANATIONS
from .study import Study
from .top_images import TopImages

NAME, HELP = "explain", "say what each feature responds to"
SELF = "self"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}", re.ASCII)


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "--explainer", metavar="MODEL", help="the name of a model on the server; or self, the studied model with the feature turned up"
    )
    parser.add_argument("--filters", type=Path, metavar="FILE", help="explain exactly the features of a filters.json")
    parser.add_argument(
        "--pictures", type=int, default=5, metavar="N", help="top pictures to show of each; those behind them are never shown"
    )
    parser.add_argument("--name", metavar="NAME", help="keeps the results in explanations-NAME, beside those of another explainer")
    asking.add(parser)
    self_explain.add(parser)


def run(study: Study, args: argparse.Namespace) -> None:
    """Explain what is not explained yet, and write the explanations in the format of multimodal-sae."""
    if not args.explainer:
        raise InterpError("--explainer is missing: the name of a model on the server, as it lists it at /v1/models, or self.")
    top = TopImages.open(study)
    if not 1 <= args.pictures <= top.each:
        raise InterpError(
            f"--pictures is {args.pictures}; the study keeps {top.each} for each feature, so it must be from 1 to {top.each}."
        )
    features, silent = wanted(study, top, args.filters)
    stage = named(NAME, args.name)
    failed = ""
    if args.explainer == SELF:
        look = self_explain.look_of(study, args)
        if args.dry_run:
            work.once(lambda: print(self_explain.foreseen(look, len(features))))  # noqa: T201 - what the command is for
            return
        texts: dict[int, str] | None = self_explain.explain(study, top, stage, features, look)
    else:
        requests = [Request(key_of(study.module, each), functools.partial(_messages, top, each, args.pictures)) for each in features]
        about = asking.Stage(study, stage, {"pictures": args.pictures, "prompt": answers.EXPLAIN})
        entries = asking.ask(about, args.explainer, requests, answers.explanation, args)
        texts = None if entries is None else _explanations(entries.values())
        failed = "" if entries is None else asking.failures([entries[request.key] for request in requests])
    if texts is not None and work.state().is_main_process:
        file = write_explanations(study.folder / named(EXPLANATIONS, args.name), study.module, texts)
        unable = sum(text == answers.UNABLE for text in texts.values())
        parts = [f"{len(texts) - unable} explained", f"{unable} without anything in common"]
        parts += [f"{silent} never active"] if silent else []
        print(f"{', '.join(parts)}: {file}", failed, sep="\n" if failed else "")  # noqa: T201 - what the command is for


def named(folder: str, name: str | None) -> str:
    """A folder's name, of results that may lie beside others. Raises InterpError for a name that is none."""
    if name and not _NAME.fullmatch(name):
        raise InterpError(f"--name is {shown(name)}; it must be of letters, digits, - and _.")
    return f"{folder}-{name}" if name else folder


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
