"""`attribute`: which features carried a word of the answer, on every sample: one backward pass a sample for all features at once.

The scores are those of `interp.attribute` (effect of a feature's presence, to first order, with the error of the SAE kept); pooled over a
picture's tokens, they are averaged over all samples. `--exact` takes the features with the largest averages away, one by one, and says how well
the estimate agrees.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..attribution.filters import POOLS
from ..attribution.margin import NORMS
from ..errors import InterpError
from ..files import write_whole
from . import work
from .attributed import Task
from .cache_files import read_tensors
from .data import CHUNK
from .questions import Questions, of_file, of_study
from .said import said_of
from .study import Study

NAME, HELP = "attribute", "score what each feature did for a word of the answer"
POOLED, SUMMARY = "pooled.safetensors", "summary.json"
_LISTED = 100  # features in the summary


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    pairs = 'a JSON list of {"prompt", "answer", "baseline", "image"}, instead of the study\'s samples'
    parser.add_argument("--pairs", type=Path, metavar="FILE", help=pairs)
    parser.add_argument("--first", type=int, metavar="N", help="only the first so many of the study's samples")
    parser.add_argument("--ask", metavar="TEXT", help="instead of the study's prompt")
    parser.add_argument("--word", metavar="WORD", help="of the answer, to explain, instead of its first content word")
    parser.add_argument("--baseline", metavar="WORD", help="to compare it with, instead of the likeliest other token")
    parser.add_argument("--norms", choices=NORMS, default="fixed", help="whether the gradient holds the scale of the model's norms fixed")
    parser.add_argument("--max-new-tokens", type=int, default=32, metavar="N", help="length of an answer")
    parser.add_argument(
        "--exact", type=int, default=0, metavar="N", help="measure the exact effect of the N features with the largest score"
    )
    parser.add_argument("--dense", action="store_true", help="also write each sample's scores in the layout of multimodal-sae")
    parser.add_argument("--name", default=NAME, help="folder of the results in the study; another name for each setting")


def run(study: Study, args: argparse.Namespace) -> None:
    """Score what is not scored yet, and pool all scores."""
    given = {name: getattr(args, name) for name in ("ask", "word", "baseline", "first")}
    count = study.sae.d_sae
    if not 0 <= args.exact <= count:
        raise InterpError(f"--exact is {args.exact}; the SAE has {count} features.")
    questions, digest = _questions(study, args.pairs, given)
    settings = {**given, "norms": args.norms, "max_new_tokens": args.max_new_tokens, "dense": args.dense}
    folder = study.stage(args.name, {**settings, "pairs": digest, "samples": questions.count})
    dense = folder / study.module.replace(".", "_") if args.dense else None
    task = Task(study.vlm, study.sae, args.max_new_tokens, args.norms, dense)
    units, ask = _units(folder / "scores", questions), questions.by_number()
    for unit in work.shared(units, "chunks of samples"):
        work.write(unit.file, *task.scored(ask, _numbers(unit, questions)))
    work.once(lambda: _pool(folder, units))
    exact = _exact(task, questions, folder, args.exact) if args.exact else {}
    work.once(lambda: print(_summarised(study, folder, units, exact)))  # noqa: T201 - what the command is for


def _questions(study: Study, pairs: Path | None, given: Mapping[str, Any]) -> tuple[Questions, str]:
    """What to ask, and a digest of the file that says so."""
    if pairs is None:
        return of_study(study.data, given["ask"], given["word"], given["baseline"], given["first"]), ""
    if said := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InterpError(f"--pairs says itself what to ask and to explain; leave out {', '.join(said)}.")
    return of_file(pairs), hashlib.sha256(pairs.read_bytes()).hexdigest()


def _units(folder: Path, questions: Questions) -> list[work.Unit]:
    return [work.Unit(number, folder / f"{number:05}.safetensors") for number in range(-(-questions.count // CHUNK))]


def _numbers(unit: work.Unit, questions: Questions) -> range:
    return range(unit.number * CHUNK, min((unit.number + 1) * CHUNK, questions.count))


def _pool(folder: Path, units: Sequence[work.Unit]) -> None:
    """Write the averages over all samples that could be scored."""
    names = (*POOLS, "samples_with")
    parts = [read_tensors(unit.file, *names) for unit in units]
    total = {name: torch.stack([part[name] for part in parts]).sum(0) for name in names}
    scored = sum("failure" not in sample for sample in _samples(units))
    means: dict[str, torch.Tensor] = {pool: (total[pool] / max(1, scored)).float() for pool in POOLS}
    work.write(folder / POOLED, means | {"samples_with": total["samples_with"], "samples": torch.tensor(scored)})


def _samples(units: Sequence[work.Unit]) -> list[dict[str, Any]]:
    """What was said of each sample."""
    out = []
    for unit in units:
        with safe_open(unit.file, framework="pt") as held:
            out += json.loads(held.metadata()["samples"])
    return out


def _exact(task: Task, questions: Questions, folder: Path, count: int) -> dict[int, float]:
    """The exact effect of the features with the largest average score, averaged over the samples."""
    sums = read_tensors(folder / POOLED, "sum")["sum"]
    features = sums.abs().argsort(descending=True, stable=True)[:count].tolist()
    units, ask = _units(folder / f"exact-{count}", questions), questions.by_number()
    for unit in work.shared(units, "exact effects"):
        work.write(unit.file, task.exact(ask, _numbers(unit, questions), features))
    parts = [read_tensors(unit.file) for unit in units]
    effect = torch.stack([part["effect"] for part in parts]).sum(0) / max(1, sum(int(part["samples"]) for part in parts))
    return dict(zip(features, effect.tolist(), strict=True))


def _summarised(study: Study, folder: Path, units: Sequence[work.Unit], exact: Mapping[int, float]) -> str:
    """Write the summary. Returns what there is to say."""
    pooled, samples, said = read_tensors(folder / POOLED), _samples(units), said_of(study)
    order = pooled["sum"].abs().argsort(descending=True, stable=True)
    listed = [f for f in order[: max(_LISTED, len(exact))].tolist() if pooled["samples_with"][f] > 0]
    rows = []
    for feature in listed:
        row = {"feature": feature, "label": said.get(feature, {}).get("label", ""), "samples": int(pooled["samples_with"][feature])}
        rows.append(row | {pool: float(pooled[pool][feature]) for pool in POOLS} | ({"exact": exact[feature]} if feature in exact else {}))
    both = torch.tensor([[row["sum"], row["exact"]] for row in rows if "exact" in row], dtype=torch.float64)
    agreement = float(both.T.corrcoef()[0, 1]) if len(both) > 2 and (both.std(0) > 0).all() else None
    failed = [sample for sample in samples if "failure" in sample]
    summary = {
        "schema": "llava-microscope/study-attribution/1",
        "module": study.module,
        "samples": int(pooled["samples"]),
        "features": rows,
        "pearson": agreement,
        "words": sorted({sample["word"].strip() for sample in samples if "word" in sample}),
        "failures": failed,
    }
    write_whole(folder / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    best = ", ".join(f"{row['feature']}{row['label'] and ' '}{row['label']} {row['sum']:+.2f}" for row in rows[:5])
    agrees = "" if agreement is None else f" Estimate and exact effect correlate at {agreement:.2f}."
    left = f" {len(failed)} samples could not be scored: see {SUMMARY}." if failed else ""
    return f"{int(pooled['samples'])} samples scored. Most by the picture: {best or 'nothing'}.{agrees}{left}"
