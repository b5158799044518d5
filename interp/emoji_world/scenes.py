"""Scenes: where the emoji are, what the picture looks like, and which word belongs to which patch.

Coordinates are fractions of the picture's side, so a scene can be drawn at any size.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .words import COLORS, NOUN_WORDS

NOUN_INDEX = {noun: i for i, noun in enumerate(NOUN_WORDS)}
COLOR_NAMES = tuple(COLORS)
# Smallest and largest side of an object in a scene with one, two or three of them.
_SIZES = {1: (0.40, 0.85), 2: (0.36, 0.56), 3: (0.34, 0.44)}
_MIN_STEP = 0.16  # between the centres of two objects, from left to right: "left" and "right" are never ambiguous
_REPEATED = 0.05  # share of scenes with two things of one noun
_MAX_OVERLAP = 0.88  # objects are at least this share of the sum of their half sides apart


@dataclass(frozen=True)
class Thing:
    """One emoji in a scene: centre (x, y) and side as fractions of the picture, drawing `vendor` of `noun`."""

    noun: str
    vendor: int
    x: float
    y: float
    size: float
    angle: float = 0.0  # degrees
    stretch: float = 1.0  # width over height
    shear: float = 0.0
    mirrored: bool = False
    softness: bool = False  # drawn from a blurred tile
    tint: tuple[tuple[float, ...], ...] | None = None  # 3 x 3 colour matrix


@dataclass(frozen=True)
class Scene:
    """Things from left to right on a background."""

    things: tuple[Thing, ...]
    color: str
    rgb: tuple[float, float, float]  # the background's actual colour, 0 to 1
    slope: tuple[float, float] = (0.0, 0.0)  # change of brightness from left to right, top to bottom

    @property
    def nouns(self) -> list[str]:
        """The nouns from left to right."""
        return [thing.noun for thing in self.things]


def _tint(rng: random.Random) -> tuple[tuple[float, ...], ...]:
    """A random rotation of hue with changed saturation and brightness, as a colour matrix."""
    angle, saturation, gain = rng.gauss(0, 0.35), rng.uniform(0.4, 1.3), rng.uniform(0.75, 1.2)
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    turn[1:] *= saturation
    matrix = gain * np.linalg.inv(to_yiq) @ turn @ to_yiq
    return tuple(tuple(row) for row in matrix.tolist())


def _place(rng: random.Random, count: int) -> list[tuple[float, float, float]]:
    """(x, y, size) of `count` objects that hardly overlap, from left to right."""
    low, high = _SIZES[count]
    while True:
        spots: list[tuple[float, float, float]] = []
        for _ in range(count):
            size = rng.uniform(low, high)
            reach = size * 0.42  # up to 8 % of a side may leave the picture
            spots.append((rng.uniform(reach, 1 - reach), rng.uniform(reach, 1 - reach), size))
        spots.sort()
        apart = all(
            abs(a[0] - b[0]) >= _MIN_STEP and max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= _MAX_OVERLAP * (a[2] + b[2]) / 2
            for i, a in enumerate(spots)
            for b in spots[i + 1 :]
        )
        if apart:
            return spots


def _crowd(rng: random.Random) -> list[tuple[float, float, float]]:
    """(x, y, size) of four or six objects that fill the picture: a jittered 2 x 2, 2 x 3 or 3 x 2 board."""
    columns, rows = rng.choice(((2, 2), (2, 3), (3, 2)))
    low, high = (0.38, 0.56) if columns * rows == 4 else (0.34, 0.46)
    spots = []
    for row in range(rows):
        for column in range(columns):
            x = (column + 0.5) / columns + rng.uniform(-0.09, 0.09)
            y = (row + 0.5) / rows + rng.uniform(-0.09, 0.09)
            spots.append((x, y, rng.uniform(low, high)))
    return sorted(spots)


def sample_scene(
    rng: random.Random, vendors: Sequence[int], *, augment: float = 1.0, crowded: bool = False, nouns: Sequence[str] = NOUN_WORDS
) -> Scene:
    """A random scene of one to three things, or of four to six if `crowded` (no questions are asked about these; they train the tower faster).

    `augment` scales every distortion of the drawings (0: as the vendor drew them). `nouns`: what there is to draw.
    """
    spots = _crowd(rng) if crowded else _place(rng, rng.choices((1, 2, 3), weights=(0.3, 0.35, 0.35))[0])
    count = len(spots)
    chosen = rng.sample(nouns, count)
    if count > 1 and rng.random() < _REPEATED:
        chosen[0] = chosen[-1]
        rng.shuffle(chosen)
    things = tuple(
        Thing(
            noun=noun,
            vendor=rng.choice(vendors),
            x=x,
            y=y,
            size=size,
            angle=rng.gauss(0, 8) * augment,
            stretch=math.exp(rng.gauss(0, 0.08) * augment),
            shear=rng.gauss(0, 0.08) * augment,
            mirrored=augment > 0 and rng.random() < 0.3,
            softness=rng.random() < 0.25 * augment,
            tint=_tint(rng) if rng.random() < 0.4 * augment else None,
        )
        for noun, (x, y, size) in zip(chosen, spots, strict=True)
    )
    color = rng.choice(COLOR_NAMES)
    rgb = [min(max((value + rng.gauss(0, 7)) / 255, 0.0), 1.0) for value in COLORS[color]]
    return Scene(things, color, (rgb[0], rgb[1], rgb[2]), (rng.gauss(0, 0.02), rng.gauss(0, 0.02)))


def _warp(sprites: torch.Tensor, scenes: Sequence[Scene], side: int, index: dict[str, int]) -> torch.Tensor:
    """Every thing on its own transparent canvas, empty canvases after the last: [B, things, 4, side, side], colour premultiplied."""
    batch, most = len(scenes), max(len(scene.things) for scene in scenes)
    chosen = torch.zeros(batch, most, 4, *sprites.shape[-2:])
    theta = torch.zeros(batch, most, 2, 3)
    theta[:, :, :, 2] = 10.0  # far outside: draws nothing
    for b, scene in enumerate(scenes):
        for k, thing in enumerate(scene.things):
            # Minification beyond about two needs a low-pass first: the blurred tiles serve small and "soft" things.
            small = thing.size * side < sprites.shape[-1] / 2
            tile = sprites[thing.vendor, index[thing.noun], int(thing.softness or small)]
            if thing.tint is not None:
                rgb = torch.einsum("ij,jhw->ihw", torch.tensor(thing.tint), tile[:3])
                tile = torch.cat([torch.minimum(rgb.clamp(min=0), tile[3:]), tile[3:]])
            chosen[b, k] = tile
            # Rows of theta map a canvas point (-1 .. 1) back to a point of the tile.
            c, s = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
            turn = np.array([[c, s], [-s, c]]) @ np.array([[1, thing.shear], [0, 1]])
            scale = np.diag([1 / (thing.size * math.sqrt(thing.stretch)), math.sqrt(thing.stretch) / thing.size])
            matrix = np.diag([-1.0 if thing.mirrored else 1.0, 1.0]) @ scale @ turn
            centre = np.array([2 * thing.x - 1, 2 * thing.y - 1])
            theta[b, k, :, :2] = torch.from_numpy(matrix)
            theta[b, k, :, 2] = torch.from_numpy(-matrix @ centre)
    grid = F.affine_grid(theta.flatten(0, 1), [batch * most, 4, side, side], align_corners=False)
    return F.grid_sample(chosen.flatten(0, 1), grid, align_corners=False).unflatten(0, (batch, most))


def draw(
    scenes: Sequence[Scene], sprites: torch.Tensor, side: int = 96, cells: int = 8, nouns: Sequence[str] = NOUN_WORDS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [B, 3, side, side] in [0, 1], and how much of each patch every word covers [B, cells * cells, words].

    The words are `nouns`, then the colours. `sprites` is what `sprites.load_sprites` returns for these nouns. The shares of a patch sum to 1; the background colour has the rest.
    """
    index = {noun: i for i, noun in enumerate(nouns)}
    canvases = _warp(sprites, scenes, side, index)
    ramp = torch.linspace(-1, 1, side)
    rgb = torch.tensor([scene.rgb for scene in scenes])[:, :, None, None]
    slopes = torch.tensor([scene.slope for scene in scenes])
    shade = slopes[:, 0, None, None] * ramp + slopes[:, 1, None, None] * ramp[:, None]
    picture = (rgb + shade[:, None]).clamp(0, 1)
    seen = torch.ones(len(scenes), side, side)
    shares = torch.zeros(len(scenes), cells * cells, len(nouns) + len(COLOR_NAMES))
    for k in reversed(range(canvases.shape[1])):  # the rightmost thing lies on top
        visible = F.avg_pool2d(canvases[:, k, 3] * seen, side // cells).flatten(1)
        seen = seen * (1 - canvases[:, k, 3])
        for b, scene in enumerate(scenes):
            if k < len(scene.things):
                shares[b, :, index[scene.things[k].noun]] += visible[b]
    for k in range(canvases.shape[1]):
        picture = canvases[:, k, :3] + picture * (1 - canvases[:, k, 3:])
    backgrounds = torch.tensor([len(nouns) + COLOR_NAMES.index(scene.color) for scene in scenes])
    shares[torch.arange(len(scenes)), :, backgrounds] += 1 - shares.sum(-1)
    return picture.clamp(0, 1), shares


def draw_picture(scene: Scene, sprites: torch.Tensor, side: int = 384, nouns: Sequence[str] = NOUN_WORDS) -> Image.Image:
    """One scene as a PIL picture."""
    pixels = draw([scene], sprites, side, nouns=nouns)[0][0]
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy())
