"""`cache`: the SAE's activations on every sample of a study, and the top pictures of every feature, in one pass over the data.

Each chunk of samples becomes two files: parts/ holds its activations until they are merged, tokens/ says what stands at each position and where
each patch lies on its picture. `merge.py` makes of the parts what is kept.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ..concepts.samples import Sample
from ..models.vlm import Inputs, Vlm
from ..saes.sae import Sae, SparseActs
from ..tracing.record import tokens_of
from ..tracing.select import sinks
from ..tracing.trace import Prompt
from . import work
from .by_feature import Places
from .cache_files import INDEX, KINDS, PARTS, Cache
from .data import CHUNK
from .merge import merge
from .prompt_states import prompt_states
from .study import Study

NAME, HELP = "cache", "encode all samples and find the top pictures of each feature"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--filters", type=Path, metavar="FILE", help="a filters.json: keep only the features it lists")
    parser.add_argument(
        "--pool", choices=["mean", "max"], default="mean", help="what pictures of a feature are ranked by, over the picture's tokens"
    )
    parser.add_argument("--keep", type=int, default=64, metavar="N", help="top pictures to keep for each feature")
    parser.add_argument("--splits", type=int, metavar="N", help="files to split the activations into, by feature  (default: by size)")


def run(study: Study, args: argparse.Namespace) -> None:
    """Cache what is not cached yet."""
    if min(args.keep, args.splits or 1) < 1:
        raise argparse.ArgumentTypeError("--keep and --splits must be at least 1")
    chosen = study.chosen(args.filters)
    folder = study.stage(NAME, {"features": chosen, "pool": args.pool, "keep": args.keep, "splits": args.splits})
    if not work.agreed((folder / INDEX).exists()):
        chunks(study, folder, chosen)
        merge(study, folder, args.pool, args.keep, args.splits)
    work.once(lambda: shutil.rmtree(folder / PARTS, ignore_errors=True))
    if work.state().is_main_process:
        print(Cache.open(study).summary())  # noqa: T201 - what the command is for


def chunks(study: Study, folder: Path, chosen: Sequence[int] | None) -> None:
    """Write the files of all chunks."""
    units = [work.Unit(number, folder / PARTS / f"{number:05}.safetensors") for number in range(study.data.chunks)]
    read = study.data.reader()
    only = None if chosen is None else torch.tensor(chosen, dtype=torch.int32)
    for unit in work.shared(units, "chunks of samples"):
        tokens, part = encoded(study.vlm, study.sae, read(unit.number), unit.number * CHUNK, only)
        work.write(folder / "tokens" / unit.file.name, *tokens)
        work.write(unit.file, part)  # last: it says that the chunk is done


def encoded(
    vlm: Vlm, sae: Sae, samples: Sequence[Sample], first: int, only: torch.Tensor | None
) -> tuple[tuple[dict[str, torch.Tensor], dict[str, str]], dict[str, torch.Tensor]]:
    """The two files of a chunk whose samples are numbered from `first`: (tokens, their metadata), activations.

    Activations are ordered by feature, then sample, then position: entries `offsets[u]` to `offsets[u + 1]` are those of feature `present[u]`.
    """
    about = _Tokens()
    actives = dict(_actives(vlm, sae, samples, about, only))
    return about.file(), _ordered(actives, first, sae.d_sae)


def _actives(vlm: Vlm, sae: Sae, samples: Sequence[Sample], about: "_Tokens", only: torch.Tensor | None) -> Iterator[tuple[int, "_Active"]]:
    """What is active on each sample, by its number among these; notes in `about` what stands where."""
    for read in prompt_states(vlm, samples, sae.layer):
        acts = sae.encode(read.states.flatten(0, 1))
        length = read.states.shape[1]
        for row, (number, inputs, states) in enumerate(zip(read.numbers, read.inputs, read.states.cpu(), strict=True)):
            kinds, left_out = about.add(number, samples[number], inputs, states, vlm)
            yield number, _active(acts, slice(row * length, (row + 1) * length), (kinds == 0) & ~left_out, only)


@dataclass(frozen=True)
class _Active:
    """What is active on a sample, ordered by feature, then position."""

    features: torch.Tensor
    """Those that are active: int32 [P]."""
    counts: torch.Tensor
    """On how many positions: int32 [P]."""
    on_image: torch.Tensor
    """On how many of the picture's tokens: int32 [P]."""
    positions: torch.Tensor
    """int32 [N]"""
    values: torch.Tensor
    """float32 [N]"""
    pooled: tuple[torch.Tensor, torch.Tensor]
    """Maximum and mean over the picture's tokens of the features that are active there: float32 [features where `on_image` > 0]."""


