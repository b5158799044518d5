"""`filters`: choose the features that other verbs are restricted to, and write them as a filters.json, the file of multimodal-sae.

By what they did for a word (`attribute`), by where they are active (`cache`), by their names, or as a given list.
"""

import argparse
from pathlib import Path

import torch

from ..attribution.filters import POOLS, write_filters
from ..errors import InterpError
from ..saes.labels.labels import Label, Labels
from . import attribute, work
from .cache_files import Cache, read_tensors
from .said import said_of
from .study import Study

NAME, HELP = "filters", "choose features and write them as a filters.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    choices = {
        "attribution": "raised the word most, averaged over samples (--pool, --name)",
        "activity": "are most active on their top pictures",
        "pictures": "are active on the most pictures",
        "label": "have TEXT in their name or explanation (--label)",
        "list": "are given (--features)",
    }
    parser.add_argument("--by", choices=choices, metavar="BY", help="; ".join(f"{name}: {told}" for name, told in choices.items()))
    parser.add_argument("-k", type=int, default=50, metavar="N", help="features at most, but for --by list")
    parser.add_argument("--pool", choices=POOLS, default="sum", help="of the scores over a picture's tokens, for --by attribution")
    parser.add_argument("--name", default=attribute.NAME, help="which results of attribute to take")
    parser.add_argument("--label", metavar="TEXT", help="to look for in names")
    parser.add_argument("--features", type=int, nargs="+", metavar="F", help="their numbers")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: filters.json in the study")


def run(study: Study, args: argparse.Namespace) -> None:
    """Choose and write."""
    if args.k < 1:
        raise InterpError(f"-k is {args.k}; it must be at least 1.")
    by = {
        "attribution": lambda: _attributed(study, args.name, args.pool, args.k),
        "activity": lambda: _highest(Cache.open(study).top["scores"].clamp(min=0).mean(1), args.k),
        "pictures": lambda: _highest(Cache.open(study).top["pictures"], args.k),
        "label": lambda: _named(study, args.label, args.k),
        "list": lambda: _listed(study, args.features),
    }
    if args.by not in by:
        raise InterpError(f"Say how to choose the features: --by {', '.join(by)}.")
    if not study.module:
        raise InterpError(f"The study in {study.folder} has no SAE yet, whose features could be chosen.")
    chosen = by[args.by]()
    if not chosen:
        raise InterpError(f"No feature is left by --by {args.by}, so no file was written.")
    out = args.out or study.folder / "filters.json"
    work.once(lambda: write_filters(out, study.module, chosen))
    work.once(lambda: print(f"{len(chosen)} features: {', '.join(map(str, chosen[:10]))}{', …' * (len(chosen) > 10)} → {out}"))  # noqa: T201


def _attributed(study: Study, name: str, pool: str, k: int) -> list[int]:
    """The features that raised the word most; never ones that did not raise it."""
    file = study.folder / name / attribute.POOLED
    if not file.is_file():
        raise InterpError(
            f"The study in {study.folder} has no finished results in {name}. Run: python -m interp.study attribute {study.folder}"
        )
    return _highest(read_tensors(file, pool)[pool], k)


def _highest(scores: torch.Tensor, k: int) -> list[int]:
    order = scores.argsort(descending=True, stable=True)[:k]
    chosen: list[int] = order[scores[order] > 0].tolist()
    return chosen


def _named(study: Study, label: str | None, k: int) -> list[int]:
    """The features whose label contains the text, whole words first, then those whose explanation does."""
    if not (label and label.strip()):
        raise InterpError("Say what to look for in the names of features: --label TEXT.")
    said = said_of(study)
    found = [
        feature
        for name in ("label", "explanation")
        for feature in Labels({f: Label(each[name], "") for f, each in said.items() if each[name]}, "").search(label, k)
    ]
    return list(dict.fromkeys(found))[:k]


def _listed(study: Study, features: list[int] | None) -> list[int]:
    if not features:
        raise InterpError("Say which features: --features 7 12 …")
    count = study.found["sae"]["features"]
    if wrong := [feature for feature in features if not 0 <= feature < count]:
        raise InterpError(f"--features names {wrong[0]}; the SAE has {count}, counted from 0.")
    return list(dict.fromkeys(features))
