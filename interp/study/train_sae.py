"""`train-sae`: train an SAE on the study's samples, measure it on samples that were held out, and write it in the formats of sae-lens and sparsify.

The states of one layer are collected once, by all processes; the main process trains on a shuffled stream of them; all processes measure.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InterpError
from ..models import hub
from ..saes.loading import load_sae
from ..saes.train import ARCHITECTURES, FINISHED, Plan, train
from ..validation import index
from . import work
from .cache_files import read_tensors
from .data import CHUNK
from .study import Study
from .training.balance import share
from .training.collect import Mixture, part
from .training.held_out import figures, measured
from .training.passages import Passages
from .training.publish import assemble, hook_of
from .training.stream import Stream

NAME, HELP = "train-sae", "train an SAE and measure it"
_PASSES = 10  # over the pool, unless said otherwise
_WIDER = 16  # features for each dimension, likewise


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    pool = parser.add_argument_group("the states to train on")
    pool.add_argument("--train-layer", type=int, metavar="L", help="instead of --layer, or else the model's own default")
    pool.add_argument("--image-share", type=share, default="1/2", metavar="P", help="of states at tokens of pictures, exactly: 0.5, 2/3")
    pool.add_argument(
        "--text", type=Path, metavar="FILE", help="other text to train on: .txt (one passage a line) or .parquet, or a folder"
    )
    pool.add_argument("--text-share", type=share, default="1/2", metavar="P", help="of it among the states that are not of pictures")
    pool.add_argument("--answers", type=int, default=0, metavar="N", help="let the model answer, up to N tokens, and train on those too")
    pool.add_argument("--per-picture", type=int, metavar="N", help="states of one picture at most, drawn at random")
    pool.add_argument("--held-out", type=int, default=20, metavar="N", help="every N-th sample is left for measuring")
    pool.add_argument("--states", default="states", metavar="NAME", help="folder of the states in the study; another for other states")
    sae = parser.add_argument_group("the SAE")
    sae.add_argument("--architecture", choices=ARCHITECTURES, default="topk", help="batchtopk is saved as JumpReLU")
    sae.add_argument("--features", type=int, metavar="F", help=f"by default {_WIDER} for each dimension of the states")
    sae.add_argument("--active", type=float, default=64, metavar="K", help="features active per token")
    sae.add_argument("--tokens", type=int, metavar="N", help=f"states to train on, counted with repetition; by default {_PASSES} passes")
    sae.add_argument("--batch", type=int, default=4096, metavar="N", help="states in a step")
    sae.add_argument("--rate", type=float, help="learning rate; by default 2e-4 / sqrt(features / 2^14)")
    sae.add_argument("--memory", type=int, default=1024, metavar="MIB", help="for shuffling states across pictures")
    sae.add_argument("--checkpoints", type=int, default=20, metavar="N", help="during training; only the newest is kept")
    sae.add_argument("--seed", type=int, default=0)
    sae.add_argument("--max-new-tokens", type=int, default=32, metavar="N", help="of the answers whose loss is measured")
    sae.add_argument("--name", default=NAME, help="folder of the SAE in the study; another for other settings")
    sae.add_argument("--push-to-hub", metavar="OWNER/NAME", help="publish it in this repository of the Hugging Face hub")
    sae.add_argument("--private", action="store_true", help="make that repository a private one, if it must be made")


def run(study: Study, args: argparse.Namespace) -> None:
    """Collect, train, measure, write and publish what is not done yet."""
    mixture = _mixture(study, args)
    _plan(study, args, mixture, [1])  # what cannot be done is refused now, not after hours
    if args.push_to_hub:
        work.once(lambda: hub.make_repo(args.push_to_hub, private=args.private))
    files = _collected(study, mixture, args.states)
    plan = _plan(study, args, mixture, pool := _counted(files))
    stream = Stream.of(files, plan.batch, args.memory << 20, plan.seed)
    settings = {
        **vars(plan),
        "metadata": dict(plan.metadata),
        "memory": args.memory,
        "states": args.states,
        "max_new_tokens": args.max_new_tokens,
    }
    folder = study.stage(args.name, settings)
    work.once(lambda: train(plan, stream.width, stream.batches, folder / "run", device=work.device()))
    parts = _measured(study, folder, mixture, args.max_new_tokens)
    found, density = figures(parts)
    held_out = sum(mixture.is_held_out(number) for number in range(study.data.count))
    about = {
        "model": _public(study.vlm.name),
        "checkpoint": _public(study.found["model"]["checkpoint"]),
        "data": _public(study.plan.data),
        "pool": pool,
        "samples": study.data.count - held_out,
        "held_out": held_out,
    }
    place = folder / "sae" / hook_of(mixture.layer)
    work.once(lambda: assemble(folder / "run" / FINISHED, folder / "sae", plan, found, density, about))
    if not study.plan.sae:
        study.with_sae(str(place.resolve()), None if study.plan.layer is None else mixture.layer)
    work.once(lambda: print(_said(found, place)))  # noqa: T201 - what the command is for
    if args.push_to_hub:
        message = f"SAE of {about['model']}, layer {mixture.layer}"
        work.once(lambda: print(hub.publish(args.push_to_hub, folder / "sae", message)))  # noqa: T201


def _mixture(study: Study, args: argparse.Namespace) -> Mixture:
    """What to collect. Raises InterpError for settings that cannot be met."""
    for name, low in {"answers": 0, "per_picture": 1, "held_out": 2, "memory": 1, "max_new_tokens": 1}.items():
        if (value := getattr(args, name)) is not None and value < low:
            raise InterpError(f"--{name.replace('_', '-')} is {value}; it must be at least {low}.")
    if study.data.count < args.held_out:
        raise InterpError(f"--held-out is {args.held_out}; of {study.data.count} samples none would be held out for measuring. Lower it.")
    asked = args.train_layer if args.train_layer is not None else study.plan.layer
    last = study.vlm.n_layers - 1
    layer = study.vlm.default_layer if asked is None else index("Layer", asked, 0, last, f"{study.vlm.name} has layers 0 to {last}")
    passages = None if args.text is None else Passages.of(args.text)
    of_image, of_text = (share(str(each)) for each in (args.image_share, args.text_share))  # a configuration file may hold numbers
    return Mixture(layer, of_image, passages, of_text, args.per_picture, args.answers, args.held_out, args.seed)


def _collected(study: Study, mixture: Mixture, name: str) -> list[Path]:
    """The files of states, all written."""
    folder = study.stage(name, mixture.settings)
    units = [work.Unit(number, folder / f"{number:05}.safetensors") for number in range(study.data.chunks)]
    read = study.data.reader()
    for unit in work.shared(units, "states"):
        work.write(unit.file, part(study.vlm, mixture, read(unit.number), unit.number * CHUNK))
        _check_room(folder, unit.file.stat().st_size * sum(not each.file.exists() for each in units))
    return [unit.file for unit in units]


def _check_room(folder: Path, more: int) -> None:
    """Raise InterpError if the parts that are left will not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if more > free:
        raise InterpError(
            f"The states of the samples that are left need about {more / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder}. Free some space, "
            "or keep fewer in another folder of states: --per-picture N --states NAME."
        )


