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
from . import asking, explain, work
from .explanation_files import read_texts
from .said import CLASSES, EXPLANATIONS, LABELS, SCORES, texts_of
from .scoring.cases import Case, Record, cases_of
from .scoring.clip_score import ClipScore
from .scoring.consistency import AGREES, Consistency, first_of_each
from .scoring.detection import DetectionScore
from .scoring.iou import Iou
from .scoring.judges import SHOWS, ClipJudge, yes
from .scoring.score_files import as_reference, failures_as_zero, read_records, write_json, write_records
from .scoring.segmenters import SAM_3, known_masks, segmenter
from .scoring.table import table, written
from .study import Study
from .top_images import TopImages

NAME, HELP = "score", "measure how well labels fit their features"
MEASURES = ("iou", "clip", "detection", "consistency")
CHUNK = 8
"""Features that are scored, and written, together."""
EXPLAINED = 5
"""Top pictures that explain a feature, where the study does not say how many did."""
Measure = Callable[[Sequence[Case]], list[Record]]
"""Some features → their scores."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--measures", nargs="+", choices=MEASURES, help="default: iou, clip and detection; with --server, consistency too")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="default: labels in the study, or else its explanations")
    parser.add_argument("--explanations", type=Path, metavar="FOLDER", help="default: explanations in the study")
    parser.add_argument("--classes", type=Path, metavar="FOLDER", help="what sort of thing each label names; default: classes in the study")
    parser.add_argument("--filters", type=Path, metavar="FILE", help="score exactly the features of a filters.json")
    parser.add_argument("--as-reference", action="store_true", help="also write lists as multimodal-sae does, and count failures as 0")
    shown = parser.add_argument_group("pictures and controls")
    shown.add_argument("--pictures", type=int, default=5, metavar="N", help="for each feature")
    shown.add_argument("--skip", type=int, metavar="N", help=f"top pictures to leave out; default: those of explain, or else {EXPLAINED}")
    shown.add_argument("--trials", type=int, default=10, metavar="N", help="of each control of IoU")
    shown.add_argument("--clip-trials", type=int, default=30, metavar="N", help="of each control of the CLIP score")
    shown.add_argument("--each-class", type=int, default=100, metavar="N", help="features of each class that are judged for consistency")
    shown.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    models = parser.add_argument_group("models")
    models.add_argument("--segmenter", default=SAM_3, metavar="NAME", help="a SAM 3, or a detector that takes text and a SAM: A+B")
    models.add_argument("--masks", type=Path, metavar="FOLDER", help="known masks instead, FOLDER/LABEL/ID.png")
    models.add_argument("--clip", default=CLIP, metavar="NAME", help="for the CLIP score, and for detection without --server")
    models.add_argument("--judge", metavar="MODEL", help="the name of a model on the server, for detection and consistency")
    asking.add(parser)


def run(study: Study, args: argparse.Namespace) -> None:
    """Score what is not scored yet; then write the lists and the table, and print it."""
    args.skip = _explained(study) if args.skip is None else args.skip
    for name, low in (("pictures", 1), ("skip", 0), ("trials", 0), ("clip_trials", 0), ("each_class", 1)):
        whole_number(name, getattr(args, name), low)
    if args.server and not args.judge:
        raise InterpError("--judge is missing: the name of a model on the server, as it lists it at /v1/models.")
    cases, top = read_cases(study, args), TopImages.open(study)
    for measure in args.measures or MEASURES[: 4 if args.server else 3]:
        if measure == "consistency" or (measure == "detection" and args.server):
            _ask(measure, study, top, cases, args)
        elif not args.dry_run:
            _compute(measure, study, top, cases, args)
    if not args.dry_run:
        work.once(lambda: _conclude(study, as_reference_too=args.as_reference))


def _explained(study: Study) -> int:
    """How many top pictures explained each feature."""
    return int(study.settings(explain.NAME)["pictures"]) if (study.folder / explain.NAME).is_dir() else EXPLAINED


def read_cases(study: Study, args: argparse.Namespace) -> list[Case]:
    """The features to score: exactly those of --filters, or else all that were explained or labelled. Raises InterpError if there are none."""
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


def _compute(name: str, study: Study, top: TopImages, cases: Sequence[Case], args: argparse.Namespace) -> None:
    """A measure that runs models here: a file for some features each, shared between the processes, then one list."""
    settings, make = _measure(name, study, top, cases, args)
    digest = hashlib.sha256(json.dumps([[case.feature, case.said] for case in cases]).encode()).hexdigest()[:16]
    folder = study.stage(f"{SCORES}/{name}", {"labels": digest, "features": len(cases), **settings})
    units = [work.Unit(number, folder / f"{number:05}.json") for number in range(-(-len(cases) // CHUNK))]
    measure: Measure | None = None
    for unit in work.shared(units, f"{name}: features, {CHUNK} together"):
        measure = measure or make()
        write_records(unit.file, measure(cases[unit.number * CHUNK : (unit.number + 1) * CHUNK]))
    work.once(lambda: _join(units, folder.with_suffix(".json"), cases))


def _measure(
    name: str, study: Study, top: TopImages, cases: Sequence[Case], args: argparse.Namespace
) -> tuple[dict[str, Any], Callable[[], Measure]]:
    """What the scores depend on, and how to get the measure, which loads models."""
    place, shown = torch.device(work.device()), {"pictures": args.pictures, "skip": args.skip, "seed": args.seed}

    def each(score: Callable[[Case], Record]) -> Measure:
        return lambda some: [score(case) for case in some]

    def iou() -> Measure:
        segment = known_masks(args.masks) if args.masks else segmenter(args.segmenter, place)
        return each(Iou(top, segment, cases, **shown, trials=args.trials))

    def clip() -> Measure:
        return each(ClipScore(top, Clip.load(args.clip, place), cases, **shown, trials=args.clip_trials))

    def detection() -> Measure:
        score, judge = DetectionScore(top, study.sae, cases, **shown), ClipJudge(Clip.load(args.clip, place))
        return lambda some: score.score(judge, some)

    by = {"masks": str(args.masks)} if args.masks else {"segmenter": args.segmenter}
    return {
        "iou": ({**shown, "trials": args.trials, **by}, iou),
        "clip": ({**shown, "trials": args.clip_trials, "clip": args.clip}, clip),
        "detection": ({**shown, "clip": args.clip}, detection),
    }[name]


def _join(units: Sequence[work.Unit], file: Path, cases: Sequence[Case]) -> None:
    """One list of all units, with the classes as they are now."""
    classes = {case.name: case.category for case in cases}
    records = [record for unit in units for record in read_records(unit.file)]
    write_records(file, [dataclasses.replace(record, category=classes[record.feature]) for record in records])


def _ask(name: str, study: Study, top: TopImages, cases: Sequence[Case], args: argparse.Namespace) -> None:
    """A measure whose judge is a model on a server: all is asked by the main process, and the answers are in a journal."""
    shown = {"pictures": args.pictures, "skip": args.skip, "seed": args.seed}
    stage = asking.Stage(study, f"{SCORES}/{name}", {**shown, "prompt": SHOWS if name == "detection" else AGREES})
    judged: Sequence[Case] = cases if work.state().is_main_process else []
    if name == "detection":
        score = DetectionScore(top, study.sae, cases, **shown)
        tests = [test for at in range(0, len(judged), CHUNK) for test in score.tests(judged[at : at + CHUNK])]
        requests = [request for test in tests for request in test.requests()]
    else:
        judged, consistency = first_of_each(judged, args.each_class), Consistency(top, cases, **shown)
        requests = [request for case in judged for request in consistency.requests(case)]
    entries = asking.ask(stage, args.judge, requests, yes, args)
    if entries is None:  # a dry run, or another process than the main one
        return
    records = (
        [test.of_entries(entries) for test in tests] if name == "detection" else [consistency.record(case, entries) for case in judged]
    )
    write_records(study.folder / SCORES / f"{name}.json", records)
    if failed := asking.failures([entries[request.key] for request in requests]):
        print(failed)  # noqa: T201 - what the command is for


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
    print(written(rows))  # noqa: T201
