"""What the features of a study of scenes really stand for: the word on whose patches most of a feature's activation lies."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..study.cache_files import Cache
from . import scene_files
from .words import COLORS, WORDS

NAMED = 0.5
"""Share of a feature's activation that must lie on a word for it to stand for the word: as the shipped SAE's features are named."""
PICTURES = 10
"""On which a feature must be active to stand for anything."""
_ROWS = 100_000  # activations at once


@dataclass(frozen=True)
class Truth:
    """The word that each feature stands for."""

    words: tuple[str, ...]
    """By feature; "" where no word holds `NAMED` of its activation, or it is active on fewer than `PICTURES` pictures."""
    shares: torch.Tensor
    """Of each feature's activation on patches, how much lies on its best word: float32 [features]."""

    def of_kind(self, color: bool) -> list[int]:  # noqa: FBT001 - nouns or colours
        """The features that stand for a colour, or for a noun."""
        return [feature for feature, word in enumerate(self.words) if word and (word in COLORS) == color]


def truth_of(cache: Cache, scenes: Path) -> Truth:
    """The words of a cache's features. `scenes`: the folder that `scene_files` wrote the pictures of the study to."""
    samples = [cache.sample(number) for number in range(cache.count)]
    covered = scene_files.read(scenes, [Path(sample.id).name for sample in samples])
    positions = samples[0].grids[0][0].flatten()
    if any(not torch.equal(sample.grids[0][0].flatten(), positions) for sample in samples):
        raise ValueError("the samples have patches at different positions")
    patch = torch.full((int(positions.max()) + 1,), -1)
    patch[positions.long()] = torch.arange(len(positions))
    every = cache.splits.all()
    every = every.where(torch.isin(every.positions, positions))
    mass = torch.zeros(cache.about["features"], len(WORDS))
    for rows in torch.arange(len(every.values)).split(_ROWS):
        some = every.where(rows)
        mass.index_add_(0, some.features, some.values[:, None] * covered[some.samples, patch[some.positions]])
    shares, best = (mass / mass.sum(1, keepdim=True).clamp(min=1e-9)).max(1)
    often = cache.top["pictures"] >= PICTURES
    words = [
        WORDS[word] if share >= NAMED and enough else ""
        for word, share, enough in zip(best.tolist(), shares.tolist(), often.tolist(), strict=True)
    ]
    return Truth(tuple(words), shares)
