"""Reading a cache: the activations of a feature over all samples, of a sample over all features, and where its patches lie on its picture.

Reads what `cache` writes, and the files of multimodal-sae and delphi. Both keep `locations` (sample, position, feature) and `activations` in files
named START_END.safetensors by feature. multimodal-sae counts features from 0 in int64; delphi counts them from START, in an unsigned type.
"""

import functools
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import InterpError
from ..tracing.trace import Kind
from ..validation import index
from .data import CHUNK

if TYPE_CHECKING:
    from .study import Study

KINDS: tuple[Kind, ...] = ("image", "separator", "prompt", "answer", "special")
"""Of tokens, in files by their number here."""
INDEX, TOP, PARTS = "index.json", "top.safetensors", "parts"
_NAME = re.compile(r"(\d+)_(\d+)\.safetensors")


def boundaries(features: int, splits: int) -> list[tuple[int, int]]:
    """First and last feature of each split, cut as multimodal-sae cuts them."""
    edges = torch.linspace(0, features, min(splits, features) + 1, dtype=torch.float64).long().tolist()
    return [(start, end - 1) for start, end in itertools.pairwise(edges)]


def split_name(start: int, end: int) -> str:
    """The file of a split."""
    return f"{start}_{end}.safetensors"


@dataclass(frozen=True)
class Activations:
    """Where some features are active. Each tensor has one entry for each activation."""

    samples: torch.Tensor
    """int64"""
    positions: torch.Tensor
    """In the sequence as the model read it, BOS counted: int64."""
    features: torch.Tensor
    """int64"""
    values: torch.Tensor
    """float32"""

    def where(self, chosen: torch.Tensor) -> "Activations":
        """Those that a mask or an index chooses."""
        return Activations(self.samples[chosen], self.positions[chosen], self.features[chosen], self.values[chosen])


@dataclass(frozen=True)
class Cached:
    """A sample as it was cached."""

    number: int
    id: str
    path: str
    prompt: str
    width: int
    height: int
    ids: torch.Tensor
    """int32 [T]"""
    kinds: torch.Tensor
    """As in `KINDS`: uint8 [T]."""
    left_out: torch.Tensor
    """BOS and attention sinks: bool [T]."""
    grids: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Positions [rows, cols] and boxes [rows, cols, 4] in pixels of the picture, of each grid of patches."""


@dataclass(frozen=True)
class Splits:
    """A folder of activations split by feature, in either layout."""

    files: tuple[tuple[int, int, Path], ...]
    """First and last feature, and file; ascending."""
    offset: int = 0
    """Added to the positions in the files."""

    @classmethod
    def of(cls, folder: Path, offset: int | None = None) -> "Splits":
        """The splits in a folder. `offset`: what to add to its positions; by default what its files say, else 0. Raises InterpError if there are none."""
        found = sorted((int(name[1]), int(name[2]), file) for file in folder.glob("*.safetensors") if (name := _NAME.fullmatch(file.name)))
        if not found:
            raise InterpError(f"{folder} holds no cache: there is no file named START_END.safetensors in it.")
        if offset is None:
            with opened(found[0][2]) as held:
                offset = int((held.metadata() or {}).get("offset", 0))
        return cls(tuple(found), offset)

    def feature(self, feature: int) -> Activations:
        """Where a feature is active; nowhere if the cache does not hold it."""
        return next(self.between(feature, feature, most=sys.maxsize), _NOTHING)

    def all(self) -> Activations:
        """All activations, which may be large."""
        parts = [self._read(file, start) for start, _, file in self.files]
        return Activations(*(torch.cat([getattr(part, name) for part in parts]) for name in ("samples", "positions", "features", "values")))

    def between(self, first: int, last: int, most: int = 1 << 20) -> Iterator[Activations]:
        """The activations of features `first` to `last`, both included, ordered by feature; at most `most` at a time, if the files say where features begin."""
        for start, end, file in self.files:
            low, high = max(first, start), min(last, end)
            if low > high:
                continue
            rows = _rows(file, low - start, high - start + 1)
            if rows is None:
                found = self._read(file, start)
                yield found.where((found.features >= low) & (found.features <= high))
                continue
            for at in range(*rows, most):
                yield self._read(file, start, slice(at, min(at + most, rows[1])))

    def _read(self, file: Path, start: int, rows: slice = slice(None)) -> Activations:
        with opened(file) as held:
            if not {"locations", "activations"} <= set(held.keys()):
                raise InterpError(f"{file} is no cache: it has no locations and activations.")
            locations, values = held.get_slice("locations")[rows], held.get_slice("activations")[rows].float()
        if locations.ndim != 2 or locations.shape[1] != 3 or len(locations) != len(values):
            raise InterpError(
                f"{file} is damaged: its locations have the shape {list(locations.shape)}, its activations {list(values.shape)}."
            )
        relative = locations.dtype != torch.int64
        samples, positions, features = locations.long().unbind(1)
        return Activations(samples, positions + self.offset, features + (start if relative else 0), values)


def _rows(file: Path, first: int, end: int) -> tuple[int, int] | None:
    """The rows of a file's features `first` up to `end`, counted within the file; None if it does not say."""
    with opened(file) as held:
        if "starts" not in held.keys():  # noqa: SIM118 - it is no dict
            return None
        starts = held.get_slice("starts")[first : end + 1]
        return int(starts[0]), int(starts[-1])


