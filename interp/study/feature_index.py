"""Looking up a feature in the index of a study: top pictures with maps, labels and scores, histogram, neighbours, words.

Only the feature asked for is read from the disk. Neither the model nor the data set is needed.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import InterpError
from ..saes.labels.labels import Label, Labels
from ..validation import file_path, index, shown, whole_number
from .cache_files import opened, read_tensors
from .data import CHUNK
from .index_block import EDGES
from .indexed import Histogram, IndexedFeature, Neighbour, TopPicture

SCHEMA = "llava-microscope/feature-index/1"
INDEX, SAID = "index.json", "said.safetensors"
BLOCK = 512
"""Features in a file."""


def block_file(folder: Path, number: int) -> Path:
    """The file of a block of features."""
    return folder / "features" / f"{number:05}.safetensors"


def pictures_file(folder: Path, number: int) -> Path:
    """The file of the pictures among a chunk of samples."""
    return folder / "pictures" / f"{number:05}.safetensors"


@dataclass(frozen=True)
class FeatureIndex:
    """The index of a study, as `python -m interp.study serve-index` makes it."""

    folder: Path
    about: Mapping[str, Any]
    """What it is of: "name", "model", "sae", "features", "alive" (active on a picture), "samples", "pool", "prompt", and a "first" feature to look at."""

    @classmethod
    def open(cls, folder: object) -> "FeatureIndex":
        """The index in the folder of a study, or a folder that only holds the index. Raises InterpError if there is none, or it is damaged."""
        place = file_path("folder", folder)
        try:
            place = place if (place / INDEX).is_file() else place / "index"
            about = json.loads((place / INDEX).read_text(encoding="utf-8"))
            if about["schema"] != SCHEMA:
                raise InterpError(f"{place / INDEX} holds {shown(about['schema'])}, and this version reads {SCHEMA!r}.")
            whole_number("its features", about["features"], 1)
            _ = (
                about["name"],
                about["model"]["name"],
                about["sae"]["weights"],
                about["samples"],
                about["pictures"],
                about["pool"],
                about["first"],
            )
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InterpError(f"{folder} holds no index of features. Run: python -m interp.study serve-index {folder}") from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InterpError(f"{place / INDEX} is damaged ({error}). Run serve-index again.") from error
        return cls(place, about)

    @property
    def name(self) -> str:
        """The study's folder, without those above it."""
        return str(self.about["name"])

    def summary(self) -> str:
        """One sentence."""
        return (
            f"{self.about['alive']} of {self.about['features']} features are active on some of {self.about['samples']} pictures; "
            f"{len(self.labels.names)} have a label."
        )

    def check(self, feature: object) -> int:
        """`feature` as an int. Raises InterpError if there is no such feature."""
        count = self.about["features"]
        return index("Feature", feature, 0, count - 1, f"the study {self.name} has features 0 to {count - 1}")

    def feature(self, feature: int) -> IndexedFeature:
        """Look up a feature. Raises InterpError if there is no such feature, and for files that are missing or damaged."""
        number = self.check(feature)
        try:
            return self._read(number)
        except (LookupError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise InterpError(f"The index in {self.folder} is damaged ({error}). Run serve-index again.") from error

    def search(self, text: str, limit: int = 50) -> list[tuple[int, Label]]:
        """Features whose labels contain a text, ignoring case: labels that are it first, then as whole words, at the start of a word, and anywhere.

        Of those whose label is the text, the one with the highest activation comes first.
        """
        names, limit = self.labels.names, whole_number("limit", limit, 1)
        found = self.labels.search(text, max(1, len(names)))
        wanted = " ".join(text.casefold().split())

        def rank(feature: int) -> float:
            return -float(self._peaks[feature]) if names[feature].text.casefold() == wanted else 1  # no activation is negative

        return [(feature, names[feature]) for feature in sorted(found, key=rank)[:limit]]

    @functools.cached_property
    def labels(self) -> Labels:
        """All labels, read when first asked for."""
        held = read_tensors(self.folder / SAID)
        ends = held["said_ends"].tolist()
        data, names = held["said"].numpy().tobytes(), {}
        for feature, start, end in zip(held["features"].tolist(), [0, *ends], ends, strict=False):
            said = json.loads(data[start:end])
            if said["label"]:
                names[feature] = Label(said["label"], said["source"])
        return Labels(names, f"Labels of the study {self.name}")

    @functools.cached_property
    def alive(self) -> tuple[int, ...]:
        """The features that are active on a picture, ascending, read when first asked for."""
        return tuple(self._of_all("pictures").nonzero().flatten().tolist())

    @functools.cached_property
    def _peaks(self) -> torch.Tensor:
        return self._of_all("peak")

    def _of_all(self, name: str) -> torch.Tensor:
        """What the blocks hold by this name, of all features."""
        blocks = (block_file(self.folder, number) for number in range(-(-self.about["features"] // BLOCK)))
        return torch.cat([read_tensors(file, name)[name] for file in blocks])

    def _read(self, feature: int) -> IndexedFeature:
        block, at = divmod(feature, BLOCK)
        with opened(block_file(self.folder, block)) as held:
            one = {name: held.get_slice(name)[at : at + 1][0] for name in ("histogram", "pictures", "peak")}
            names = set(held.keys())
            near = [held.get_slice(name)[at : at + 1][0].tolist() if name in names else [] for name in ("neighbours", "cosines")]
            words = json.loads(_text(held, "words", at)) if "words" in names else [[], []]
            top = self._top(held, at)
        said = self._said(feature)
        return IndexedFeature(
            feature=feature,
            **said,
            pictures=int(one["pictures"]),
            tokens=int(one["histogram"][0].sum()),
            peak=float(one["peak"]),
            histogram=_histogram(one["histogram"]),
            neighbours=tuple(Neighbour(other, cosine, self._said(other)["label"]) for other, cosine in zip(*near, strict=True)),
            promotes=tuple(words[0]),
            suppresses=tuple(words[1]),
            top=tuple(top),
        )

    def _top(self, held: Any, at: int) -> list[TopPicture]:
        keep = self.about["pictures"]
        numbers, scores = (held.get_slice(name)[at : at + 1][0].tolist() for name in ("top_numbers", "top_scores"))
        before = max(0, at * keep - 1)
        ends = held.get_slice("map_ends")[before : (at + 1) * keep].tolist()
        ends = ends if at else [0, *ends]
        positions, values = (held.get_slice(name)[ends[0] : ends[-1]] for name in ("map_positions", "map_values"))
        out = []
        for rank, (number, score) in enumerate(zip(numbers, scores, strict=True)):
            mine = slice(ends[rank] - ends[0], ends[rank + 1] - ends[0])
            if number >= 0:
                out.append(self._picture(number, score, positions[mine], values[mine]))
        return out

    def _picture(self, number: int, score: float, positions: torch.Tensor, values: torch.Tensor) -> TopPicture:
        with opened(pictures_file(self.folder, number // CHUNK)) as held:
            numbers = held.get_tensor("numbers").tolist()
            at = numbers.index(number)
            ids = json.loads(held.metadata()["ids"])
            width, height = held.get_slice("sizes")[at : at + 1][0].tolist()
            layout = int(held.get_slice("layout")[at : at + 1][0])
            places, boxes = held.get_tensor(f"positions.{layout}"), held.get_tensor(f"boxes.{layout}")
            webp = _bytes(held, "pictures", "picture_ends", at)
        where, order = places.sort()
        found = torch.searchsorted(where, positions).clamp_(max=max(0, len(where) - 1))
        there = where[found] == positions if len(where) else torch.zeros(len(positions), dtype=torch.bool)  # image tokens without a patch
        return TopPicture(number, ids[at], score, webp, (width, height), boxes[order[found[there]]], values[there])

    def _said(self, feature: int) -> dict[str, Any]:
        """What is said of a feature, without its scores unless there are some."""
        with opened(self.folder / SAID) as held:
            features = held.get_tensor("features")
            at = int(torch.searchsorted(features, feature))
            if at == len(features) or features[at] != feature:
                return {"label": "", "source": "", "explanation": "", "category": "", "scores": {}, "undefined": {}}
            return json.loads(_text(held, "said", at))


def _text(held: Any, name: str, at: int) -> str:
    return _bytes(held, name, f"{name}_ends", at).decode()


def _bytes(held: Any, name: str, ends: str, at: int) -> bytes:
    """One of the files or texts that lie one behind the other."""
    start, end = held.get_slice(ends)[max(0, at - 1) : at + 1].tolist() if at else [0, int(held.get_slice(ends)[0:1][0])]
    return held.get_slice(name)[start:end].numpy().tobytes()


def _histogram(counts: torch.Tensor) -> Histogram:
    """The bins from the first to the last that is not empty, of counts [places, bins]."""
    used = counts.sum(0).nonzero().flatten().tolist()
    if not used:
        return Histogram((), (), ())
    first, last = used[0], used[-1] + 1
    pictures, text = counts[:, first:last].tolist()
    return Histogram(tuple(EDGES[first : last + 1].tolist()), tuple(pictures), tuple(text))
