"""Pictures for the explaining model: what is bright, and what they become on the way."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from interp.errors import InterpError
from interp.study.dimmed import DARKEST, data_url, dimmed


def colored(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_brightness_follows_the_activation_pixel_by_pixel():
    picture = colored(3, 5)
    heat = torch.arange(15.0).reshape(3, 5)
    (seen,) = dimmed([(picture, heat)])
    pixels, out = np.asarray(picture), np.asarray(seen)
    for row in range(3):
        for column in range(5):
            brightness = DARKEST + (1 - DARKEST) * float(heat[row, column]) / 14
            assert np.abs(out[row, column] - pixels[row, column] * brightness).max() <= 0.51


def test_what_is_not_active_is_dark_and_not_black_and_what_is_most_active_is_untouched():
    picture = Image.new("RGB", (4, 2), (200, 100, 40))
    heat = np.zeros((2, 4), np.float32)
    heat[:, 3] = 2.5
    out = np.asarray(dimmed([(picture, heat)])[0])
    assert out[0, 0].tolist() == [50, 25, 10]
    assert out[1, 3].tolist() == [200, 100, 40]


def test_a_picture_where_the_feature_is_weaker_is_darker():
    picture = Image.new("RGB", (1, 1), (200, 200, 200))
    strong, weak = dimmed([(picture, [[8.0]]), (picture, [[2.0]])])
    assert strong.getpixel((0, 0)) == (200, 200, 200)
    assert weak.getpixel((0, 0)) == (round(200 * (DARKEST + (1 - DARKEST) / 4)),) * 3


def test_negative_activations_count_as_none():
    picture = Image.new("RGB", (2, 1), (200, 200, 200))
    assert dimmed([(picture, [[-3.0, 1.0]])])[0].getpixel((0, 0)) == (50, 50, 50)


@pytest.mark.parametrize(
    ("heat", "why"),
    [
        (np.zeros((3, 2)), "shape .3, 2. does not fit its picture of 2 by 3"),  # transposed
        (np.zeros((2, 3)), "active in none"),
        (np.full((2, 3), np.nan), "not finite"),
        (np.full((2, 3), np.inf), "not finite"),
    ],
)
def test_a_heat_that_cannot_be_shown_is_refused(heat, why):
    with pytest.raises(InterpError, match=why):
        dimmed([(colored(2, 3), heat)])


def test_no_pictures_are_refused():
    with pytest.raises(InterpError, match="active in none"):
        dimmed([])


def test_a_data_url_holds_the_same_pixels():
    picture = colored(7, 11)
    head, _, data = data_url(picture).partition(",")
    assert head == "data:image/png;base64"
    back = Image.open(io.BytesIO(base64.b64decode(data)))
    assert back.format == "PNG"
    assert np.array_equal(np.asarray(back), np.asarray(picture))
