"""The table of presets says what is so, as far as that can be known without the checkpoints; and docs/models.md says the same."""

from pathlib import Path

import pytest

from interp.presets import ASSETS, PRESETS
from interp.saes.formats import hook_layer
from interp.saes.loading import _directory, _layer_in
from interp.steering.published import KNOWN_STEERING

TABLE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
REAL = [preset for preset in PRESETS.values() if preset.proved == "shape"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_is_whole(preset):
    assert PRESETS[preset.name] is preset
    if not preset.default_layer_note:
        assert preset.default_layer == round(0.75 * preset.n_layers) - 1
    assert preset.memory_4bit_gb <= preset.memory_16bit_gb
    assert preset.memory_gb(cpu=True) == 2 * preset.memory_16bit_gb
    assert preset.licence
    assert preset.about.endswith(".")
    assert len({sae.name for sae in preset.saes}) == len(preset.saes)
    for sae in preset.saes:
        assert 0 <= sae.layer < preset.n_layers
        assert sae.labels


def test_only_the_embedded_models_are_proved_on_real_weights():
    proved = {name: preset for name, preset in PRESETS.items() if preset.proved == "real weights"}
    assert list(proved) == ["emoji-llava", "smol-llava"]
    assert all(Path(preset.checkpoint) == ASSETS / name for name, preset in proved.items())


def test_the_embedded_model_opens_where_its_card_reads_objects_and_background_best():
    preset = PRESETS["emoji-llava"]
    card = (ASSETS / "emoji-llava" / "README.md").read_text(encoding="utf-8")
    table = card[card.index("| layer | own noun top 1") :].split("\n\n")[0].splitlines()[3:]  # from layer 0 on
    nouns, colors = ([float(row.split("|")[column]) for row in table] for column in (2, 4))
    both = [sum(pair) for pair in zip(nouns, colors, strict=True)]
    assert len(table) == preset.n_layers
    assert preset.default_layer == both.index(max(both))
    figures = [*nouns[:1], nouns[5], nouns[7], *colors[5:]]
    (readable,) = [lens.readable for lens in preset.lenses if lens.method == "logit"]
    assert all(f"{figure} %" in readable + preset.default_layer_note for figure in figures)


@pytest.mark.parametrize("preset", REAL, ids=lambda preset: preset.name)
def test_the_docs_have_its_row(preset):
    (row,) = [line for line in TABLE.splitlines() if line.startswith(f"| `{preset.name}` |")]
    assert preset.checkpoint in row
    assert preset.licence.removesuffix(" Community") in row
    assert f"| {preset.memory_4bit_gb:g} / {preset.memory_16bit_gb:g} |" in row
    assert ("gated" in row) == preset.gated
    for sae in preset.saes:
        assert str(sae.layer) in row.rpartition("|")[0].rpartition("|")[2]


def test_saes_of_sae_lens_exist_and_read_the_layer_that_the_table_says():
    releases = _directory()
    found = 0
    for preset in REAL:
        for sae in preset.saes:
            release, _, sae_id = sae.source.partition("/")
            if release in releases:
                assert sae_id in releases[release].saes_map
                assert sae.layer in {hook_layer(sae_id), _layer_in(sae_id)}
                assert releases[release].neuronpedia_id[sae_id]  # its names come from there
                assert sae.labels == "Neuronpedia"
                found += 1
    assert found == 10


def test_known_edits_use_saes_of_their_presets():
    for known in KNOWN_STEERING:
        preset = next(preset for preset in PRESETS.values() if known.model in {preset.name, preset.checkpoint})
        assert {edit.sae for edit in known.edits} <= {sae.name for sae in preset.saes}
