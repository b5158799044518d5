"""What is asked, checked before anything is done for it."""

import pytest
from PIL import Image

from interp import InterpError
from interp.service.requests import SETTINGS, LensRequest, Ranking, SteerRequest, TraceRequest
from interp.vision.images import OpenedImage
from tests import tiny

PICTURE = tiny.noise(8, 8)
ASKED = {"image": PICTURE, "prompt": "Describe the image."}


def test_a_request_opens_its_picture_and_takes_whole_numbers_as_json_writes_them(tmp_path):
    PICTURE.save(tmp_path / "picture.png")
    request = LensRequest.of({**ASKED, "image": str(tmp_path / "picture.png"), "top_k": 3.0, "somebody else's": 1})
    assert isinstance(request.image, OpenedImage)
    assert isinstance(request.image.image, Image.Image)
    assert (request.top_k, request.max_new_tokens, request.layers, request.model) == (3, 32, "auto", "")
    assert isinstance(request.top_k, int)


def test_nothing_given_for_places_and_order_means_the_default():
    assert Ranking.of({"where": None, "rank_by": ""}) == Ranking() == Ranking(where="image", rank_by="mean")


def test_a_link_holds_what_can_be_set_beside_picture_and_edits():
    request = SteerRequest.of({**ASKED, "seed": 3, "words": "dog", "sweep": True})
    assert set(request.settings) == set(SETTINGS)
    assert SteerRequest.of({**request.settings, "image": PICTURE}).settings == request.settings


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (TraceRequest, {"image": None}, "No picture"),
        (TraceRequest, {"image": 5}, "picture"),
        (TraceRequest, {"prompt": 5}, "prompt is 5; it must be text"),
        (TraceRequest, {"prompt": "a \ud800"}, "prompt holds half of a character"),
        (TraceRequest, {"prompt": "x" * 10**5}, "prompt has 100000 characters; it must have at most"),
        (TraceRequest, {"model": ["emoji-llava"]}, "model is"),
        (TraceRequest, {"max_new_tokens": 257}, "max_new_tokens is 257; it must be a whole number from 1 to 256"),
        (LensRequest, {"top_k": 10**400}, r"top_k is .*\(401 digits\)"),
        (LensRequest, {"top_k": float("nan")}, "top_k is nan"),
        (LensRequest, {"top_k": True}, "top_k is True"),
        (LensRequest, {"layers": ["all"]}, "layers is"),
        (Ranking, {"top_k": 201}, "from 1 to 200"),
        (SteerRequest, {"temperature": -1}, "temperature is -1"),
        (SteerRequest, {"temperature": "hot"}, "temperature is 'hot'"),
        (SteerRequest, {"seed": 2**32}, "seed is 4294967296"),
        (SteerRequest, {"words": "\udfff"}, "words holds half of a character"),
        (SteerRequest, {"sweep": 1}, "sweep is 1"),
    ],
    ids=str,
)
def test_what_is_not_what_it_must_be_is_named(kind, changes, message):
    with pytest.raises(InterpError, match=message):
        kind.of({**ASKED, **changes})
