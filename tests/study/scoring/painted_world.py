"""A world of painted squares whose features are known: what a study would hold of it, without a model."""

import random
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageDraw

from interp.study.scoring.cases import Case
from interp.study.top_images import Shown

SIZE = (64, 40)  # width, height: not square
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "yellow": (230, 220, 30)}
"""By feature 0, 1, …: each is active on the square of its colour."""
NAMES = list(COLOURS)


@dataclass
class World:
    """Pictures with one square each, of all colours in turn; a stand-in for `TopImages`."""

    count: int = 32
    places: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self):
        rng = random.Random(0)
        self.places = {number: (rng.randrange(0, 48), rng.randrange(0, 24)) for number in range(self.count)}

    @property
    def features(self):
        return [0, 1, 2, 3]

    def numbers(self, feature):
        return [number for number in range(self.count) if number % 4 == feature]

    def shown(self, feature, n=5, skip=0):
        return [self.one(number, feature) for number in self.numbers(feature)][skip : skip + n]

    def inactive_numbers(self, feature, n, seed=0, among=None):
        left = [number for number in (range(self.count) if among is None else among) if number % 4 != feature]
        return random.Random(f"{seed} {feature}").sample(left, min(n, len(left)))

    def picture(self, number):
        return self.one(number, 0).picture

    def id(self, number):
        return f"{number:03}.png"

    def random(self, feature, n=None, seed=0):
        some = list(range(self.count)) if n is None else random.Random(f"{seed} {feature}").sample(range(self.count), n)
        return [self.one(number, feature) for number in some]

    def one(self, number, feature):
        picture, (x, y) = Image.new("RGB", SIZE, (128, 128, 128)), self.places[number]
        ImageDraw.Draw(picture).rectangle((x, y, x + 15, y + 15), fill=COLOURS[NAMES[number % 4]])
        heat = torch.zeros(SIZE[1], SIZE[0])
        if number % 4 == feature:
            heat[y : y + 16, x : x + 16] = 2.5
        return Shown(number, self.id(number), float(heat.sum()), picture, heat)


def segment(picture, _, label):
    """The square of the colour that the label names."""
    if label not in COLOURS:
        return None
    mask = (np.asarray(picture, int) == COLOURS[label]).all(2)
    return mask if mask.any() else None


CASES = [Case(feature, f"model.layers.5_feature{feature}", name, f"{name} things", "color") for feature, name in enumerate(NAMES)]


class ColourClip:
    """Stands in for `Clip`: a picture is the colour of its square, a text the colour that it names, and both have something in common."""

    def pictures(self, pictures):
        found = [np.asarray(each, np.float32).reshape(-1, 3) - 128 for each in pictures]
        return self.unit([each.sum(0) / 256 for each in found])

    def texts(self, texts):
        return self.unit([next((np.subtract(COLOURS[name], 128) for name in COLOURS if name in text), (0, 0, 0)) for text in texts])

    @staticmethod
    def unit(colours):
        rows = torch.from_numpy(np.stack(colours)).float()
        return torch.nn.functional.normalize(torch.cat([rows, torch.full((len(rows), 1), 60.0)], dim=1), dim=1)
