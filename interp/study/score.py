"""`score`: measure how well labels fit their features, beside controls: IoU with masks found by text, CLIP score, detection, consistency."""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..concepts.clip import CLIP, Clip
from ..errors import InterpError
from ..validation import whole_number
from . import work
from .chat import Server
from .explanation_files import read_texts
from .said import CLASSES, EXPLANATIONS, LABELS, SCORES, texts_of
from .scoring.cases import Case, Record, cases_of
from .scoring.clip_score import ClipScore
from .scoring.consistency import Consistency, first_of_each
from .scoring.detection import DetectionScore
from .scoring.iou import Iou
from .scoring.judges import Asker, ClipJudge
from .scoring.score_files import as_reference, failures_as_zero, read_records, write_json, write_records
from .scoring.segmenters import SAM_3, known_masks, segmenter
from .scoring.table import table, written
from .study import Study
from .top_images import TopImages

NAME, HELP = "score", "measure how well labels fit their features"
MEASURES = ("iou", "clip", "detection", "consistency")
_JOURNAL = ".jsonl"
CHUNK = 8
"""Features that are scored, and written, together."""
Measure = Callable[[Sequence[Case], Path], list[Record]]
"""(some features, file of a journal) → their scores."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--measures", nargs="+", choices=MEASURES, help="default: iou, clip and detection; with --server, consistency too")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="default: labels in the study, or else its explanations")
    parser.add_argument("--explanations", type=Path, metavar="FOLDER", help="default: explanations in the study")
    parser.add_argument("--classes", type=Path, metavar="FOLDER", help="what sort of thing each label names; default: classes in the study")
    parser.add_argument("--filters", type=Path, metavar="FILE", help="score exactly the features of a filters.json")
    shown = parser.add_argument_group("pictures and controls")
    shown.add_argument("--pictures", type=int, default=5, metavar="N", help="for each feature")
    shown.add_argument("--skip", type=int, default=5, metavar="N", help="top pictures to leave out, which the feature was explained by")
    shown.add_argument("--trials", type=int, default=10, metavar="N", help="of each control of IoU")
    shown.add_argument("--clip-trials", type=int, default=30, metavar="N", help="of each control of the CLIP score")
    shown.add_argument("--each-class", type=int, default=100, metavar="N", help="features of each class that are judged for consistency")
    shown.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    models = parser.add_argument_group("models")
    models.add_argument("--segmenter", default=SAM_3, metavar="NAME", help="a SAM 3, or a detector that takes text and a SAM: A+B")
    models.add_argument("--masks", type=Path, metavar="FOLDER", help="known masks instead, FOLDER/LABEL/ID.png")
    models.add_argument("--clip", default=CLIP, metavar="NAME", help="for the CLIP score, and the judge of detection without --server")
    models.add_argument("--server", metavar="URL", help="a judge that speaks OpenAI's chat completions")
    models.add_argument("--server-model", default="", metavar="NAME", help="its model")
    models.add_argument("--key-variable", default="", metavar="NAME", help="environment variable with its key")
    models.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests under way together")
    models.add_argument("--retry-failed", action="store_true", help="ask again what it did not answer before")
    parser.add_argument("--as-reference", action="store_true", help="also write lists as multimodal-sae does, and count failures as 0")


def run(study: Study, args: argparse.Namespace) -> None:
    """Score what is not scored yet; then write the lists and the table, and print it."""
    for name, low in (("pictures", 1), ("skip", 0), ("trials", 0), ("clip_trials", 0), ("each_class", 1), ("concurrency", 1)):
        whole_number(name, getattr(args, name), low)
    cases = read_cases(study, args)
    top = TopImages.open(study)
    for measure in args.measures or [*MEASURES[:3], *(["consistency"] if args.server else [])]:
        scored = first_of_each(cases, args.each_class) if measure == "consistency" else cases
        settings, make = _measure(measure, study, top, cases, args)
        folder = study.stage(f"{SCORES}/{measure}", {"cases": _digest(scored), "features": len(scored), **settings})
        _score(folder, scored, make, retry_failed=args.retry_failed)
        work.once(lambda folder=folder, scored=scored: _join(folder, scored))  # type: ignore[misc]
    work.once(lambda: _conclude(study, as_reference_too=args.as_reference))


def read_cases(study: Study, args: argparse.Namespace) -> list[Case]:
    """The features to score: exactly those of --filters, or else all that have a label. Raises InterpError if there are none."""
    about = study.found["sae"]
    if about is None:
        raise InterpError(f"The study in {study.folder} has no SAE yet, so there are no features to score.")

    def texts(given: Path | None, *names: str) -> Mapping[int, str]:
        found = [read_texts(given).get(about["layer"], {})] if given else [texts_of(study, name) for name in names]
        return next(filter(None, found), {})

    labels = texts(args.labels, LABELS, EXPLANATIONS)
    if not labels:
        raise InterpError(
            f"The study in {study.folder} has no labels of {study.module}. Run explain and refine, or name a folder: --labels."
        )
    explanations, classes = texts(args.explanations, EXPLANATIONS), texts(args.classes, CLASSES)
    cases = cases_of(study.module, labels, explanations, classes, study.chosen(args.filters))
    if cases[-1].feature >= about["features"]:
        raise InterpError(f"The labels name the feature {cases[-1].feature}; the SAE has {about['features']}, counted from 0.")
    return cases


def _measure(
    name: str, study: Study, top: TopImages, cases: Sequence[Case], args: argparse.Namespace
) -> tuple[dict[str, Any], Callable[[], Measure]]:
    """What the scores depend on, and how to get the measure, which may load models."""
    place = torch.device(work.device())
    shown = {"pictures": args.pictures, "skip": args.skip, "seed": args.seed}
    common = {"top": top, "cases": cases, **shown}

    def each(score: Callable[[Case], Record]) -> Measure:
        return lambda some, _: [score(case) for case in some]

    if name == "iou":
        by = {"masks": str(args.masks)} if args.masks else {"segmenter": args.segmenter}
        trials = {"trials": args.trials}
        return {**shown, **trials, **by}, lambda: each(
            Iou(segment=known_masks(args.masks) if args.masks else segmenter(args.segmenter, place), **common, **trials)
        )
    if name == "clip":
        trials = {"trials": args.clip_trials}
        return {**shown, **trials, "clip": args.clip}, lambda: each(ClipScore(clip=Clip.load(args.clip, place), **common, **trials))
    if name == "detection":
        by = {"server": args.server, "model": args.server_model} if args.server else {"clip": args.clip}
        return {**shown, **by}, lambda: DetectionScore(
            sae=study.sae, judge=_asker(args).judge if args.server else ClipJudge(Clip.load(args.clip, place)), **common
        )
    if not args.server:
        raise InterpError("consistency needs a judge that reads text and pictures: name one with --server, or leave it out of --measures.")
    return {**shown, "server": args.server, "model": args.server_model, "each": args.each_class}, lambda: Consistency(
        asker=_asker(args), **common
    )


def _asker(args: argparse.Namespace) -> Asker:
    server = Server(args.server, args.server_model, args.key_variable, max_tokens=512)
    return Asker(server, args.concurrency, args.retry_failed)


def _digest(cases: Sequence[Case]) -> str:
    """Of what is said of which features; classes may still change."""
    return hashlib.sha256(json.dumps([[case.feature, case.said, case.explanation] for case in cases]).encode()).hexdigest()[:16]


def _score(folder: Path, cases: Sequence[Case], make: Callable[[], Measure], *, retry_failed: bool) -> None:
    """The units of a measure: a file for some features each."""
    units = [work.Unit(number, folder / f"{number:05}.json") for number in range(-(-len(cases) // CHUNK))]
    if retry_failed:
        work.once(lambda: _forget(units))
    measure: Measure | None = None
    for unit in work.shared(units, f"{folder.name}: features, {CHUNK} together"):
        measure = measure or make()
        records = measure(cases[unit.number * CHUNK : (unit.number + 1) * CHUNK], unit.file.with_suffix(_JOURNAL))
        write_records(unit.file, records)


def _forget(units: Sequence[work.Unit]) -> None:
    """Remove the units in which something failed; their journals keep what did not."""
    for unit in units:
        if unit.file.exists() and unit.file.with_suffix(_JOURNAL).exists() and any(one.failed for one in read_records(unit.file)):
            unit.file.unlink()


def _join(folder: Path, cases: Sequence[Case]) -> None:
    """One list of all units, with the classes as they are now."""
    records = [record for number in range(-(-len(cases) // CHUNK)) for record in read_records(folder / f"{number:05}.json")]
    classes = {case.name: case.category for case in cases}
    write_records(folder.with_suffix(".json"), [dataclasses.replace(record, category=classes[record.feature]) for record in records])


def _conclude(study: Study, *, as_reference_too: bool) -> None:
    """Write the table of all measures that were scored so far, and print it."""
    folder = study.folder / SCORES
    scored = {measure: read_records(file) for measure in MEASURES if (file := folder / f"{measure}.json").is_file()}
    rows = [row for records in scored.values() for row in table(records)]
    write_json(folder / "table.json", rows)
    if as_reference_too:
        folder /= "reference"
        folder.mkdir(exist_ok=True)
        for measure in {"iou", "clip"} & scored.keys():
            write_json(folder / f"{measure}.json", as_reference(scored[measure], measure))
        rows = [row for records in scored.values() for row in table([failures_as_zero(record) for record in records])]
        write_json(folder / "table.json", rows)
    print(written(rows))  # noqa: T201 - what the command is for
