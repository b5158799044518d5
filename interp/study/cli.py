"""The command line of studies: one verb each, the study's folder first.

What a study is of (--model, --sae, --data, …) is said once, when it is begun; later verbs may leave it out, and are refused if they say something else.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from ..errors import InterpError
from . import attribute, cache, explain, filters, refine, report, score, serve_index, steer, top_images, train_sae, work
from .study import MANIFEST, Plan, Study

VERBS: tuple[ModuleType, ...] = (
    train_sae,
    cache,
    top_images,
    explain,
    refine,
    score,
    filters,
    steer,
    attribute,
    report,
    serve_index,
)
_PLAN = {
    "model": "a preset, a hub repository or a folder",
    "data": "a folder of pictures, parquet files or an imagefolder, or a data set on the hub",
    "sae": "a preset, a release of sae-lens with its id, a hub repository or a folder",
    "layer": "picks one of several SAEs",
    "quantize": "auto, 4bit or none",
    "split": "of a data set on the hub",
    "prompt": "asked where a sample has no prompt of its own",
    "limit": "only the first so many samples",
}
_NUMBERS = ("layer", "limit")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    root = argparse.ArgumentParser(
        prog="python -m interp.study",
        description="Studies of an SAE's features on many pictures. A study is a folder; every verb adds to it, and goes on where it was stopped.",
        epilog="On several GPUs or machines: accelerate launch -m interp.study VERB FOLDER …",
    )
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        one = verbs.add_parser(
            verb.NAME,
            help=verb.HELP,
            description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}. More: docs/study.md.",
            formatter_class=_Help,
        )
        one.add_argument("folder", type=Path, help="the study")
        one.add_argument(
            "--config", type=Path, metavar="FILE", help="YAML or JSON with any of these arguments; the command line goes first"
        )
        about = one.add_argument_group("what the study is of", "needed when it is begun")
        defaults = {field.name: field.default for field in dataclasses.fields(Plan) if field.default not in {dataclasses.MISSING, None, ""}}
        for name, told in _PLAN.items():
            default = f"  (default: {defaults[name]})" if name in defaults else ""
            about.add_argument(f"--{name}", type=int if name in _NUMBERS else str, default=argparse.SUPPRESS, help=told + default)
        verb.add(one)
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb. Errors that the user can mend end it with a sentence."""
    root = parser()
    args = root.parse_args(arguments)
    try:
        if args.config:
            # Read again, with what the file says as defaults.
            chosen = next(each for each in root._subparsers._group_actions[0].choices.items() if each[0] == args.verb)[1]  # type: ignore[union-attr] # noqa: SLF001 - argparse has no public way to a subparser
            chosen.set_defaults(**_configured(args.config, vars(chosen.parse_args([str(args.folder)])), _PLAN))
            args = root.parse_args(arguments)
        verb = next(verb for verb in VERBS if args.verb == verb.NAME)
        verb.run(opened(args.folder, vars(args)), args)
    except (InterpError, argparse.ArgumentTypeError) as error:
        root.exit(1, f"{error}\n")


def opened(folder: Path, given: Mapping[str, Any]) -> Study:
    """The study in a folder, begun if need be. Raises InterpError if it is of something else than what is given, or nothing is."""
    asked = {name: given[name] for name in _PLAN if name in given}
    if not work.agreed((folder / MANIFEST).exists()):
        if missing := [f"--{name}" for name in ("model", "data") if name not in asked]:
            raise InterpError(f"{folder} holds no study yet, so {' and '.join(missing)} must be given.")
        return Study.begin(folder, Plan(**asked))
    study = Study.open(folder)
    held = dataclasses.asdict(study.plan)
    if not study.plan.sae and asked.get("sae"):
        study = study.with_sae(asked["sae"], asked.get("layer"))
        held |= {"sae": asked["sae"], "layer": asked.get("layer")}
    for name, value in asked.items():
        if held[name] != value:
            raise InterpError(
                f"The study in {folder} is of --{name} {held[name]!r}, and {value!r} was given. Begin another study in another folder."
            )
    return study


def _configured(file: Path, known: Mapping[str, Any], plan: Mapping[str, str]) -> dict[str, Any]:
    """The arguments in a file. Raises InterpError for a file that cannot be read, and for arguments that the verb does not have."""
    try:
        text = file.read_text(encoding="utf-8")
        held = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InterpError(f"--config {file} cannot be read ({' '.join(str(error).split())}).") from error
    if not isinstance(held, dict):
        raise InterpError(f"--config {file} must hold names and values, such as `model: emoji-llava`.")
    plain = {str(name).replace("-", "_"): value for name, value in held.items()}
    allowed = sorted({*known, *plan} - {"folder", "config", "verb"})
    if unknown := [name for name in plain if name not in allowed]:
        raise InterpError(f"--config {file} has {unknown[0]!r}, which this verb does not take. It takes {', '.join(allowed)}.")
    return {name: Path(value) if isinstance(known.get(name), Path) else value for name, value in plain.items()}
