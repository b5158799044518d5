"""The table of known edits, held against the SAE that ships."""

import pytest

import interp
from interp.presets import ASSETS
from interp.steering.published import KNOWN_STEERING

OURS = [known for known in KNOWN_STEERING if known.model == "emoji-llava"]
NOUNS = {"No pizza": "pizza", "No dog": "dog", "Everything is pizza": "pizza"}


@pytest.mark.parametrize("known", OURS, ids=lambda known: known.name)
def test_the_features_are_called_what_the_preset_says(known):
    sae = interp.load_sae("emoji-llava")
    assert {edit.sae for edit in known.edits} == {sae.name}
    assert sae.labels.get(known.edits[0].feature).text == NOUNS[known.name]


def test_the_first_preset_removes_a_thing_and_puts_nothing_in_its_place(emoji_vlm):
    """What the first click shows, and what its note says of its parts."""
    sae = interp.load_sae("emoji-llava")
    edits = [interp.Edit(sae=sae, feature=e.feature, where=e.where, **{e.unit: e.value}) for e in OURS[0].edits]
    assert [sae.labels.get(edit.feature).text for edit in edits] == ["pizza", "pizza", "objects"]
    picture, prompt = ASSETS / "examples" / "dog-and-pizza.webp", "Describe the image."
    answers = [interp.steer(emoji_vlm, picture, prompt, some).steered for some in (edits, edits[2:], edits[:2])]
    assert answers[:2] == ["a dog on a blue background."] * 2
    assert "a pizza" in answers[2]


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


def test_one_feature_takes_a_noun_of_a_real_language_model_away():
    vlm, sae = interp.load("smol-llava", device="cpu"), interp.load_sae("smol-llava")
    picture, prompt = ASSETS / "examples" / "dog-and-pizza.webp", "Describe the image."
    for known in (known for known in KNOWN_STEERING if known.model == "smol-llava"):
        (edit,) = known.edits
        assert edit.sae == sae.name
        assert sae.labels.get(edit.feature).text == NOUNS[known.name]
        made = interp.Edit(sae=sae, feature=edit.feature, where=edit.where, **{edit.unit: edit.value})
        found = interp.steer(vlm, picture, prompt, [made])
        assert found.plain == "A dog and a pizza on a blue background."
        other = {"No dog": "a fence", "No pizza": "a cookie"}[known.name]
        assert found.steered.lower() == found.plain.lower().replace(f"a {NOUNS[known.name]}", other)


@pytest.mark.parametrize("known", KNOWN_STEERING, ids=lambda known: known.name)
def test_every_edit_is_a_possible_one(known):
    sae = interp.load_sae("emoji-llava")
    for edit in known.edits:
        made = interp.Edit(sae=sae, feature=edit.feature % sae.d_sae, where=edit.where, **{edit.unit: edit.value})
        assert made.value == edit.value