def _counted(files: Sequence[Path]) -> list[int]:
    """Rows of each kind."""
    total = torch.zeros(3, dtype=torch.int64)
    for file in files:
        total += torch.bincount(read_tensors(file, "kind")["kind"], minlength=3)
    return total.tolist()


def _plan(study: Study, args: argparse.Namespace, mixture: Mixture, pool: Sequence[int]) -> Plan:
    about = {
        "model_name": _public(study.vlm.name),
        "hook_name": hook_of(mixture.layer),
        "prepend_bos": True,
        "dataset_path": _public(study.plan.data),
    }
    return Plan(
        features=_WIDER * study.vlm.d_model if args.features is None else args.features,
        active=args.active,
        tokens=_PASSES * sum(pool) if args.tokens is None else args.tokens,
        architecture=args.architecture,
        batch=args.batch,
        rate=args.rate,
        checkpoints=args.checkpoints,
        seed=args.seed,
        metadata=about,
    )


def _public(name: str) -> str:
    """A name that may be published: of a folder of this machine only the last part."""
    return Path(name).name if Path(name).exists() else name


def _measured(study: Study, folder: Path, mixture: Mixture, new: int) -> list[dict[str, torch.Tensor]]:
    """The sums over the samples that were held out, chunk by chunk."""
    sae = load_sae(folder / "run" / FINISHED, dtype="float32", device=work.device())
    units = [work.Unit(number, folder / "held-out" / f"{number:05}.safetensors") for number in range(study.data.chunks)]
    read = study.data.reader()
    for unit in work.shared(units, "held-out samples"):
        samples = [sample for at, sample in enumerate(read(unit.number)) if mixture.is_held_out(unit.number * CHUNK + at)]
        work.write(unit.file, measured(study.vlm, sae, samples, new))
    return [read_tensors(unit.file) for unit in units]


def _said(found: dict[str, Any], place: Path) -> str:
    kinds = ", ".join(
        f"{kind} {found[kind]['explained_variance']:.1%} at L0 {found[kind]['l0']:.1f}"
        for kind in ("image", "text")
        if found[kind]["explained_variance"] is not None
    )
    recovered = found["loss"]["recovered"]
    loss = "" if recovered is None else f" Loss recovered: {recovered:.1%}."
    return f"Variance explained on held-out tokens: {kinds}; {found['dead']:.1%} of the features are dead.{loss} Written to {place}."
