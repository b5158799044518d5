"""The SAE that ships: it is what its card says, on scenes drawn here."""

import json
import random
import re

import pytest
import torch

import interp
from interp.emoji_world import find_features, measure_sae, unseen
from interp.emoji_world.scenes import draw, draw_picture, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.emoji_world.words import NOUNS, QUESTIONS
from interp.emoji_world.world import WORLDS
from interp.presets import ASSETS, PRESETS

FOLDER = ASSETS / "emoji-llava-sae"
SCENES = 12
NAMES = {noun for noun, _ in NOUNS}


@pytest.fixture(scope="module")
def sae():
    return interp.load_sae("emoji-llava")


@pytest.fixture(scope="module")
def looked(emoji_vlm, sae):
    """(encoding, word shares of its patches) of unseen scenes."""
    rng = random.Random("a test of the shipped SAE")
    sprites = load_sprites()
    out = []
    for _ in range(SCENES):
        scene = sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0)
        trace = emoji_vlm.trace(draw_picture(scene, sprites, 96), QUESTIONS["describe"][0])
        out.append((interp.encode(trace, sae), draw([scene], sprites)[1][0]))
    return out


@pytest.mark.parametrize(("model", "nouns", "dead"), [("emoji-llava", 120, 0.08), ("smol-llava", 280, 0.2)])
def test_it_is_small_and_complete(model, nouns, dead):
    sae, folder = interp.load_sae(model), ASSETS / f"{model}-sae"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "cfg.json",
        "labels.json",
        "sae_weights.safetensors",
        "sparsity.safetensors",
    }
    assert sae.layer == PRESETS[model].saes[0].layer
    assert sae.model_name == model
    assert sae.activation == "jumprelu"
    assert len(sae.labels.names) == sae.d_sae
    assert len({label.text for label in sae.labels.names.values()} & set(WORLDS[model].nouns)) >= nouns
    assert sae.density.shape == (sae.d_sae,)
    assert (sae.density < 1e-9).float().mean() <= dead
    card = (folder / "README.md").read_text(encoding="utf-8")
    trained = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))["metadata"]["trained"]
    assert f"| image | {trained['image']['explained_variance']:.3f} |" in card
    assert f"{sae.d_sae} features of the residual stream after decoder block {sae.layer}" in card


def test_it_fits_unseen_scenes_as_its_figures_say(sae, looked):
    for kind in ("image", "text"):
        own = sae.trained[kind].explained_variance
        mean = sum(encoding.quality[kind].explained_variance for encoding, _ in looked) / len(looked)
        # The mean of single pictures: their tokens vary less than those of many pictures, so less is there to explain.
        assert mean > own - 0.08
        assert all(encoding.quality[kind].verdict == "" for encoding, _ in looked)


def test_names_stand_on_what_they_name(looked):
    hits = total = 0
    for encoding, shares in looked:
        for patch in (shares[:, : len(NOUNS)].amax(-1) >= 0.9).nonzero().flatten().tolist():
            found = encoding.top(5, {"patches": [[patch // 8, patch % 8]]})
            named = [feature.label for feature in found.features if feature.label in NAMES]
            if named:
                total += 1
                hits += named[0] == NOUNS[int(shares[patch].argmax())][0]
    assert total > 20
    assert hits / total > 0.8


def test_names_say_what_a_feature_fires_on_and_how_surely(sae):
    named = [label for label in sae.labels.names.values() if label.text != "unnamed"]
    assert len(named) == 1342
    for label in named:
        share = int(re.match(r"(\d+)% of its (?:strong )?activation on unseen (?:patches|tokens) lies there", label.source)[1])
        assert label.score >= 0.5
        assert share == pytest.approx(100 * label.score, abs=0.51)
    assert sae.labels.about.startswith("Names: 1 342 of 2 048 features")
    assert {label.text for label in named} >= NAMES
    unnamed = [label for label in sae.labels.names.values() if label.text == "unnamed"]
    assert {label.score for label in unnamed} == {None}
    assert not any(re.search(r"<0x|\\x|<pad>", label.text) for label in named)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"Of {sae.d_sae} features, {len(named)} are named" in card


def test_most_features_are_sparse(sae):
    assert torch.median(sae.density) < 0.02
    assert (sae.density > 0.5).sum() == 0


def test_measuring_writes_what_the_app_loads(emoji_vlm, sae, tmp_path, monkeypatch):
    monkeypatch.setattr(unseen, "BATCHES", 2)
    measure_sae.measure(
        emoji_vlm, FOLDER, tmp_path / "made", {"k": 10, "tokens": 1000, "pool": "1000", "parts": "image", "chosen": "By a test."}
    )
    made = interp.load_sae(tmp_path / "made")
    assert len(made.labels.names) == sae.d_sae
    assert made.trained["image"].explained_variance == pytest.approx(sae.trained["image"].explained_variance, abs=0.03)
    assert float(made.density.median()) == pytest.approx(float(sae.density.median()), abs=0.01)
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert "By a test." in card
    shown = int(re.search(r"covered by an emoji, of (\d+) of the 120 nouns", card)[1])
    assert 60 < shown < 120  # a few scenes
    rows = card[card.index("## Every noun") : card.index("## Licence")].count("\n| ") - 1
    assert rows == shown
    # A few scenes name the strong features as the many did.
    both = [
        (made.labels.get(f).text, sae.labels.get(f).text)
        for f in range(sae.d_sae)
        if sae.labels.get(f).text in NAMES and (sae.density[f] > 0.003)
    ]
    assert sum(one == other for one, other in both) / len(both) > 0.4


def test_a_nouns_features_are_found_without_their_names():
    table = find_features.table(["dog", "pizza"], 4)
    dog, pizza = table.splitlines()[2:]
    assert "dog (" in dog
    assert "pizza (" in pizza
