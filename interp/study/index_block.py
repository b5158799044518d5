"""What the index holds of a block of features: top pictures with maps, histograms, neighbours and promoted words.

Activations are read a million at a time and decoder directions compared in blocks, so memory grows neither with the pictures nor with the square
of the features; one byte is held for each token of the study.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..lens.directions import promoted_words
from ..saes.sae import Sae
from .cache_files import KINDS, Activations, Cache, read_tensors
from .data import CHUNK

if TYPE_CHECKING:
    from ..models.vlm import Vlm

EDGES = 2 ** (torch.arange(-20, 29, dtype=torch.float64) / 2)
"""Of the histograms' bins, each from its lower edge up to, and without, its upper one. The first bin also holds what is lower, the last what is higher."""
BINS = len(EDGES) - 1
PLACES = ("pictures", "text")
"""What histograms are kept of: image tokens, and all others, both without BOS and attention sinks."""
_LEFT_OUT = len(PLACES)
_BLOCK_BYTES = 64 << 20  # of decoder directions compared at once


@dataclass(frozen=True)
class Tokens:
    """Where each token of the study stands."""

    starts: torch.Tensor
    """The first token of each sample: int64 [samples]."""
    kinds: torch.Tensor
    """Number within `PLACES`, or one more for BOS and sinks: uint8 [tokens]."""

    @classmethod
    def of(cls, cache: Cache) -> "Tokens":
        """Read the tokens of a cache."""
        lengths, kinds = [], []
        for number in range(-(-cache.count // CHUNK)):
            held = read_tensors(cache.folder / "tokens" / f"{number:05}.safetensors", "lengths", "kinds", "left_out")
            on_text = (held["kinds"] != KINDS.index("image")).byte()
            lengths.append(held["lengths"].long())
            kinds.append(on_text.masked_fill(held["left_out"], _LEFT_OUT))
        length = torch.cat(lengths)
        return cls(length.cumsum(0) - length, torch.cat(kinds))

    def kind(self, active: Activations) -> torch.Tensor:
        """Of the token of each activation: int64."""
        return self.kinds[self.starts[active.samples] + active.positions].long()


def pictures_of(cache: Cache, tokens: Tokens, first: int, last: int, keep: int) -> dict[str, torch.Tensor]:
    """Top pictures, maps and histograms of features `first` to `last`, both included, n of them.

    `top_numbers` and `top_scores` [n, keep], numbers -1 where there are fewer; `map_ends` [n * keep]: entries of `map_positions` and `map_values` up to
    which those of each picture go; `histogram` int64 [n, places, bins]; `pictures` [n]; `peak` [n], the highest activation on a picture.
    """
    count, samples = last - first + 1, cache.count
    numbers = cache.top["images"][first : last + 1, :keep].long()
    there = (numbers >= 0).flatten().nonzero().flatten()
    keys = (torch.arange(count)[:, None] * samples + numbers).flatten()[there]
    order = keys.argsort()
    keys, slots = keys[order], there[order]
    histogram, peak = torch.zeros(count * len(PLACES) * BINS, dtype=torch.int64), torch.zeros(count)
    empty = torch.empty(0, dtype=torch.int64)
    found: list[tuple[torch.Tensor, ...]] = [(empty, empty, torch.empty(0))]
    for active in cache.splits.between(first, last):
        local, kind = active.features - first, tokens.kind(active)
        bins = torch.bucketize(active.values.double(), EDGES[1:-1], right=True)
        counted = kind < _LEFT_OUT
        histogram += torch.bincount(((local * len(PLACES) + kind) * BINS + bins)[counted], minlength=len(histogram))
        shown = (kind == 0).nonzero().flatten()
        peak.scatter_reduce_(0, local[shown], active.values[shown], "amax")
        if len(keys):
            wanted = local[shown] * samples + active.samples[shown]
            at = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
            mine = keys[at] == wanted
            found.append((slots[at[mine]], active.positions[shown[mine]], active.values[shown[mine]]))
    slot, position, value = (torch.cat(column) for column in zip(*found, strict=True))
    by = slot.argsort(stable=True)
    return {
        "top_numbers": numbers.int(),
        "top_scores": cache.top["scores"][first : last + 1, :keep],
        "map_ends": torch.bincount(slot, minlength=count * keep).cumsum(0),
        "map_positions": position[by].int(),
        "map_values": value[by],
        "histogram": histogram.view(count, len(PLACES), BINS),
        "pictures": cache.top["pictures"][first : last + 1],
        "peak": peak,
    }


@torch.no_grad()
def neighbours_of(sae: Sae, first: int, last: int, k: int) -> dict[str, torch.Tensor]:
    """The k features with the most similar decoder directions to each of `first` to `last`, both included, most similar first.

    `neighbours` int32 and `cosines` float32, each [n, k], k at most the number of other features.
    """
    mine = F.normalize(sae.W_dec[first : last + 1].float(), dim=1)
    own = torch.arange(first, last + 1, device=mine.device)[:, None]
    best = torch.empty(len(mine), 0, device=mine.device)
    who = torch.empty(len(mine), 0, dtype=torch.int64, device=mine.device)
    step = max(1, _BLOCK_BYTES // (4 * max(sae.d_in, len(mine))))
    for start in range(0, sae.d_sae, step):
        cosines = mine @ F.normalize(sae.W_dec[start : start + step].float(), dim=1).T
        features = torch.arange(start, start + cosines.shape[1], device=mine.device).expand_as(cosines)
        cosines = cosines.masked_fill(features == own, -torch.inf)
        best, who = torch.cat([best, cosines], 1), torch.cat([who, features], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        who = who.gather(1, order)
    k = min(k, sae.d_sae - 1)
    return {"neighbours": who[:, :k].int().cpu(), "cosines": best[:, :k].cpu()}


def words_of(vlm: "Vlm", sae: Sae, first: int, last: int, k: int) -> dict[str, torch.Tensor]:
    """The k words that each of `first` to `last` promotes and suppresses: as `texts`."""
    return texts("words", [json.dumps(words, ensure_ascii=False) for words in promoted_words(vlm, sae.W_dec[first : last + 1], k)])


def texts(name: str, each: list[str]) -> dict[str, torch.Tensor]:
    """Texts one behind the other in UTF-8, and where each ends: `name` and `name_ends`."""
    data = [text.encode() for text in each]
    ends = torch.tensor([len(text) for text in data], dtype=torch.int64).cumsum(0)
    return {
        name: torch.frombuffer(bytearray(b"".join(data)), dtype=torch.uint8) if any(data) else torch.empty(0, dtype=torch.uint8),
        f"{name}_ends": ends,
    }
