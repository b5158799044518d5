"""Looking features up in an index whose files were written by hand."""

import pytest

from interp.saes.labels.labels import Label, Labels
from interp.study.feature_index import FeatureIndex
from tests.study.made_index import BARE, DEAD, DOG, EVIL, HOSTILE, write_index


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return FeatureIndex.open(write_index(tmp_path_factory.mktemp("made")))


def test_a_feature_with_everything(held):
    dog = held.feature(DOG)
    assert (dog.label, dog.source, dog.explanation, dog.category) == ("dog", "by hand", "The heads of dogs.", "object")
    assert dog.scores == {"iou": {"score": 0.8, "random masks": 0.1}}
    assert (dog.pictures, dog.tokens, dog.peak) == (3, 8, 4.0)
    assert dog.histogram.edges == pytest.approx([2 ** (k / 2) for k in range(1, 7)])
    assert (dog.histogram.on_pictures, dog.histogram.on_text) == ((0, 2, 5, 0, 1), (4, 0, 0, 0, 0))
    assert [(one.feature, one.cosine, one.label) for one in dog.neighbours] == [(1, pytest.approx(0.9), ""), (2, -0.25, HOSTILE)]
    assert (dog.promotes, dog.suppresses) == ((" dog", " puppy"), (" cat", "\n"))
    first, second, third = dog.top
    assert [(one.number, one.id, one.score, one.size) for one in dog.top] == [
        (3, "3.png", 2.0, (64, 64)),
        (33, "33.png", 1.5, (96, 48)),
        (5, HOSTILE, 0.5, (64, 64)),
    ]
    assert (first.boxes.tolist(), first.values.tolist()) == ([[0, 0, 32, 32], [32, 0, 64, 32]], [4, 2])
    assert (second.boxes.tolist(), second.values.tolist()) == ([[48, 0, 96, 48]], [3])
    assert second.heat.shape == (24, 48)
    assert (second.heat[:, :24].unique().tolist(), second.heat[:, 24:].unique().tolist()) == ([0], [3])
    assert third.heat[16:, :16].unique().tolist() == [2]


def test_features_that_lack_something(held):
    bare, dead = held.feature(BARE), held.feature(DEAD)
    assert (bare.label, bare.source, dict(bare.scores), len(bare.top)) == ("", "", {}, 1)
    assert (dead.label, dead.top, dead.histogram.edges, dead.pictures) == ("hotdog stand", (), (), 0)


def test_the_dictionary_is_plain(held):
    found = held.feature(DOG).to_dict()
    assert found["top"][0]["active"] == [[0, 0, 32, 32, 4], [32, 0, 64, 32, 2]]
    assert found["top"][0]["picture"].startswith("data:image/webp;base64,")
    assert found["histogram"]["on_pictures"] == [0, 2, 5, 0, 1]
    assert found["neighbours"][1] == {"feature": 2, "cosine": -0.25, "label": HOSTILE}


def test_search_ranks_the_label_itself_and_then_whole_words_first(held):
    assert [(feature, label.text, label.source) for feature, label in held.search("DOG")] == [
        (DOG, "dog", "by hand"),
        (DEAD, "hotdog stand", "by hand"),
    ]
    assert [feature for feature, _ in held.search("<img")] == [EVIL]
    assert [feature for feature, _ in held.search("hotdog  Stand", 1)] == [DEAD]
    assert [feature for feature, _ in held.search("dog", 1)] == [DOG]
    assert held.alive == (DOG, BARE, EVIL)
    assert held.summary() == "3 of 6 features are active on some of 40 pictures; 3 have a label."


def test_of_equal_labels_the_strongest_feature_comes_first(tmp_path):
    held = FeatureIndex.open(write_index(tmp_path))
    texts = {DOG: "dog", BARE: "Dog", EVIL: "a dog", DEAD: "dog"}
    vars(held)["labels"] = Labels({feature: Label(text, "by hand") for feature, text in texts.items()}, "")
    assert [feature for feature, _ in held.search("dog")] == [BARE, DOG, DEAD, EVIL]
