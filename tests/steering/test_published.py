"""The table of known edits, held against the SAE that ships."""

import pytest

import interp
from interp.presets import ASSETS
from interp.steering.published import KNOWN_STEERING

OURS = [known for known in KNOWN_STEERING if known.model == "emoji-llava"]
NOUNS = {"No dog": "dog", "Everything is pizza": "pizza"}


@pytest.mark.parametrize("known", OURS, ids=lambda known: known.name)
def test_the_features_are_called_what_the_preset_says(known):
    sae = interp.load_sae("emoji-llava")
    assert {edit.sae for edit in known.edits} == {sae.name}
    assert sae.labels.get(known.edits[0].feature).text == NOUNS[known.name]


def test_no_dog_takes_the_dog_out_of_the_example_with_a_small_push(emoji_vlm):
    sae = interp.load_sae("emoji-llava")
    (known,) = [known for known in OURS if known.name == "No dog"]
    edits = [interp.Edit(sae=sae, feature=e.feature, where=e.where, **{e.unit: e.value}) for e in known.edits]
    picture, prompt = ASSETS / "examples" / "dog-and-pizza.webp", "Describe the image."
    found = interp.steer(emoji_vlm, picture, prompt, edits)
    assert found.plain == "a dog and a pizza on a blue background."
    assert "dog" not in found.steered
    assert found.steered.endswith("and a pizza on a blue background.")
    trace = emoji_vlm.trace(picture, prompt)
    before = trace.residual(sae.layer)[trace.positions("image")].float()
    after = interp.steered_trace(trace, edits, found.steered_answer).residual(sae.layer)[trace.positions("image")].float()
    assert float(((after - before).norm(dim=-1) / before.norm(dim=-1)).mean()) < 0.25


@pytest.mark.parametrize("known", KNOWN_STEERING, ids=lambda known: known.name)
def test_every_edit_is_a_possible_one(known):
    sae = interp.load_sae("emoji-llava")
    for edit in known.edits:
        made = interp.Edit(sae=sae, feature=edit.feature % sae.d_sae, where=edit.where, **{edit.unit: edit.value})
        assert made.value == edit.value
