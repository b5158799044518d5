"""`top-images`: small copies of the pictures that some feature is most active on, so that they can be shown, explained and scored without the data set."""

import argparse
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from ..concepts.state_files import packed, picture, webp
from ..errors import InterpError
from ..vision.images import open_image
from . import work
from .cache_files import Activations, Cache, read_tensors
from .data import CHUNK
from .study import Study

NAME, HELP = "top-images", "keep small copies of each feature's top pictures"
RANDOM = 256
"""Pictures that are kept whatever is active on them, from which inactive ones are drawn."""


@dataclass(frozen=True)
class Shown:
    """A picture with one feature's activations on it."""

    number: int
    """Of the sample."""
    id: str
    score: float
    """What it was ranked by: the feature's mean or maximal activation on it; 0 where the feature is not active, or nothing was ranked."""
    picture: Image.Image
    """A small copy."""
    heat: torch.Tensor
    """The activation of the patch that shows each pixel of the copy, 0 where none does: float32 [height, width]."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("--each", type=int, default=32, metavar="N", help="pictures to keep for each feature")


def run(study: Study, args: argparse.Namespace) -> None:
    """Copy the pictures that are not copied yet."""
    cache = Cache.open(study)
    keep = cache.top["images"].shape[1]
    if not 1 <= args.each <= keep:
        raise InterpError(f"--each is {args.each}; the cache keeps {keep} pictures for each feature, so it must be from 1 to {keep}.")
    folder = study.stage(NAME, {"each": args.each})
    wanted = wanted_of(cache, args.each)
    # Small files that are never wrong: a chunk in which no picture is wanted gets an empty one.
    units = [work.Unit(number, folder / f"{number:05}.safetensors") for number in range(-(-cache.count // CHUNK))]
    read = study.data.reader()
    for unit in work.shared(units, "chunks of samples"):
        numbers = [number for number in range(unit.number * CHUNK, (unit.number + 1) * CHUNK) if number in wanted]
        samples = read(unit.number)
        copies = [webp(open_image(samples[number % CHUNK].picture)[0]) for number in numbers]
        work.write(unit.file, {"numbers": torch.tensor(numbers, dtype=torch.int64), **packed(copies)})
    if work.state().is_main_process:
        print(f"{len(wanted)} pictures of {cache.count} samples.")  # noqa: T201 - what the command is for


def wanted_of(cache: Cache, each: int) -> set[int]:
    """The samples whose pictures are kept."""
    top = cache.top["images"][:, :each]
    return {*top[top >= 0].unique().tolist(), *_at_random(cache)}


def _at_random(cache: Cache) -> list[int]:
    """The samples whose pictures are kept whatever is active on them."""
    return random.Random(0).sample(range(cache.count), min(RANDOM, cache.count))


@dataclass(frozen=True)
class TopImages:
    """The top pictures of every feature."""

    cache: Cache
    folder: Path
    each: int

    @classmethod
    def open(cls, study: Study) -> "TopImages":
        """Raises InterpError if the study has none yet."""
        folder = study.folder / NAME
        cache = Cache.open(study)
        files = [folder / f"{number:05}.safetensors" for number in range(-(-cache.count // CHUNK))]
        if not all(file.is_file() for file in files):
            raise InterpError(
                f"The study in {study.folder} has no top pictures, or not all. Run: python -m interp.study top-images {study.folder}"
            )
        return cls(cache, folder, study.settings(NAME)["each"])

    @cached_property
    def features(self) -> list[int]:
        """The features that are active on at least one picture, ascending."""
        return (self.cache.top["pictures"] > 0).nonzero().flatten().tolist()

    @cached_property
    def _copies(self) -> Mapping[int, tuple[Path, int]]:
        """Where each picture's copy lies."""
        out = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            for place, number in enumerate(read_tensors(file, "numbers")["numbers"].tolist()):
                out[number] = (file, place)
        return out

    def shown(self, feature: int, n: int = 5, skip: int = 0) -> list[Shown]:
        """The n pictures on which a feature is most active, highest first, after the first `skip`; fewer if there are not so many.

        The first ones are for explaining a feature; those behind them, held out, for scoring the explanation.
        """
        active, scores = self.cache.feature(feature), self.cache.top["scores"][feature].tolist()
        ranked = list(zip(self.numbers(feature), scores, strict=False))
        return [self._one(number, score, active) for number, score in ranked[skip : skip + n]]

    def numbers(self, feature: int) -> list[int]:
        """The samples of a feature's top pictures, highest first."""
        return [number for number in self.cache.top["images"][feature].tolist() if number >= 0][: self.each]

    def random(self, feature: int, n: int | None = None, seed: int = 0) -> list[Shown]:
        """Pictures, n of them or all, drawn with a seed from those that are kept whatever is active on them; fewer if there are not so many."""
        active, some = self.cache.feature(feature), _at_random(self.cache)
        drawn = some if n is None else random.Random(f"{seed} {feature}").sample(some, min(n, len(some)))
        return [self._one(number, 0.0, active) for number in drawn]

    def inactive(self, feature: int, n: int, seed: int = 0, among: Sequence[int] | None = None) -> list[Shown]:
        """Pictures, n of them, drawn with a seed, on which a feature is nowhere active; fewer if there are not so many.

        `among`: samples to draw from, such as the top ones of another feature; by default all whose pictures are kept.
        """
        active = self.cache.feature(feature)
        return [self._one(number, 0.0, active) for number in self.inactive_numbers(feature, n, seed, among)]

    def inactive_numbers(self, feature: int, n: int, seed: int = 0, among: Sequence[int] | None = None) -> list[int]:
        """The samples of `inactive`."""
        on = set(self.cache.feature(feature).samples.tolist())
        left = [number for number in (sorted(self._copies) if among is None else among) if number in self._copies and number not in on]
        return random.Random(f"{seed} {feature}").sample(left, min(n, len(left)))

    def picture(self, number: int) -> Image.Image:
        """The copy of a sample's picture."""
        file, place = self._copies[number]
        held = read_tensors(file, "pictures", "picture_ends")
        return Image.open(io.BytesIO(picture(held["pictures"], held["picture_ends"], place))).convert("RGB")

    def id(self, number: int) -> str:
        """A sample's id."""
        return self.cache.sample(number).id

    def _one(self, number: int, score: float, active: Activations) -> Shown:
        copy, sample = self.picture(number), self.cache.sample(number)
        here = active.where(active.samples == number)
        values = torch.zeros(len(sample.ids)).index_put((here.positions,), here.values)
        values[sample.left_out] = 0
        return Shown(number, sample.id, score, copy, painted(values, sample.grids, (sample.width, sample.height), copy.size))


def painted(
    values: torch.Tensor, grids: Sequence[tuple[torch.Tensor, torch.Tensor]], original: tuple[int, int], size: tuple[int, int]
) -> torch.Tensor:
    """Values of positions [T] painted on their patches, on a copy of the picture of this size (width, height): float32 [height, width].

    `grids`: positions [rows, cols] and boxes [rows, cols, 4] in pixels of the picture of `original` size. Where grids overlap, the highest value counts. 0 where no
    patch lies.
    """
    width, height = size
    heat = torch.zeros(height, width)
    across, down = width / original[0], height / original[1]
    for positions, boxes in grids:
        edges = (boxes * torch.tensor([across, down, across, down]) + 0.5).floor().int().reshape(-1, 4).tolist()
        for value, (left, top, right, bottom) in zip(values[positions.long()].flatten().tolist(), edges, strict=True):
            heat[top:bottom, left:right].clamp_(min=value)
    return heat
