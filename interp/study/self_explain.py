"""An explainer that needs no server: the model itself says what it sees while a feature is turned up (steering-informed top-k).

The feature's direction is added at the picture's tokens, by several fractions of their usual norm. The model looks at the feature's top pictures, or
at pictures that show nothing, where all that it names must come from the feature. `naming.py` makes a name of the answers. Nothing is random.

After "Steering-informed Top-k" (arXiv 2603.22593), which steers the vision encoder; here the direction is one of the decoder, at its picture tokens.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InterpError
from ..files import write_whole
from ..saes.sae import Sae
from ..steering.edits import Edit
from ..steering.steer import steer_sweep
from ..validation import finite_number, whole_number
from . import work
from .answers import UNABLE
from .naming import Name, name_of
from .study import Study
from .top_images import TopImages

LOOKS = ("top", "nothing")
STRENGTHS = (0.25, 0.5, 1.0)
CONTROL, ANSWERS = "control.json", "answers"
_SIDE = 336  # of a picture that shows nothing
_SHADES = ("white", "gray", "black")
_CONTROLS = 64  # pictures


@dataclass(frozen=True)
class Look:
    """What the model looks at, and how far the feature is turned up."""

    at: str = "top"
    """"top": the feature's top pictures. "nothing": white, gray and black ones."""
    pictures: int = 5
    """Of the top ones."""
    strengths: tuple[float, ...] = STRENGTHS
    """Fractions of the usual norm of the picture's tokens after the SAE's layer."""
    ask: str = "Describe the image."
    max_new_tokens: int = 32
    least: float = 0.5
    """As in `name_of`."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments, beside --filters and --pictures."""
    group = parser.add_argument_group("self", "with --explainer self, which needs no server")
    group.add_argument("--look", choices=LOOKS, default="top", help="at the top pictures, or at a white, a gray and a black one")
    group.add_argument("--strengths", type=float, nargs="+", default=list(STRENGTHS), metavar="X", help="fractions of the usual norm")
    group.add_argument("--ask", metavar="TEXT", help="what the model is asked  (default: the study's prompt)")
    group.add_argument(
        "--least", type=float, default=0.5, metavar="SHARE", help="of the answers that must hold a word, above what is usual"
    )
    group.add_argument("--max-new-tokens", type=int, default=32, metavar="N", help="length of an answer")


def look_of(study: Study, args: argparse.Namespace) -> Look:
    """What the arguments ask for. Raises InterpError for what cannot be."""
    for strength in args.strengths:
        if finite_number("--strengths", strength) == 0:
            raise InterpError("--strengths has 0, which turns nothing up.")
    if len(set(_keys(args.strengths))) <= len(args.strengths):
        raise InterpError("--strengths has a number twice.")
    return Look(
        args.look,
        args.pictures,
        tuple(args.strengths),
        study.plan.prompt if args.ask is None else args.ask,
        whole_number("--max-new-tokens", args.max_new_tokens, 1),
        float(finite_number("--least", args.least, 0.01, 1)),
    )


def foreseen(look: Look, features: int) -> str:
    """What it will take, in a sentence."""
    answers = features * (look.pictures if look.at == "top" else len(_SHADES)) * (1 + len(look.strengths))
    return f"{features} features, at most {answers} answers of at most {look.max_new_tokens} tokens, {1 + len(look.strengths)} beside each other."


def explain(study: Study, top: TopImages, stage: str, features: Sequence[int], look: Look) -> dict[int, str]:
    """The names of all features that have been looked at so far, these among them: by feature, `UNABLE` where the answers do not agree.

    Each feature's answers are one file of the stage, so one process or many give the same.
    """
    folder = study.stage(stage, {"explainer": "self", **asdict(look), "strengths": list(look.strengths)})

    def settle() -> None:
        if not (folder / CONTROL).exists():
            _write(folder / CONTROL, controls(study, top, look))

    work.once(settle)
    units = [work.Unit(feature, folder / ANSWERS / f"{feature}.json") for feature in features]
    for unit in work.shared(units, "features"):
        unit.file.parent.mkdir(exist_ok=True)
        _write(unit.file, answers(study, top, unit.number, look))
    return {feature: name.text or UNABLE for feature, name in names(folder, look.least).items()}


def names(folder: Path, least: float, strengths: Iterable[str] | None = None) -> dict[int, Name]:
    """The name of each feature whose answers a stage holds. `strengths`: of these alone, as the files write them; "0" is the plain answer."""
    control = json.loads((folder / CONTROL).read_text(encoding="utf-8"))
    out = {}
    for file in sorted((folder / ANSWERS).glob("*.json"), key=lambda path: int(path.stem)):
        held: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
        chosen = [key for key in held if key != "0"] if strengths is None else strengths
        out[int(file.stem)] = name_of([answer for key in chosen for answer in held[key]], control, least)
    return out


def strengths_in(folder: Path) -> list[str]:
    """The strengths of a stage's answers, as its files write them: "0", the plain answer, first."""
    held = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return _keys(held["strengths"])


def answers(study: Study, top: TopImages, feature: int, look: Look) -> Mapping[str, list[str]]:
    """What the model says at each strength, one answer a picture; "0" is what it says without the feature turned up."""
    out: dict[str, list[str]] = {key: [] for key in _keys(look.strengths)}
    pictures = [each.picture for each in top.shown(feature, look.pictures)] if look.at == "top" else nothing()
    edit = _edit(study.sae, feature)
    for picture in pictures:
        found = steer_sweep(study.vlm, picture, look.ask, edit, look.strengths, max_new_tokens=look.max_new_tokens)
        for key, said in zip(out, [found.runs[0].plain, *(run.steered for run in found.runs)], strict=True):
            out[key].append(said)
    return out


def controls(study: Study, top: TopImages, look: Look) -> list[str]:
    """What the model says about pictures that have nothing to do with a feature: 64 random ones, or those that show nothing."""
    pictures: list[Any] = [each.picture for each in top.random(top.features[0], _CONTROLS)] if look.at == "top" else nothing()
    return [study.vlm.trace(picture, look.ask, max_new_tokens=look.max_new_tokens).answer for picture in pictures]


def nothing() -> list[Any]:
    """A white, a gray and a black picture."""
    return [Image.new("RGB", (_SIDE, _SIDE), shade) for shade in _SHADES]


def _keys(strengths: Iterable[float]) -> list[str]:
    return ["0", *(f"{strength:g}" for strength in strengths)]


def _write(file: Path, data: Any) -> None:
    write_whole(file, json.dumps(data, ensure_ascii=False) + "\n")


def _edit(sae: Sae, feature: int) -> Edit:
    return Edit(sae=sae, feature=feature, strength=1.0, where="image")
