"""Merging the parts of a cache: activations split by feature, as multimodal-sae keeps them, and the top pictures of every feature.

One split, or the lists of top pictures, are in memory at a time, so memory does not grow with the number of pictures.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open

from ..errors import InterpError
from ..files import write_whole
from . import work
from .cache_files import INDEX, KINDS, PARTS, TOP, boundaries, split_name
from .study import Study

_SPLIT_BYTES = 256 << 20
_ENTRY_BYTES = 28  # of an activation in a split: three int64 and a float32


def merge(study: Study, folder: Path, pool: str, keep: int, splits: int | None) -> None:
    """Make splits, top.safetensors and index.json of the parts in `folder`, which are not needed any more then."""
    features = study.sae.d_sae
    parts = [folder / PARTS / f"{number:05}.safetensors" for number in range(study.data.chunks)]
    entries = sum(_length(part) for part in parts)
    if not entries:
        raise InterpError(f"No feature is active on any sample of {study.plan.data}. Look at more samples, or keep more features.")
    offset = _offset(folder / "tokens", len(parts))
    cuts = boundaries(features, splits or min(features, 1 + entries * _ENTRY_BYTES // _SPLIT_BYTES))
    target = folder / study.module
    units = [work.Unit(number, target / split_name(start, end)) for number, (start, end) in enumerate(cuts)]
    for unit in work.shared(units, "splits"):
        work.write(unit.file, *_split(parts, *cuts[unit.number], offset))

    def finish() -> None:
        top, samples = _top(parts, features, pool, keep), _samples(folder / "tokens", len(parts))
        work.write(folder / TOP, top)
        about: dict[str, Any] = {
            "module": study.module,
            "features": features,
            "samples": samples,
            "entries": entries,
            "offset": offset,
            "pool": pool,
        }
        write_whole(folder / INDEX, json.dumps(about) + "\n")

    work.once(finish)


def _split(parts: Sequence[Path], start: int, end: int, offset: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The activations of features `start` to `end`, both included: locations (image, position, feature), activations, and where each feature's begin."""
    columns: list[tuple[torch.Tensor, ...]] = []
    for part in parts:
        with safe_open(part, framework="pt") as held:
            present, offsets = held.get_tensor("present"), held.get_tensor("offsets")
            first, last = torch.searchsorted(present, torch.tensor([start, end + 1], dtype=present.dtype)).tolist()
            here = slice(int(offsets[first]), int(offsets[last]))
            feature = torch.repeat_interleave(present[first:last], offsets[first : last + 1].diff())
            columns.append((*(held.get_slice(name)[here] for name in ("image", "position", "value")), feature))
    image, position, value, feature = (torch.cat(column) for column in zip(*columns, strict=True))
    before = position < offset  # BOS, which the reference does not count
    order = feature.argsort(stable=True)  # images stay ascending: parts are
    order = order[~before[order]]
    locations = torch.stack([image[order], position[order] - offset, feature[order]], dim=1).long()
    starts = F.pad(torch.bincount(feature[order].long() - start, minlength=end - start + 1).cumsum(0), (1, 0))
    return {"locations": locations, "activations": value[order], "starts": starts}, {"offset": str(offset)}


def _top(parts: Sequence[Path], features: int, pool: str, keep: int) -> dict[str, torch.Tensor]:
    """The `keep` pictures on which each feature scores highest, and how often it fires."""
    scores, images = torch.zeros(features, keep), torch.full((features, keep), -1, dtype=torch.int32)
    pictures, tokens, on_image = torch.zeros(3, features, dtype=torch.int64)
    for part in parts:
        with safe_open(part, framework="pt") as held:
            feature, image, score = (held.get_tensor(name) for name in ("pooled_feature", "pooled_image", pool))
            present, offsets, fired = (held.get_tensor(name) for name in ("present", "offsets", "fired_image"))
        tokens[present.long()] += offsets.diff()
        on_image[present.long()] += fired
        if not len(feature):
            continue
        rows, index, counts = feature.long().unique_consecutive(return_inverse=True, return_counts=True)
        pictures[rows] += counts
        place = torch.arange(len(feature)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        new, new_images = torch.zeros(len(rows), int(counts.max())), torch.full((len(rows), int(counts.max())), -1, dtype=torch.int32)
        new[index, place], new_images[index, place] = score, image
        both, both_images = torch.cat([scores[rows], new], 1), torch.cat([images[rows], new_images], 1)
        # Stable: of equal scores, the picture that came first stays.
        order = both.argsort(dim=1, descending=True, stable=True)[:, :keep]
        scores[rows], images[rows] = both.gather(1, order), both_images.gather(1, order)
    return {"scores": scores, "images": images, "pictures": pictures, "tokens": tokens, "tokens_on_pictures": on_image}


def _length(part: Path) -> int:
    with safe_open(part, framework="pt") as held:
        return held.get_slice("image").get_shape()[0]


def _each_tokens(folder: Path, parts: int) -> Iterator[Any]:
    for number in range(parts):
        with safe_open(folder / f"{number:05}.safetensors", framework="pt") as held:
            yield held


def _samples(folder: Path, parts: int) -> int:
    return sum(held.get_slice("lengths").get_shape()[0] for held in _each_tokens(folder, parts))


def _offset(folder: Path, parts: int) -> int:
    """1 if every sample begins with BOS, which multimodal-sae does not count, else 0."""
    firsts: set[int] = set()
    for held in _each_tokens(folder, parts):
        lengths, kinds = held.get_tensor("lengths").long(), held.get_tensor("kinds")
        firsts |= set(kinds[lengths.cumsum(0) - lengths].tolist())
    return int(firsts == {KINDS.index("special")})
