"""Studies for the page and the API: what an index holds in the view's form, the right SAE by its weights, and what is missing in words."""

import base64
import dataclasses

import numpy as np
import pytest

import interp
from interp import InterpError
from interp.service.service import Service
from interp.service.study_service import ANY, StudyService
from interp.study.study import about_sae
from tests.study.made_index import BARE, DEAD, DOG, EVIL, HOSTILE, write_index


@pytest.fixture(scope="module")
def sae():
    return interp.load_sae("emoji-llava")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, sae):
    """An index of the SAE that ships, and one of another."""
    place = tmp_path_factory.mktemp("indexes")
    mine = write_index(place / "mine", about_sae(sae)["weights"], "mine", sae.d_sae)
    return str(mine), str(write_index(place / "other", name="other"))


@pytest.fixture(scope="module")
def studying(folders):
    return StudyService(Service(studies=folders))


def floats(text, *shape):
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape).tolist()


def test_opens_with_the_first_feature_of_the_first_study(studying):
    made = studying.payload()
    assert (made["studies"], made["study"]["name"], made["feature"]["feature"]) == (["mine", "other"], "mine", DOG)
    assert (made["study"]["model"], made["study"]["alive"], made["study"]["samples"]) == ("emoji-llava", 3, 40)
    assert studying.payload("other", BARE)["feature"]["feature"] == BARE


def test_a_feature_in_the_form_of_the_view(studying):
    dog = studying.study_feature("mine", DOG)["feature"]
    assert dog["scores"] == [{"name": "IoU", "value": 0.8, "controls": [{"name": "random masks", "value": 0.1}]}]
    assert (dog["promotes"], dog["suppresses"]) == (["dog", "puppy"], ["cat", "'\\n'"])
    first, second, _ = dog["top"]
    assert floats(first["boxes"], 2, 4) == [[0, 0, 32, 32], [32, 0, 64, 32]]
    assert floats(first["values"], 2) == [4, 2]
    assert (second["picture"]["width"], second["picture"]["height"]) == (96, 48)
    assert [each["feature"] for each in dog["neighbours"]] == [1, 2]
    evil = studying.study_feature("mine", EVIL)["feature"]
    assert evil["scores"] == [{"name": HOSTILE, "value": None, "controls": [{"name": HOSTILE, "value": 0.5}]}]
    assert evil["undefined"] == [f"{HOSTILE}: {HOSTILE}"]


def test_any_feature_is_one_that_is_active(studying):
    assert {studying.study_feature("mine", ANY)["feature"]["feature"] for _ in range(40)} == {DOG, BARE, EVIL}


def test_search(studying):
    found = studying.find_in_study("mine", "dog")
    assert found == {
        "features": [{"feature": DOG, "label": "dog"}, {"feature": DEAD, "label": "hotdog stand"}],
        "note": "2 of 3 labels match.",
    }
    with pytest.raises(InterpError, match="1 to 80 characters"):
        studying.find_in_study("mine", " ")


def test_a_study_belongs_to_an_sae_by_its_weights_whatever_its_name(studying, sae):
    studies = studying.service.studies
    assert studies.of(sae) == "mine"
    assert studies.of(dataclasses.replace(sae, name="another name")) == "mine"
    changed = sae.W_dec.clone()
    changed[0] += 1
    assert studies.of(dataclasses.replace(sae, W_dec=changed)) is None
    assert Service().studies.of(sae) is None


def test_a_feature_is_handed_over_under_the_name_that_the_page_knows(studying):
    handed = studying.hand_over("mine", DOG)
    assert handed == {"sae": "emoji-llava-sae", "layer": 3, "feature": DOG, "label": "dog", "max": 4.0}
    with pytest.raises(InterpError, match=r"is of emoji-llava-sae .* none of whose SAEs it is"):
        studying.hand_over("other", DOG)
    with pytest.raises(InterpError, match="Feature 9999 does not exist"):
        studying.hand_over("mine", 9999)


def test_says_what_is_wrong(studying, folders, tmp_path):
    with pytest.raises(InterpError, match=r"No study is open here.*--study FOLDER"):
        StudyService(Service()).payload()
    with pytest.raises(InterpError, match="study is 'third'; it must be one of mine, other, or empty for the first"):
        studying.payload("third")
    for feature in (-1, 2048, "dog", 0.5):
        with pytest.raises(InterpError, match="does not exist: the study mine has features 0 to 2047"):
            studying.feature(feature)
    with pytest.raises(InterpError, match="Two studies have the name 'mine'"):
        Service(studies=[folders[0], folders[0]])
    with pytest.raises(InterpError, match="holds no index of features"):
        Service(studies=[str(tmp_path)])
