"""Plots of a report as numbers: what is drawn where, in a box of `WIDTH` by `HEIGHT`. The page's template draws them."""

import base64
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .top_images import Shown

WIDTH, HEIGHT, BOTTOM = 360, 140, 22
_TOP, _STEP = 14, 10
_OPACITY = 170
_SIDE = 168  # pixels of a picture in a report
# Viridis, as in the views: bright means more, also in greyscale.
_STOPS = np.array(
    [(68, 1, 84), (70, 50, 126), (54, 92, 141), (39, 127, 142), (31, 161, 135), (74, 193, 109), (160, 218, 57), (253, 231, 37)], dtype=float
)


@dataclass(frozen=True)
class Bar:
    """A bar, and what is said of it where a reader points."""

    x: float
    y: float
    width: float
    height: float
    said: str


@dataclass(frozen=True)
class Tick:
    """A place on the horizontal axis, or a line across the plot."""

    x: float
    text: str
    y: float = 0.0
    """Where a line begins: near ones at different heights, so that their numbers do not cover each other."""


@dataclass(frozen=True)
class Chart:
    """A histogram."""

    title: str
    about: str
    """What it shows and how high the highest bar is, in sentences, for readers who do not see it too."""
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...] = ()


def histogram(
    title: str, about: str, counts: Sequence[int], said: Sequence[str], ticks: Mapping[float, str], marks: Mapping[str, float] | None = None
) -> Chart:
    """A chart of counts. `said`: what each bar stands for; `ticks`: texts by their place from 0 to 1 along the axis; `marks`: such places by their texts."""
    lines = _lines(marks or {})
    low, high = max((line.y for line in lines), default=_TOP), HEIGHT - BOTTOM
    most, width = max(counts, default=0), WIDTH / max(1, len(counts))
    bars = [
        Bar(k * width, high - (high - low) * count / most, width - 1, (high - low) * count / most, f"{what}: {count:,}")
        for k, (count, what) in enumerate(zip(counts, said, strict=True))
        if count
    ]
    told = f"{about} The highest bar stands for {most:,}."
    return Chart(title, told, tuple(bars), tuple(Tick(WIDTH * x, text) for x, text in ticks.items()), tuple(lines))


def _lines(marks: Mapping[str, float]) -> list[Tick]:
    """Lines at the marks, in their order."""
    placed: dict[str, Tick] = {}
    for name, at in sorted(marks.items(), key=lambda mark: mark[1]):
        x = WIDTH * at
        before = next(reversed(placed.values()), None)
        y = before.y + _STEP if before and x - before.x < 2 * _STEP else _TOP
        placed[name] = Tick(x, name, y)
    return [placed[name] for name in marks]


def shares(title: str, about: str, values: Iterable[float], smallest: float) -> Chart:
    """How many values lie where between `smallest` and 1, on a logarithmic axis; lower ones are left out."""
    decades = max(1, math.ceil(-math.log10(smallest)))
    bins = 5 * decades
    edges = 10.0 ** (np.arange(bins + 1) / 5 - decades)
    counts, _ = np.histogram([value for value in values if value > 0], np.concatenate([[0], edges[1:-1], [1.0000001]]))
    said = [f"{percent(low)} to {percent(high)}" for low, high in itertools.pairwise(edges)]
    return histogram(title, about, counts.tolist(), said, {k / decades: percent(10.0 ** (k - decades)) for k in range(decades + 1)})


def scores(title: str, about: str, values: Sequence[float], marks: Mapping[str, float]) -> Chart:
    """How many values lie where, from 0 to 1, or as far as they go; with marks at some values."""
    low, high = min(0.0, *values, *marks.values()), max(*values, *marks.values(), 0.0)
    high = 1.0 if low >= 0 and high <= 1 else max(high, low + 1e-9)
    edges = np.linspace(low, high, 21)
    counts, _ = np.histogram(values, edges)
    said = [f"{number(a)} to {number(b)}" for a, b in itertools.pairwise(edges)]
    ticks = {place: number(low + place * (high - low)) for place in (0.0, 0.5, 1.0)}
    return histogram(title, about, counts.tolist(), said, ticks, {name: (value - low) / (high - low) for name, value in marks.items()})


def percent(share: float) -> str:
    """A share as a reader writes it."""
    return f"{100 * share:.3g} %"


def number(value: float | None) -> str:
    """A figure with what digits it deserves; a dash where undefined."""
    return "\u2013" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


@dataclass(frozen=True)
class Picture:
    """A picture, and a feature's heat on it, clear elsewhere: data URLs of the same size."""

    src: str
    heat: str
    width: int
    height: int
    about: str


def picture(shown: Shown, most: float) -> Picture:
    """The heat goes by colour from 0 to `most`."""
    small = shown.picture.copy()
    small.thumbnail((_SIDE, _SIDE))
    heat = Image.fromarray(shown.heat.numpy()).resize(small.size, Image.Resampling.NEAREST)
    share = np.asarray(heat, dtype=float) / max(most, 1e-12)
    colour = [np.interp(share * (len(_STOPS) - 1), np.arange(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)]
    alpha = np.where(share > 0, _OPACITY, 0)
    painted = Image.fromarray(np.stack([*colour, alpha], -1).round().astype(np.uint8))
    return Picture(_url(small, "WEBP", quality=80), _url(painted, "PNG", optimize=True), *small.size, f"{shown.id}, {number(shown.score)}")


def _url(image: Image.Image, kind: str, **how: object) -> str:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
