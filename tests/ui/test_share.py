"""Links that hold a page's state."""

import base64
import json
import zlib
from urllib.parse import parse_qs, urlsplit

import pytest

from interp import InterpError
from interp.service.requests import AttributionRequest, ConceptsLook, LensLook
from interp.ui import share
from interp.ui.controls import EXAMPLES
from tests import tiny

SETTINGS = {"prompt": "What is “this”?", "model": "m", "max_new_tokens": 8, "temperature": 0.5, "seed": 3, "words": "dog", "sweep": True}


@pytest.fixture(autouse=True)
def uploads(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))


def packed(link):
    return parse_qs(urlsplit(link).query)[share.PARAMETER][0]


def forged(value):
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(value).encode())).decode()


def test_an_example_goes_by_its_name():
    image = EXAMPLES / "one-owl.webp"
    link = share.link("http://here:1/", str(image), SETTINGS, EXAMPLES)
    assert link.startswith("http://here:1/?state=")
    assert len(link) < 400
    state = share.unpack(packed(link))
    assert state == {**SETTINGS, "picture": "example:one-owl"}
    assert share.picture(state["picture"], EXAMPLES) == str(image)
    assert share.settings(state) == SETTINGS


def test_an_upload_is_kept_by_its_digest(tmp_path):
    file = tmp_path / "mine.png"
    tiny.noise(40, 30).save(file)
    state = share.unpack(packed(share.link("http://here", str(file), SETTINGS, EXAMPLES)))
    kept = share.picture(state["picture"], EXAMPLES)
    file.unlink()
    from PIL import Image

    assert Image.open(kept).convert("RGB").tobytes() == tiny.noise(40, 30).tobytes()


def test_old_pictures_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(share, "_KEPT", 2)
    names = []
    for seed in range(3):
        file = tmp_path / f"{seed}.png"
        tiny.noise(8, 8, seed).save(file)
        names.append(share.unpack(packed(share.link("http://here", str(file), {}, EXAMPLES)))["picture"])
    with pytest.raises(InterpError, match="no longer keeps"):
        share.picture(names[0], EXAMPLES)
    assert share.picture(names[2], EXAMPLES)


@pytest.mark.parametrize(
    "name", [None, 3, "example:../secret", "example:no-such", "kept:../../etc/passwd", f"kept:{'0' * 64}", "file:/etc/passwd", ""]
)
def test_other_names_reach_no_file(name):
    with pytest.raises(InterpError, match=r"names no picture|no longer keeps"):
        share.picture(name, EXAMPLES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not packed",
        forged([1]),
        forged("x"),
        base64.urlsafe_b64encode(zlib.compress(b"{")).decode(),
        forged({"prompt": "x" * 50_000}),
        "é",
    ],
    ids=["empty", "plain", "list", "text", "broken", "huge", "letters"],
)
def test_a_damaged_link_is_named(text):
    with pytest.raises(InterpError, match="This link is damaged"):
        share.unpack(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": 3},
        {"model": None},
        {"words": []},
        {"sweep": 1},
        {"temperature": "hot"},
        {"temperature": None},
        {"seed": -1},
        {"max_new_tokens": 1e9},
    ],
    ids=str,
)
def test_settings_of_another_kind_are_refused(changes):
    with pytest.raises(InterpError, match=next(iter(changes))):
        share.settings({**SETTINGS, **changes})


def test_a_link_to_a_word_and_a_link_to_edits(tmp_path):
    state = share.word_state("Describe.", "m", 8, {"token": 3, "method": "relevancy"})
    opened = share.unpack(packed(share.link("http://here", None, state, EXAMPLES)))
    assert share.settings(opened)["max_new_tokens"] == 8
    assert share.word(opened) == {"token": 3, "method": "relevancy"}
    assert share.word({"edits": []}) is None


@pytest.mark.parametrize("word", [7, [], {"method": "magic"}, {"token": 1, "layer": -1}], ids=str)
def test_a_damaged_word_in_a_link_is_named(word):
    with pytest.raises(InterpError, match="This link is damaged"):
        share.word({"word": word})


def test_a_link_to_a_lens():
    look = LensLook("m", "token", -1, 12, None, ("logit", "token"))
    opened = share.unpack(packed(share.link("http://here", None, share.lens_state("Describe.", "m", 8, look), EXAMPLES)))
    assert share.settings(opened)["prompt"] == "Describe."
    assert share.lens(opened) == LensLook(method="token", layer=-1, row=12)
    assert share.lens({"edits": []}) is None


@pytest.mark.parametrize("lens", [7, [], {"method": "magic"}, {"layer": -2}, {"row": "x"}, {"read": ["magic"]}], ids=str)
def test_a_damaged_lens_in_a_link_is_named(lens):
    with pytest.raises(InterpError, match="This link is damaged"):
        share.lens({"lens": lens})


def test_a_link_to_an_attributed_word():
    asked = {"sae": "an-sae", "token": 3, "baseline": "cat", "top_k": 50}
    opened = share.unpack(packed(share.link("http://here", None, share.attribution_state("Describe.", "m", 8, asked), EXAMPLES)))
    assert share.settings(opened)["prompt"] == "Describe."
    assert share.carried(opened) == AttributionRequest(**asked)
    assert share.word(opened) is None
    assert share.carried({"edits": []}) is None


def test_a_link_to_a_concept():
    look = ConceptsLook("mine", 3, 7, 1.5, "image")
    opened = share.unpack(packed(share.link("http://here", None, share.concepts_state("Describe.", "m", 8, look), EXAMPLES)))
    assert share.settings(opened)["prompt"] == "Describe."
    assert share.concepts(opened) == look
    assert share.concepts({"edits": []}) is None


@pytest.mark.parametrize("concepts", [7, [], {"concept": -1}, {"value": 99}, {"where": "there"}, {"dictionary": 3}], ids=str)
def test_a_damaged_concept_in_a_link_is_named(concepts):
    with pytest.raises(InterpError, match="This link is damaged"):
        share.concepts({"concepts": concepts})


@pytest.mark.parametrize("carried", [7, [], {"sae": 3}, {"top_k": 0}, {"baseline": []}], ids=str)
def test_a_damaged_attribution_in_a_link_is_named(carried):
    with pytest.raises(InterpError, match="This link is damaged"):
        share.carried({"carried": carried})
