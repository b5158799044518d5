"""`steer`: what the model says with one feature after another turned up or down: many features beside each other in one batch, with the plain answer in its first row.

Unlike in multimodal-sae, the state is edited and not replaced by what the SAE reconstructs of it, so a feature that is set to the value it
has changes nothing. The plain answer is computed once for each batch, in which the others are compared with it.
"""

import argparse
import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..concepts.samples import Sample
from ..concepts.state_files import webp
from ..errors import InterpError
from ..files import write_whole
from ..models.vlm import Vlm
from ..saes.sae import Sae
from ..steering.edits import UNITS, Edit
from ..steering.results import SteeringResult
from ..steering.steer import steer_each
from ..validation import finite_number
from ..vision.images import open_image
from . import asking, work
from .steered import Steered, write
from .steered_judge import judge
from .study import Study

NAME, HELP = "steer", "answer with each of many features turned up or down"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--filters", type=Path, metavar="FILE", help="a filters.json: the features to steer")
    parser.add_argument("--target", type=float, metavar="Z", help="set the activation to this, as multimodal-sae does with its -k")
    parser.add_argument("--strength", type=float, metavar="X", help="push by this fraction of the usual norm of the states")
    parser.add_argument("--amount", type=float, metavar="Z", help="add this much activation")
    parser.add_argument("--where", choices=["all", "image", "prompt", "answer"], default="all", help="the tokens to act on")
    parser.add_argument("--image", type=Path, metavar="FILE", help="one picture to ask about, instead of the study's samples")
    parser.add_argument("--ask", metavar="TEXT", help="instead of the study's prompt")
    parser.add_argument("--first", type=int, metavar="N", help="only the first so many of the study's samples")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="length of an answer")
    parser.add_argument("--rows", type=int, default=16, metavar="N", help="features beside each other in a batch")
    parser.add_argument("--name", default=NAME, help="folder of the results in the study; another name for each setting")
    parser.add_argument("--judge", metavar="MODEL", help="a model on a server that says what each change of an answer is")
    parser.add_argument(
        "--controls", type=int, default=20, metavar="N", help="changes that are judged again with the label of another feature"
    )
    asking.add(parser)


@dataclass(frozen=True)
class Task:
    """What is asked, and how each feature is edited."""

    features: tuple[int, ...]
    unit: str
    value: float
    where: str
    ask: str | None
    max_new_tokens: int

    def edits(self, sae: Sae, features: Sequence[int]) -> list[Edit]:
        """One for each feature."""
        given: dict[str, Any] = {self.unit: self.value, "where": self.where}
        return [Edit(sae=sae, feature=feature, **given) for feature in features]

    def prompt_of(self, sample: Sample) -> str:
        """What is asked of a sample."""
        return sample.prompt if self.ask is None else self.ask

    def answers(self, vlm: Vlm, sae: Sae, sample: Sample, features: Sequence[int]) -> list[dict[str, Any]]:
        """What each feature does to the answer, or why that cannot be said: one that fails takes no other with it."""
        edits, prompt = self.edits(sae, features), self.prompt_of(sample)

        def run(some: Sequence[Edit]) -> list[SteeringResult]:
            return steer_each(vlm, sample.picture, prompt, some, max_new_tokens=self.max_new_tokens)

        try:
            return [_row(feature, result) for feature, result in zip(features, run(edits), strict=True)]
        except InterpError:
            rows = []
            for feature, edit in zip(features, edits, strict=True):
                try:
                    rows.append(_row(feature, run([edit])[0]))
                except InterpError as error:
                    rows.append({"feature": feature, "failure": str(error)})
            return rows


def _row(feature: int, result: SteeringResult) -> dict[str, Any]:
    return {
        "feature": feature,
        "original": result.plain,
        "clamped": result.steered,
        "kl": sum(result.kl) / len(result.kl),
        "fired": result.fired[0],
    }


def run(study: Study, args: argparse.Namespace) -> None:
    """Answer what is not answered yet, have it judged if asked to, and write the reference's files."""
    task, samples = _task(study, args), _samples(study, args)
    about = {**vars(task), "rows": args.rows, "image": _digest(args.image), "samples": samples}
    folder = study.stage(args.name, about)
    batches = [task.features[at : at + args.rows] for at in range(0, len(task.features), args.rows)]
    units = [
        work.Unit(sample * len(batches) + number, folder / "answers" / f"{sample:05}-{number:04}.json")
        for sample in range(samples)
        for number in range(len(batches))
    ]
    of = study.data.by_number() if args.image is None else lambda _number: Sample(args.image.name, args.image, study.plan.prompt)
    for unit in work.shared(units, "batches of features"):
        sample, number = divmod(unit.number, len(batches))
        asked = of(sample)
        rows = task.answers(study.vlm, study.sae, asked, batches[number])
        unit.file.parent.mkdir(exist_ok=True)
        if not number:  # so that judging, and looking at the answers, needs neither the data nor the model
            _copy(asked, folder / "pictures" / f"{sample:05}.webp")
        write_whole(unit.file, json.dumps({"prompt": task.prompt_of(asked), "rows": rows}, ensure_ascii=False) + "\n")
    steered = Steered.of(study, args.name, len(batches), samples)
    entries = judge(study, steered, args) if args.judge else None
    if args.judge and args.dry_run:
        return
    failed = "" if entries is None else asking.failures(list(entries.values()))
    work.once(lambda: print(write(study, steered, one=args.image is not None), failed, sep="\n" if failed else ""))  # noqa: T201


def _copy(sample: Sample, file: Path) -> None:
    """A small copy of a sample's picture; none of one that cannot be opened, whose answers all failed."""
    file.parent.mkdir(exist_ok=True)
    with contextlib.suppress(InterpError):
        picture = webp(open_image(sample.picture)[0])
        unfinished = file.with_suffix(f".{work.state().process_index}.tmp")
        unfinished.write_bytes(picture)
        unfinished.replace(file)


def _task(study: Study, args: argparse.Namespace) -> Task:
    given = [(unit, getattr(args, unit)) for unit in UNITS if getattr(args, unit) is not None]
    if len(given) != 1:
        raise InterpError("Say how far to turn each feature: exactly one of --target, --strength and --amount.")
    features = study.chosen(args.filters)
    if features is None:
        raise InterpError("Say which features to steer: --filters FILE. The verb filters makes such files.")
    if args.server and not args.judge:
        raise InterpError("--server is for a judge of the answers, and none is named: --judge MODEL.")
    if args.rows < 1:
        raise InterpError(f"--rows is {args.rows}; it must be at least 1.")
    unit, value = given[0]
    return Task(tuple(features), unit, finite_number(unit, value), args.where, args.ask, args.max_new_tokens)


def _samples(study: Study, args: argparse.Namespace) -> int:
    """How many samples are asked about."""
    if args.image is not None:
        if args.first is not None:
            raise InterpError("--first chooses among the study's samples; leave it out with --image.")
        return 1
    if args.first is not None and not 1 <= args.first <= study.data.count:
        raise InterpError(f"--first is {args.first}; the study has {study.data.count} samples.")
    return study.data.count if args.first is None else args.first


def _digest(image: Path | None) -> str:
    if image is None:
        return ""
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError as error:
        raise InterpError(f"--image is {str(image)!r}, which cannot be read ({error.strerror}).") from error
