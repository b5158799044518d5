"""Merging the parts of a cache: activations split by feature, as multimodal-sae keeps them, and the top pictures of every feature.

One split, or the lists of top pictures, are in memory at a time, so memory does not grow with the number of pictures.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ..errors import InterpError
from ..files import write_whole
from . import work
from .by_feature import Places
from .cache_files import INDEX, KINDS, PARTS, TOP, boundaries, split_name
from .study import Study

_SPLIT_BYTES = 256 << 20
_ENTRY_BYTES = 28  # of an activation in a split: three int64 and a float32
_ROWS = 8192  # features whose top pictures are put in order together


def merge(study: Study, folder: Path, pool: str, keep: int, splits: int | None) -> None:
    """Make splits, top.safetensors and index.json of the parts in `folder`, which are not needed any more then."""
    features = study.sae.d_sae
    parts = [folder / PARTS / f"{number:05}.safetensors" for number in range(study.data.chunks)]
    entries = sum(_length(part) for part in parts)
    if not entries:
        raise InterpError(f"No feature is active on any sample of {study.plan.data}. Look at more samples, or keep more features.")
    offset = _offset(folder / "tokens", len(parts))
    cuts = boundaries(features, splits or min(features, 1 + entries * _ENTRY_BYTES // _SPLIT_BYTES))
    tops = [folder / PARTS / "top" / split_name(*cut) for cut in cuts]
    for unit in work.shared([work.Unit(number, top) for number, top in enumerate(tops)], "splits"):
        cut = cuts[unit.number]
        work.write(folder / study.module / split_name(*cut), *_split(parts, *cut, offset))
        work.write(unit.file, _top(parts, *cut, pool, keep))

    def finish() -> None:
        pieces = [load_file(top) for top in tops]
        work.write(folder / TOP, {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]})
        about: dict[str, Any] = {
            "module": study.module,
            "features": features,
            "samples": _samples(folder / "tokens", len(parts)),
            "entries": entries,
            "offset": offset,
            "pool": pool,
        }
        write_whole(folder / INDEX, json.dumps(about) + "\n")

    work.once(finish)


def _split(parts: Sequence[Path], start: int, end: int, offset: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The activations of features `start` to `end`, both included: locations (image, position, feature), activations, and where each feature's begin."""
    counts = torch.zeros(end - start + 1, dtype=torch.int64)
    for part in parts:  # they are read twice: together they may not fit into memory beside the result
        feature, *_ = _entries(part, start, end, offset)
        counts += torch.bincount(feature - start, minlength=len(counts))
    places = Places(counts)
    locations, activations = torch.empty(int(counts.sum()), 3, dtype=torch.int64), torch.empty(int(counts.sum()))
    for part in parts:  # images stay ascending: parts are
        feature, image, position, value = _entries(part, start, end, offset)
        at = places.of(*(feature - start).unique_consecutive(return_counts=True))
        locations[at] = torch.stack([image, position - offset, feature], 1).long()
        activations[at] = value
    return {"locations": locations, "activations": activations, "starts": places.starts}, {"offset": str(offset)}


def _entries(part: Path, start: int, end: int, offset: int) -> tuple[torch.Tensor, ...]:
    """(feature, image, position, value) of a part's activations of these features, by feature; without BOS, where `offset` is 1: the reference does not count it."""
    with safe_open(part, framework="pt") as held:
        present, offsets = held.get_tensor("present"), held.get_tensor("offsets")
        first, last = torch.searchsorted(present, torch.tensor([start, end + 1], dtype=present.dtype)).tolist()
        here = slice(int(offsets[first]), int(offsets[last]))
        feature = torch.repeat_interleave(present[first:last], offsets[first : last + 1].diff())
        columns = (feature, *(held.get_slice(name)[here] for name in ("image", "position", "value")))
    kept = columns[2] >= offset
    return columns if kept.all() else tuple(column[kept] for column in columns)


def _top(parts: Sequence[Path], start: int, end: int, pool: str, keep: int) -> dict[str, torch.Tensor]:
    """The `keep` pictures on which each of these features scores highest, and how often it fires."""
    features = end - start + 1
    scores, images = torch.zeros(features, keep), torch.full((features, keep), -1, dtype=torch.int32)
    pictures, tokens, on_image = torch.zeros(3, features, dtype=torch.int64)
    for part in parts:
        with safe_open(part, framework="pt") as held:
            present, offsets, fired, feature = (held.get_tensor(name) for name in ("present", "offsets", "fired_image", "pooled_feature"))
            first, last = torch.searchsorted(present, torch.tensor([start, end + 1], dtype=present.dtype)).tolist()
            here = slice(*torch.searchsorted(feature, torch.tensor([start, end + 1], dtype=feature.dtype)).tolist())
            image, score = (held.get_slice(name)[here] for name in ("pooled_image", pool))
        rows = present[first:last].long() - start
        tokens[rows] += offsets[first : last + 1].diff()
        on_image[rows] += fired[first:last]
        if not len(score):
            continue
        rows, counts = (feature[here].long() - start).unique_consecutive(return_counts=True)
        pictures[rows] += counts
        done = 0
        for some, each in zip(rows.split(_ROWS), counts.split(_ROWS), strict=True):
            here = slice(done, done := done + int(each.sum()))
            scores[some], images[some] = _best(scores[some], images[some], each, score[here], image[here])
    return {"scores": scores, "images": images, "pictures": pictures, "tokens": tokens, "tokens_on_pictures": on_image}


def _best(
    scores: torch.Tensor, images: torch.Tensor, counts: torch.Tensor, more: torch.Tensor, more_images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest of the scores [features, keep] and of more, `counts` of each feature, with their pictures."""
    row = torch.repeat_interleave(torch.arange(len(counts)), counts)
    place = torch.arange(len(more)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    new, new_images = torch.zeros(len(counts), int(counts.max())), torch.full((len(counts), int(counts.max())), -1, dtype=torch.int32)
    new[row, place], new_images[row, place] = more, more_images
    both, both_images = torch.cat([scores, new], 1), torch.cat([images, new_images], 1)
    # Stable: of equal scores, the picture that came first stays.
    order = both.argsort(dim=1, descending=True, stable=True)[:, : scores.shape[1]]
    return both.gather(1, order), both_images.gather(1, order)


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
