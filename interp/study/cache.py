"""`cache`: the SAE's activations on every sample of a study, and the top pictures of every feature, in one pass over the data.

Each chunk of samples becomes two files: parts/ holds its activations until they are merged, tokens/ says what stands at each position and where
each patch lies on its picture. `merge.py` makes of the parts what is kept.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
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
from .cache_files import INDEX, KINDS, PARTS, Cache
from .data import CHUNK
from .merge import merge
from .prompt_states import Read, prompt_states
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
    about, entries, pooled = _Tokens(), [], []
    for read in prompt_states(vlm, samples, sae.layer):
        acts = sae.encode(read.states.flatten(0, 1))
        where = [about.add(number, samples[number], inputs, states, vlm) for number, inputs, states in _each(read)]
        kinds, left_out = torch.stack([kinds for kinds, _ in where]), torch.stack([left_out for _, left_out in where])
        entry, pool = _entries(acts, first + torch.tensor(read.numbers), (kinds == 0) & ~left_out, only)
        entries.append(entry)
        pooled.append(pool)
    image, position, feature, value, on_image = _joined(entries, (torch.int32, torch.int32, torch.int32, torch.float32, torch.bool))
    order = _by(feature, image, position)
    present, counts = feature[order].unique_consecutive(return_counts=True)
    row = torch.repeat_interleave(torch.arange(len(present)), counts)
    fired = torch.zeros(len(present), dtype=torch.int64).index_add(0, row, on_image[order].long())
    p_image, p_feature, p_max, p_mean = _joined(pooled, (torch.int32, torch.int32, torch.float32, torch.float32))
    by = _by(p_feature, p_image)
    part = {
        "present": present,
        "offsets": F.pad(counts.cumsum(0), (1, 0)),
        "fired_image": fired,
        "image": image[order],
        "position": position[order],
        "value": value[order],
        "pooled_feature": p_feature[by],
        "pooled_image": p_image[by],
        "max": p_max[by],
        "mean": p_mean[by],
    }
    return about.file(), part


def _each(read: Read) -> list[tuple[int, Inputs, torch.Tensor]]:
    return list(zip(read.numbers, read.inputs, read.states.cpu(), strict=True))


_Columns = tuple[torch.Tensor, ...]


def _entries(acts: SparseActs, numbers: torch.Tensor, patch: torch.Tensor, only: torch.Tensor | None) -> tuple[_Columns, _Columns]:
    """(image, position, feature, activation, whether on the picture) of each activation, and (image, feature, max, mean) over each picture.

    `patch` [samples, T]: the picture's tokens without sinks.
    """
    token, feature, value = acts.tokens, acts.features, acts.values
    if only is not None:
        kept = torch.isin(feature, only)
        token, feature, value = token[kept], feature[kept], value[kept]
    length = patch.shape[1]
    row, position = token // length, token % length
    here = patch[row, position]
    entries = (numbers[row], position, feature, value, here)
    if not here.any():
        return entries, (numbers[:0], feature[:0], value[:0], value[:0])
    keys, index = torch.stack([row[here], feature[here].long()]).unique(dim=1, return_inverse=True)
    peak = torch.zeros(keys.shape[1]).scatter_reduce(0, index, value[here], "amax")
    total = torch.zeros(keys.shape[1]).index_add(0, index, value[here])
    mean = total / patch.sum(1)[keys[0]]
    return entries, (numbers[keys[0]], keys[1].int(), peak, mean)


def _joined(parts: Sequence[_Columns], dtypes: Sequence[torch.dtype]) -> list[torch.Tensor]:
    """Columns of several batches, in these dtypes; empty ones of none, such as those of a chunk behind the end of the data."""
    columns = zip(*parts, strict=True) if parts else [()] * len(dtypes)
    return [
        torch.cat([torch.empty(0, dtype=dtype), *(part.to(dtype) for part in column)])
        for column, dtype in zip(columns, dtypes, strict=True)
    ]


def _by(*keys: torch.Tensor) -> torch.Tensor:
    """The order by several keys, the first most important."""
    order = keys[-1].argsort(stable=True)
    for key in reversed(keys[:-1]):
        order = order[key[order].argsort(stable=True)]
    return order


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