def _active(acts: SparseActs, tokens: slice, patch: torch.Tensor, only: torch.Tensor | None) -> _Active:
    """`tokens`: those of the sample. `patch` [T]: the picture's tokens without sinks."""
    offsets = acts.offsets[tokens.start : tokens.stop + 1]
    entries = slice(int(offsets[0]), int(offsets[-1]))
    feature, value = acts.features[entries], acts.values[entries]
    position = torch.repeat_interleave(torch.arange(len(patch), dtype=torch.int32), offsets.diff())
    if only is not None:
        kept = torch.isin(feature, only)
        feature, value, position = feature[kept], value[kept], position[kept]
    feature, order = feature.sort(stable=True)
    value, position = value[order], position[order]
    present, row, counts = feature.unique_consecutive(return_inverse=True, return_counts=True)
    here = patch[position]
    row, on = row[here], value[here]
    on_image = torch.bincount(row, minlength=len(present))
    peak = torch.zeros(len(present)).scatter_reduce(0, row, on, "amax")
    total = torch.zeros(len(present)).index_add(0, row, on)
    some = on_image > 0
    return _Active(present, counts.int(), on_image.int(), position, value, (peak[some], total[some] / patch.sum()))


def _ordered(actives: dict[int, _Active], first: int, features: int) -> dict[str, torch.Tensor]:
    """All samples of a chunk together, by feature; takes them out of `actives` one by one, so that nothing is in memory twice."""
    counts, fired, pictures = torch.zeros(3, features, dtype=torch.int64)
    for one in actives.values():
        rows = one.features.long()
        counts[rows] += one.counts
        fired[rows] += one.on_image
        pictures[rows] += one.on_image > 0
    entries, pools = Places(counts), Places(pictures)
    image, position, pooled_image, pooled_feature = (
        torch.empty(int(places.starts[-1]), dtype=torch.int32) for places in (entries, entries, pools, pools)
    )
    value, peak, mean = (torch.empty(len(like)) for like in (image, pooled_image, pooled_image))
    for number in sorted(actives):
        one = actives.pop(number)
        at = entries.of(one.features, one.counts)
        image[at], position[at], value[at] = first + number, one.positions, one.values
        on_picture = one.features[one.on_image > 0]
        at = pools.of(on_picture, torch.ones_like(on_picture))
        pooled_image[at], pooled_feature[at], peak[at], mean[at] = first + number, on_picture, *one.pooled
    present = counts.nonzero().flatten()
    return {
        "present": present.int(),
        "offsets": F.pad(entries.starts[present + 1], (1, 0)),
        "fired_image": fired[present],
        "image": image,
        "position": position,
        "value": value,
        "pooled_feature": pooled_feature,
        "pooled_image": pooled_image,
        "max": peak,
        "mean": mean,
    }


class _Tokens:
    """What stands at each position of a chunk's samples, and where its patches lie."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[dict[str, object], torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._layouts: dict[bytes, int] = {}
        self._tensors: dict[str, torch.Tensor] = {}

    def add(self, number: int, sample: Sample, inputs: Inputs, states: torch.Tensor, vlm: Vlm) -> tuple[torch.Tensor, torch.Tensor]:
        """Note a sample; returns the kind of each position as in `KINDS`, and whether it is BOS or a sink."""
        ids = inputs["input_ids"][0].cpu()
        tokens = tuple(tokens_of(vlm, ids.tolist(), inputs.layout, len(ids)))
        kinds = torch.tensor([KINDS.index(token.kind) for token in tokens], dtype=torch.uint8)
        left_out = torch.zeros(len(ids), dtype=torch.bool)
        left_out[list(sinks(Prompt(tokens, inputs.layout.grids), states))] = True
        width, height = inputs.image.size
        about = {"id": sample.id, "path": sample.path, "prompt": sample.prompt, "width": width, "height": height}
        self._rows[number] = ({**about, "layout": self._layout(inputs)}, ids.int(), kinds, left_out)
        return kinds, left_out

    def _layout(self, inputs: Inputs) -> int:
        """The number of a picture's layout: those of equal size share one."""
        grids = {
            f"{name}.{g}": each
            for g, grid in enumerate(inputs.layout.grids)
            for name, each in (("positions", grid.positions), ("boxes", grid.boxes))
        }
        key = b"".join(str(tuple(each.shape)).encode() + each.numpy().tobytes() for each in grids.values())
        if key not in self._layouts:
            self._layouts[key] = len(self._layouts)
            self._tensors |= {f"{name}.{self._layouts[key]}": each for name, each in grids.items()}
        return self._layouts[key]

    def file(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Tensors and metadata."""
        rows = [self._rows[number] for number in sorted(self._rows)]
        none = torch.empty(0, dtype=torch.int32)
        tensors = {
            "lengths": torch.tensor([len(ids) for _, ids, _, _ in rows], dtype=torch.int32),
            "ids": torch.cat([none, *(ids for _, ids, _, _ in rows)]),
            "kinds": torch.cat([none.byte(), *(kinds for _, _, kinds, _ in rows)]),
            "left_out": torch.cat([none.bool(), *(left_out for _, _, _, left_out in rows)]),
        }
        return tensors | self._tensors, {"samples": json.dumps([about for about, *_ in rows])}