@dataclass(frozen=True)
class Cache:
    """The finished cache of a study."""

    folder: Path
    about: Mapping[str, Any]
    """index.json"""
    splits: Splits

    @classmethod
    def open(cls, study: "Study") -> "Cache":
        """Raises InterpError if the study has none, or an unfinished one."""
        folder = study.folder / "cache"
        try:
            about = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            return cls(folder, about, Splits.of(folder / about["module"], about["offset"]))
        except FileNotFoundError as error:
            raise InterpError(
                f"The study in {study.folder} has no finished cache. Run: python -m interp.study cache {study.folder}"
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InterpError(f"{folder / INDEX} is damaged ({error}). Restore it, or remove {folder} and run cache again.") from error

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.about["samples"])

    def feature(self, feature: int) -> Activations:
        """Where a feature is active, BOS and sinks included."""
        return self.splits.feature(index("Feature", feature, 0, self.about["features"] - 1, f"the SAE has {self.about['features']}"))

    def dense(self, number: int) -> torch.Tensor:
        """All activations on one sample: float32 [T, features]. Reads the whole cache."""
        every = self.splits.all()
        here = every.where(every.samples == number)
        out = torch.zeros(len(self.sample(number).ids), self.about["features"])
        out[here.positions, here.features] = here.values
        return out

    def sample(self, number: int) -> Cached:
        """A sample's tokens and patches. Raises InterpError if there is no such sample."""
        number = index("Sample", number, 0, self.count - 1, f"the cache has {self.count}")
        chunk = self._chunk(number // CHUNK)
        at = number % CHUNK
        rows = slice(int(chunk.ends[at]) - int(chunk.tensors["lengths"][at]), int(chunk.ends[at]))
        about = dict(chunk.samples[at])
        layout = about.pop("layout")
        grids: list[tuple[torch.Tensor, torch.Tensor]] = []
        while f"positions.{len(grids)}.{layout}" in chunk.tensors:
            grids.append((chunk.tensors[f"positions.{len(grids)}.{layout}"], chunk.tensors[f"boxes.{len(grids)}.{layout}"]))
        ids, kinds, left_out = (chunk.tensors[name][rows] for name in ("ids", "kinds", "left_out"))
        return Cached(number=number, **about, ids=ids, kinds=kinds, left_out=left_out, grids=tuple(grids))

    def _chunk(self, number: int) -> "_Chunk":
        file = self.folder / "tokens" / f"{number:05}.safetensors"
        return _chunk(file, file.stat().st_mtime_ns)

    @functools.cached_property
    def top(self) -> Mapping[str, torch.Tensor]:
        """`scores` and `images` [features, keep], highest first, images -1 where there are fewer; `pictures`, `tokens`, `tokens_on_pictures` [features]."""
        return read_tensors(self.folder / TOP)

    def summary(self) -> str:
        """One sentence."""
        size = sum(file.stat().st_size for _, _, file in self.splits.files)
        alive = int((self.top["pictures"] > 0).sum())
        return (
            f"{self.count} samples, {self.about['entries']} activations, {size / self.count / 1000:.1f} kB a sample; "
            f"{alive} of {self.about['features']} features are active on a picture."
        )


@dataclass(frozen=True)
class _Chunk:
    samples: list[dict[str, Any]]
    tensors: dict[str, torch.Tensor]
    ends: torch.Tensor


@functools.lru_cache(maxsize=64)
def _chunk(file: Path, _changed: int) -> _Chunk:
    with opened(file) as held:
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - it is no dict
        return _Chunk(json.loads(held.metadata()["samples"]), tensors, tensors["lengths"].cumsum(0))


def read_tensors(file: Path, *names: str) -> dict[str, torch.Tensor]:
    """Some tensors of a safetensors file, or all. Raises InterpError for a file that cannot be read."""
    with opened(file) as held:
        return {name: held.get_tensor(name) for name in names or held.keys()}


def opened(file: Path) -> Any:
    """An open safetensors file, of which parts can be read. Raises InterpError for a file that cannot be read."""
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InterpError(f"{file} cannot be read ({error}).") from error


_NONE = torch.empty(0, dtype=torch.int64)
_NOTHING = Activations(_NONE, _NONE, _NONE, torch.empty(0))
