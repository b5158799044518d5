"""The dictionary of concepts that ships: it is what its card says, on scenes drawn here."""

import re
import sys

import pytest

from interp.concepts.concepts import Concepts
from interp.emoji_world import learn_dictionary
from interp.emoji_world.learn_dictionary import collected, purity_of
from interp.presets import ASSETS, PRESETS

FOLDER = ASSETS / "emoji-llava-concepts"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
(KNOWN,) = PRESETS["emoji-llava"].concepts


@pytest.fixture(scope="module")
def concepts(emoji_vlm):
    return Concepts.load(FOLDER, emoji_vlm)


@pytest.fixture(scope="module")
def unseen(emoji_vlm):
    return collected(emoji_vlm, "a test of the shipped dictionary", 160, [KNOWN.layer])


def figures(row):
    """The numbers of one row of the card."""
    (line,) = [line for line in CARD.splitlines() if line.startswith(f"| {row}")]
    return [float(each) for each in re.findall(r"\d+(?:\.\d+)?", line.removeprefix(f"| {row}"))]


def test_it_is_small_and_complete(concepts):
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 1.5e6
    assert {file.name for file in FOLDER.iterdir()} == {"README.md", "concepts.json", "concepts.safetensors"}
    assert str(FOLDER) == KNOWN.source
    assert (concepts.layer, len(concepts), concepts.method) == (KNOWN.layer, learn_dictionary.COUNT, learn_dictionary.METHOD)
    assert concepts.model_name == "emoji-llava"
    assert all(len(row) >= 3 for row in concepts.examples)
    for each in (each for row in concepts.examples for each in row):
        assert max(each.picture.size) <= learn_dictionary.SIDE
        assert each.map.shape == (8, 8)
        assert not each.path


def test_the_card_and_the_page_give_the_same_figures(concepts):
    purity, shuffled = figures("purity:")
    assert f"{purity:g} %" in KNOWN.about
    assert f"{shuffled:g} %" in KNOWN.about
    assert figures("variance left unexplained")[0] == pytest.approx(concepts.fit.fvu, abs=6e-4)
    assert figures("stability over seeds")[:1] == [round(sum(concepts.stability) / len(concepts), 2)]
    assert CARD.count("\n| ") > len(concepts)


def test_it_stands_for_what_patches_show_as_its_card_says(concepts, unseen):
    for row, nouns in (("purity:", None), ("the same for patches of objects", True)):
        said, shuffled = figures(row)
        found = purity_of(concepts, unseen, nouns=nouns)
        # Of fewer patches the commonest truth has a larger share, shuffled or not.
        assert found.mean > said / 100 - 0.05
        assert found.mean - found.shuffled > (said - shuffled) / 200


def test_its_maps_lie_on_what_the_picture_shows(concepts, emoji_vlm):
    """The picture's background and its things are of different concepts."""
    trace = emoji_vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", "Describe the image.")
    most = concepts.transform(trace)[trace.grids[0].positions.flatten()].argmax(1).view(8, 8)
    dog, pizza, corner = most[2:4, 1:4].flatten().mode()[0], most[4:6, 5:7].flatten().mode()[0], most[0, 7]
    assert len({int(dog), int(pizza), int(corner)}) == 3


def test_the_recipe_writes_what_the_app_loads(emoji_vlm, tmp_path, monkeypatch):
    monkeypatch.setattr(learn_dictionary, "COUNT", 8)
    monkeypatch.setattr(sys, "argv", ["learn_dictionary", "--target", str(tmp_path / "made"), "--scenes", "60", "--measured", "20"])
    learn_dictionary.main()
    made = Concepts.load(tmp_path / "made", emoji_vlm)
    assert len(made) == 8
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "8 concepts that the states" in card
    assert "60 scenes" in card
