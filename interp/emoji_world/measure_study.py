"""A whole study where the truth is known: `python -m interp.emoji_world.measure_study --work build/study`.

2 000 unseen scenes go through cache, top-images, explain, refine and score, with a server that answers from the scenes' true contents
(`true_answers`: no model) in the place of the explaining and the judging one. So what is measured is what the study shows of a feature, asks about it, and makes of the answers:

- labels against the word that holds at least half of the feature's activation (`study_truth`), which no verb was told;
- IoU with the true masks, and detection, beside their controls;
- once with one process, and once with two whose every verb is killed once it has written something, and run again: the results must be the same files.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ..study.cache_files import Cache
from ..study.explanation_files import read_texts
from ..study.study import Study
from . import scene_files
from .study_truth import PICTURES, Truth, truth_of
from .true_answers import TrueAnswers, serve

RESULTS = ("cache", "top-images", "explanations", "labels", "classes", "scores")
FEATURES = 500
_LOOK = 0.02  # seconds between looks at what a verb that is to be killed has written


def study(folder: Path, scenes: Path, url: str, *, processes: int, kill: bool, features: int) -> int:
    """Run all verbs; returns how many were killed on the way."""
    begin = ["--model", "emoji-llava", "--sae", "emoji-llava", "--data", str(scenes / "pictures")]
    some = folder.with_suffix(".filters.json")
    asked = ["--server", url, "--filters", str(some), "--concurrency", "4"]
    killed = 0
    for verb, given in (
        ("cache", begin),
        ("top-images", ["--each", "16"]),
        ("explain", ["--explainer", "true-answers", *asked]),
        ("refine", ["--refiner", "true-answers", *asked]),
        (
            "score",
            ["--measures", "iou", "detection", "consistency", "--masks", str(scenes / "masks"), "--judge", "true-answers", *asked],
        ),
    ):
        if verb == "explain" and not some.exists():
            _choose(Study.open(folder), some, features)
        killed += _run([verb, str(folder), *given], folder, processes=processes, kill=kill)
    return killed


def _choose(begun: Study, file: Path, count: int) -> None:
    """A filters.json of some of the features that are active often enough to stand for anything."""
    often = (Cache.open(begun).top["pictures"] >= PICTURES).nonzero().flatten().tolist()
    chosen = sorted(random.Random(0).sample(often, min(count, len(often))))
    file.write_text(json.dumps({begun.module: chosen}), encoding="utf-8")


def _run(arguments: Sequence[str], folder: Path, *, processes: int, kill: bool) -> bool:
    """Run a verb, after killing a first run of it if asked to; whether one was killed."""
    launch = [
        "-m",
        "torch.distributed.run",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        str(_free_port()),
        "--nproc-per-node",
        str(processes),
    ]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "interp.study", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums depend on it
    killed = False
    if kill:
        before = _written(folder)
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:  # noqa: S603 - our own command
            while first.poll() is None and _written(folder) < before + 3:
                time.sleep(_LOOK)
            # One of the processes that work; the launcher then ends the others.
            for one in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)][:1] if first.poll() is None else []:
                one.kill()
                killed = True
    subprocess.run(command, env=environment, check=True)  # noqa: S603 - likewise
    return killed


def _written(folder: Path) -> int:
    """Files that hold results, and answers in journals."""
    journals = sum(file.read_bytes().count(b"\n") for file in folder.rglob("*.jsonl"))
    return journals + sum(file.suffix != ".tmp" and file.name not in {"settings.json", "study.json"} for file in folder.rglob("*.*"))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def same(one: Path, other: Path) -> list[str]:
    """The names of results that differ between two studies. Journals, which say when and in which order a server was asked, are none."""
    held = [
        {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for name in RESULTS
            for file in sorted((folder / name).rglob("*"))
            if file.is_file() and file.suffix != ".jsonl" and file.name != "settings.json"
        }
        for folder in (one, other)
    ]
    return [name for name in sorted({*held[0], *held[1]}) if held[0].get(name) != held[1].get(name)]


def labels_table(begun: Study, truth: Truth, chosen: Sequence[int]) -> str:
    """How many labels are the true word, for nouns and colours; and what the others got."""
    layer = begun.found["sae"]["layer"]
    labels = read_texts(begun.folder / "labels").get(layer, {})
    rows = ["| features that stand for | | label is that word | another word | none |", "|---|---|---|---|---|"]
    for name, features in (("a noun", truth.of_kind(color=False)), ("a colour", truth.of_kind(color=True)), ("neither", _neither(truth))):
        some = [feature for feature in features if feature in set(chosen)]
        right = sum(labels.get(feature) == truth.words[feature] for feature in some)
        none = sum(feature not in labels for feature in some)
        shares = (f"{100 * count / max(1, len(some)):.1f} %" for count in (right, len(some) - right - none, none))
        rows.append(f"| {name} | {len(some)} | {' | '.join(shares)} |")
    return "\n".join(rows)


def _neither(truth: Truth) -> list[int]:
    return [feature for feature, word in enumerate(truth.words) if not word]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A whole study of scenes, whose truth is known.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the scenes and the studies; what is there is kept")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--features", type=int, default=FEATURES, help="to explain, drawn from those that are active on enough pictures")
    args = parser.parse_args()
    scenes, alone, killed = args.work / "scenes", args.work / "one", args.work / "two-killed"
    scene_files.write(scenes, args.scenes, "study")
    with serve(TrueAnswers(scenes)) as url:
        study(alone, scenes, url, processes=1, kill=False, features=args.features)
        times = study(killed, scenes, url, processes=2, kill=True, features=args.features)
    begun = Study.open(alone)
    chosen = json.loads(alone.with_suffix(".filters.json").read_text(encoding="utf-8"))[begun.module]
    print(labels_table(begun, truth_of(Cache.open(begun), scenes), chosen))  # noqa: T201 - what the command is for
    other = same(alone, killed)
    print(f"{times} of 5 verbs killed and run again, by two processes: {'the same files' if not other else f'differs in {other}'}.")  # noqa: T201


if __name__ == "__main__":
    main()
