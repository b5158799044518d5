"""What the index of a study knows of one feature."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from PIL import Image

from .top_images import painted


@dataclass(frozen=True, eq=False)
class TopPicture:
    """A picture that a feature is active on."""

    number: int
    """Of the sample."""
    id: str
    score: float
    """What it was ranked by: the feature's mean or maximal activation over its tokens."""
    webp: bytes
    """A small copy, as a WebP file."""
    size: tuple[int, int]
    """Width and height of the original."""
    boxes: torch.Tensor
    """The patches that the feature is active on, in pixels of the original: float32 [patches, 4]."""
    values: torch.Tensor
    """Its activation on each: float32 [patches]."""

    @property
    def picture(self) -> Image.Image:
        """The small copy, opened."""
        return Image.open(BytesIO(self.webp)).convert("RGB")

    @property
    def heat(self) -> torch.Tensor:
        """The activation of the patch that shows each pixel of the copy, 0 where none does: float32 [height, width]."""
        at = torch.arange(len(self.values)).reshape(1, -1)
        return painted(self.values, [(at, self.boxes.reshape(1, -1, 4))], self.size, self.picture.size)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the copy as a data URL, each active patch as left, top, right, bottom and activation."""
        return {
            "number": self.number,
            "id": self.id,
            "score": self.score,
            "picture": f"data:image/webp;base64,{base64.b64encode(self.webp).decode('ascii')}",
            "width": self.size[0],
            "height": self.size[1],
            "active": torch.cat([self.boxes, self.values[:, None]], 1).tolist(),
        }


@dataclass(frozen=True)
class Neighbour:
    """A feature with a similar decoder direction."""

    feature: int
    cosine: float
    label: str
    """"" for none."""


@dataclass(frozen=True)
class Histogram:
    """How often activations of each size occur, BOS and attention sinks left out."""

    edges: tuple[float, ...]
    """Of the bins, ascending by factors of the square root of 2; only bins between the lowest and the highest activation. Empty if there is none."""
    on_pictures: tuple[int, ...]
    """Image tokens in each bin."""
    on_text: tuple[int, ...]
    """Other tokens."""


@dataclass(frozen=True, eq=False)
class IndexedFeature:
    """All that a study knows of one feature."""

    feature: int
    label: str
    """"" for none."""
    source: str
    """Where the label comes from."""
    explanation: str
    """The sentence that a model wrote of it, "" for none."""
    category: str
    """What sort of thing the label names, "" if unknown."""
    scores: Mapping[str, Mapping[str, float | None]]
    """By figure: "score", and the controls beside it by their names; None where undefined."""
    undefined: Mapping[str, str]
    """By measure, why there is no score."""
    pictures: int
    """That it is active on."""
    tokens: int
    """Image tokens that it is active on."""
    peak: float
    """Its highest activation on a picture."""
    histogram: Histogram
    neighbours: tuple[Neighbour, ...]
    """The most similar first."""
    promotes: tuple[str, ...]
    """Words that its decoder direction makes likelier, the most first."""
    suppresses: tuple[str, ...]
    top: tuple[TopPicture, ...]
    """The pictures that it is most active on, the highest first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        plain = ("feature", "label", "source", "explanation", "category", "pictures", "tokens", "peak")
        return {
            **{name: getattr(self, name) for name in plain},
            "scores": {figure: dict(values) for figure, values in self.scores.items()},
            "undefined": dict(self.undefined),
            "histogram": {name: list(values) for name, values in vars(self.histogram).items()},
            "neighbours": [dict(vars(each)) for each in self.neighbours],
            "promotes": list(self.promotes),
            "suppresses": list(self.suppresses),
            "top": [each.to_dict() for each in self.top],
        }
