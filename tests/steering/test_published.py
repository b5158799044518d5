"""The table of known edits, held against the SAE that ships."""

import pytest

import interp
from interp.steering.published import KNOWN_STEERING

OURS = [known for known in KNOWN_STEERING if known.model == "emoji-llava"]
NOUNS = {"No dog": "dog", "Everything is pizza": "pizza"}


@pytest.mark.parametrize("known", OURS, ids=lambda known: known.name)
def test_the_features_are_called_what_the_preset_says(known):
    sae = interp.load_sae("emoji-llava")
    assert {edit.sae for edit in known.edits} == {sae.name}
    assert [sae.labels.get(edit.feature).text for edit in known.edits] == [NOUNS[known.name]]


@pytest.mark.parametrize("known", KNOWN_STEERING, ids=lambda known: known.name)
def test_every_edit_is_a_possible_one(known):
    sae = interp.load_sae("emoji-llava")
    for edit in known.edits:
        made = interp.Edit(sae=sae, feature=edit.feature % sae.d_sae, where=edit.where, **{edit.unit: edit.value})
        assert made.value == edit.value
