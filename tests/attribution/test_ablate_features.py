"""Features switched off: the same as steering them to 0, in the words of the trace and in the answer that follows."""

import json

import pytest

import interp
from interp import InterpError
from interp.attribution.ablate import ablate_features
from interp.attribution.attribute import attribute
from interp.presets import ASSETS
from tests.attribution.random_sae import sae


@pytest.mark.parametrize("dictionary", [sae(0), sae(1), sae(2), sae(1, k=6), sae(1, normalisation="layer_norm")])
def test_it_is_steering_to_zero(vlm, trace, dictionary):
    strong = [each.feature for each in attribute(trace, dictionary, 0, top=4).features]
    found = ablate_features(trace, dictionary, strong)
    edits = [interp.Edit(sae=dictionary, feature=feature, target=0) for feature in strong]
    steered = interp.steer(vlm, trace.image, trace.prompt, edits, max_new_tokens=6)
    assert found.plain_answer.text == steered.plain == trace.answer
    assert found.answer.text == steered.steered
    assert found.kl.tolist() == pytest.approx(steered.kl, abs=1e-4)
    assert found.kl.max() > 1e-3
    assert found.diff == steered.diff


def test_a_summary_goes_into_json(trace):
    found = ablate_features(trace, sae(1), [7, 3, 7])
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["schema"] == "llava-microscope/feature-ablation/1"
    assert plain["features"] == [7, 3]
    assert plain["sae"] == {"name": "random", "layer": 1}
    assert len(plain["tokens"]) == len(found.tokens) == 6


def test_without_its_own_features_a_noun_gives_way_to_another(emoji_vlm):
    dictionary = interp.load_sae("emoji-llava")
    trace = emoji_vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", "Describe the image.")
    own = [each.feature for each in attribute(trace, dictionary, "pizza").features if "pizza" in each.label]
    found = ablate_features(trace, dictionary, own)
    assert "and a pizza" in found.plain_answer.text
    assert found.answer.text.startswith("a dog")
    assert found.answer.text != found.plain_answer.text
    word = trace.answer_start + [token.text.strip() for token in trace.tokens[trace.answer_start :]].index("pizza")
    plain, without = (each[found.tokens.index(word)] for each in found.probability)
    assert plain > 0.5 > without


def test_wrong_features_are_refused(trace):
    for features, words in (([], "features is"), ([96], "Feature 96 does not exist"), (["dog"], "Feature 'dog'")):
        with pytest.raises(InterpError, match=words):
            ablate_features(trace, sae(1), features)
    with pytest.raises(InterpError, match="can be inspected but not edited"):
        ablate_features(trace, sae(interp.EMBED), [1])
