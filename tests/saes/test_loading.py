"""Every way an SAE can be named, every format it can come in, and every fault it can have."""

import dataclasses
import inspect
import json
import math
import os
import pickle
import time
import types
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import interp
from interp import presets
from interp.errors import InterpError
from interp.presets import PRESETS, KnownSae
from interp.saes import formats, loading
from interp.saes.labels.labels import Label, Labels, write_labels
from interp.saes.loading import load_sae
from interp.saes.sae import SaeMetrics
from tests.sae_checkpoints import (
    D_IN,
    D_SAE,
    Hub,
    build,
    copy,
    dense,
    edit_config,
    edit_weights,
    point_at,
    randomise,
    serve,
    sparsify,
    sparsify_answer,
    states,
)

WEIGHTS = "sae_weights.safetensors"


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Architecture → folder of a saved SAE."""
    folders = {}
    for kind in ("standard", "topk", "jumprelu", "gated"):
        folders[kind] = tmp_path_factory.mktemp(kind) / "layers.3"
        build(kind).save_model(folders[kind])
    return folders


@pytest.fixture
def spoiled(saved, tmp_path):
    """A saved standard SAE that a test may spoil."""
    return copy(saved["standard"], tmp_path / "spoiled")


@pytest.fixture(autouse=True)
def no_names_from_the_network(monkeypatch):
    asked = []

    def names(neuronpedia_id, *, features):
        asked.append((neuronpedia_id, features))
        return Labels({0: Label("from afar", "Neuronpedia")}, "from afar")

    monkeypatch.setattr(formats, "neuronpedia_labels", names)
    return asked


def theirs(folder, **options):
    return loading.import_sae_lens().SAE.load_from_disk(folder, device="cpu", **options)


def agrees(ours, reference, x=None):
    """Ours encodes and decodes as an SAE of sae-lens does."""
    x = states(d_in=ours.d_in) if x is None else x
    with torch.no_grad():
        expected = reference.encode(x)
        rebuilt = reference.decode(expected)
    acts = ours.encode(x)
    torch.testing.assert_close(dense(acts, ours.d_sae), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.decode(acts), rebuilt, rtol=1e-4, atol=1e-3)
    assert 0 < len(acts.features) < expected.numel()


# --- sae-lens' own format ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
def test_a_folder_of_every_architecture(kind, saved):
    sae = load_sae(saved[kind])
    assert (sae.d_in, sae.d_sae, sae.layer, sae.model_name, sae.name) == (D_IN, D_SAE, 3, "some-model", str(saved[kind]))
    assert sae.activation == ("relu" if kind == "standard" else kind)
    assert not sae.W_enc.requires_grad
    assert sae.notes == ()
    agrees(sae, theirs(saved[kind]))


@pytest.mark.parametrize("matryoshka", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
def test_batchtopk_and_matryoshka_saved_for_inference(matryoshka, rescale, tmp_path):
    lens = loading.import_sae_lens()
    options = {"d_in": D_IN, "d_sae": 64, "k": 4, "rescale_acts_by_decoder_norm": rescale}
    if matryoshka:
        sae = lens.MatryoshkaBatchTopKTrainingSAE(lens.MatryoshkaBatchTopKTrainingSAEConfig(**options, matryoshka_widths=[16, 64]))
    else:
        sae = lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(**options))
    sae.cfg.metadata.hook_name = "blocks.7.hook_resid_post"
    randomise(sae)
    sae.topk_threshold.fill_(2.0)
    sae.save_inference_model(tmp_path / "sae")
    ours = load_sae(tmp_path / "sae")
    assert (ours.activation, ours.layer) == ("jumprelu", 7)
    assert (ours.encode(states()).values > 2).all()
    agrees(ours, theirs(tmp_path / "sae"))
    # What it rebuilds is what the SAE in training would, with a threshold in place of the k largest of a batch.
    x, bias = states(), sae.b_enc.detach()
    pre = (x - sae.b_dec.detach()) @ sae.W_enc.detach() + bias
    scale = sae.W_dec.detach().norm(dim=1) if rescale else torch.ones(64)
    z = torch.where(pre * scale > 2, pre * scale, 0)
    expected = (z / scale) @ sae.W_dec.detach() + sae.b_dec.detach()
    torch.testing.assert_close(ours.decode(ours.encode(x)), expected, rtol=1e-4, atol=1e-4)


def test_a_training_checkpoint_is_told_from_one_for_inference(tmp_path):
    lens = loading.import_sae_lens()
    lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(d_in=4, d_sae=8, k=2)).save_model(tmp_path)
    with pytest.raises(InterpError, match="save_inference_model"):
        load_sae(tmp_path)


@pytest.mark.parametrize("norm", ["constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("kind", ["jumprelu", "topk"])
def test_normalised_input(kind, norm, tmp_path):
    build(kind, normalize_activations=norm).save_model(tmp_path)
    sae = load_sae(tmp_path)
    assert sae.normalisation == norm
    agrees(sae, theirs(tmp_path), x=10 * states())


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("place", ["metadata", "top"])
def test_norm_scaling_factor(kind, subtract, place, tmp_path):
    reference = build(kind, normalize_activations="expected_average_only_in", apply_b_dec_to_input=subtract)
    reference.save_model(tmp_path)
    if place == "metadata":
        edit_config(tmp_path, metadata=reference.cfg.metadata.to_dict() | {"norm_scaling_factor": 0.25})
    else:
        edit_config(tmp_path, norm_scaling_factor=0.25)
    sae = load_sae(tmp_path)
    x = 4 * states()
    # sae-lens leaves the factor out for folders: what it makes of x * s, times 1 / s, is the answer.
    with torch.no_grad():
        z = theirs(tmp_path).encode(x * 0.25)
        rebuilt = theirs(tmp_path).decode(z) / 0.25
        assert not torch.allclose(theirs(tmp_path).encode(x), z)
    acts = sae.encode(x)
    torch.testing.assert_close(dense(acts, D_SAE), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(acts), rebuilt, rtol=1e-4, atol=1e-3)


def test_norm_scaling_factor_with_decoder_norms(tmp_path):
    build("topk", normalize_activations="expected_average_only_in", rescale_acts_by_decoder_norm=True).save_model(tmp_path)
    edit_config(tmp_path, norm_scaling_factor=0.25)
    sae, x = load_sae(tmp_path), 4 * states()
    with torch.no_grad():
        z = theirs(tmp_path).encode(x * 0.25)
        rebuilt = theirs(tmp_path).decode(z) / 0.25
    acts = sae.encode(x)
    # As in sae-lens' releases, activations are then lengths in the model's own units.
    torch.testing.assert_close(dense(acts, D_SAE), z / 0.25, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(acts), rebuilt, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))


@pytest.mark.parametrize("factor", [None, 0, -1.0, math.inf, math.nan, "0.2", [1]])
def test_a_missing_norm_scaling_factor_is_refused(factor, tmp_path):
    build("standard", normalize_activations="expected_average_only_in").save_model(tmp_path)
    edit_config(tmp_path, norm_scaling_factor=factor)
    with pytest.raises(InterpError, match="norm_scaling_factor"):
        load_sae(tmp_path)


def test_decoder_norms_of_topk_are_folded(tmp_path):
    build("topk", rescale_acts_by_decoder_norm=True).save_model(tmp_path)
    edit_weights(tmp_path, W_dec=torch.cat([theirs(tmp_path).W_dec.detach()[:-1], torch.zeros(1, D_IN)]))
    reference = theirs(tmp_path)
    with torch.no_grad():
        expected = reference.encode(states())
    sae = load_sae(tmp_path)
    torch.testing.assert_close(dense(sae.encode(states()), D_SAE), expected, rtol=1e-4, atol=1e-4)
    assert sae.decode(sae.encode(states())).isfinite().all()  # sae-lens divides by the norm of 0


OLD = {
    "hook_point": "blocks.9.hook_resid_pre",
    "hook_point_layer": 9,
    "hook_point_head_index": None,
    "model_name": "gemma-2b",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "mps",
    "activation_fn_str": "relu",
    "normalize_activations": False,
    "apply_b_dec_to_input": False,
    "dataset_path": "somewhere",
    "expansion_factor": 4,
    "lr": 4e-4,
    "wandb_project": "x",
    "neuronpedia_id": "gemma-2b/8-res",
}


@pytest.mark.parametrize("k", [None, 5])
def test_configs_from_before_version_6(k, spoiled, no_names_from_the_network):
    old = OLD | ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": k}} if k else {})
    (spoiled / "cfg.json").write_text(json.dumps(old))
    sae = load_sae(spoiled)
    assert (sae.layer, sae.model_name, sae.k, sae.subtract_b_dec) == (8, "gemma-2b", k, False)
    agrees(sae, theirs(spoiled, dtype="float32"))
    assert no_names_from_the_network == [("gemma-2b/8-res", D_SAE)]
    assert sae.neuronpedia_id == "gemma-2b/8-res"
    assert sae.labels.about == "from afar"


def test_an_old_config_that_says_true_wants_its_factor(spoiled):
    (spoiled / "cfg.json").write_text(json.dumps(OLD | {"normalize_activations": True}))
    with pytest.raises(InterpError, match="norm_scaling_factor"):
        load_sae(spoiled)
    edit_config(spoiled, norm_scaling_factor=0.5)
    sae = load_sae(spoiled)
    with torch.no_grad():
        expected = theirs(spoiled, dtype="float32").encode(states() * 0.5)
    torch.testing.assert_close(dense(sae.encode(states()), D_SAE), expected, rtol=1e-4, atol=1e-4)


# --- sparsify ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("latents", [96, D_IN])
def test_sparsify(unit, latents, tmp_path):
    folder = tmp_path / "model.layers.24"
    raw = sparsify(folder, latents=latents, k=5, normalize_decoder=unit)
    x = states()
    z, rebuilt = sparsify_answer(raw, x, k=5)
    sae = load_sae(folder)
    acts = sae.encode(x)
    torch.testing.assert_close(dense(acts, latents), z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.decode(acts), rebuilt, rtol=1e-4, atol=1e-4)
    assert (sae.layer, sae.k, sae.d_sae, sae.model_name, sae.subtract_b_dec) == (24, 5, latents, "some/vlm", True)
    # The corrections are needed: sae-lens' own reader transposes W_dec, and forgets b_dec where the decoder has unit norm.
    loaders = formats.loaders()
    if latents != D_IN:
        with pytest.raises(RuntimeError, match="size mismatch for W_dec"):
            theirs(folder, dtype="float32", converter=loaders.sparsify_disk_loader)
    else:
        stock = theirs(folder, dtype="float32", converter=loaders.sparsify_disk_loader)
        with torch.no_grad():
            assert torch.allclose(stock.encode(x), z, atol=1e-4) == (not unit)
            assert not torch.allclose(stock(x), rebuilt, atol=1e-2)
            assert not torch.allclose(z @ stock.W_dec + stock.b_dec, rebuilt, atol=1e-2)


@pytest.mark.parametrize("options", [{"num_latents": 0}, {"drop": ("num_latents",)}, {"drop": ("expansion_factor",)}])
def test_sparsify_sizes(options, tmp_path):
    raw = sparsify(tmp_path / "layers.2", **options)
    sae = load_sae(tmp_path / "layers.2")
    assert (sae.d_sae, sae.layer) == (96, 2)
    torch.testing.assert_close(sae.decode(sae.encode(states())), sparsify_answer(raw, states())[1], rtol=1e-4, atol=1e-4)


def test_sparsify_with_the_decoder_of_a_linear_layer(tmp_path):
    raw = sparsify(tmp_path / "layers.2", latents=D_IN)
    edit_weights(tmp_path / "layers.2", "W_dec", file="sae.safetensors", **{"decoder.weight": raw["W_dec"].T.contiguous()})
    sae = load_sae(tmp_path / "layers.2")
    torch.testing.assert_close(sae.W_dec, raw["W_dec"])


def test_sparsify_whose_folder_names_no_layer(tmp_path):
    sparsify(tmp_path / "mine")
    (tmp_path / "config.json").unlink()
    with pytest.raises(InterpError, match="does not say which layer it reads"):
        load_sae(tmp_path / "mine")
    sae = load_sae(tmp_path / "mine", layer=6)
    assert (sae.layer, sae.model_name) == (6, "")


@pytest.mark.parametrize("folder", ["layers.24.mlp", "model.layers.24.self_attn", "h.3.layers.2.mlp.down_proj"])
def test_sparsify_of_a_part_of_a_layer_is_refused(folder, tmp_path):
    sparsify(tmp_path / folder)
    with pytest.raises(InterpError, match=f"reads {folder!r}, which is not a residual stream"):
        load_sae(tmp_path / folder, layer=24)


@pytest.mark.parametrize("option", [{"signed": True}, {"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}])
def test_other_kinds_of_sparsify_are_refused(option, tmp_path):
    sparsify(tmp_path / "layers.2", **option)
    with pytest.raises(InterpError, match=f"{next(iter(option))}.*only plain TopK"):
        load_sae(tmp_path / "layers.2")


@pytest.mark.parametrize("name", ["encoder.weight", "encoder.bias", "W_dec", "b_dec"])
def test_sparsify_without_a_tensor(name, tmp_path):
    sparsify(tmp_path / "layers.2")
    edit_weights(tmp_path / "layers.2", name, file="sae.safetensors")
    with pytest.raises(InterpError, match=f"lacks {'decoder.weight' if name == 'W_dec' else name}"):
        load_sae(tmp_path / "layers.2")


def test_sparsify_of_wrong_shape(tmp_path):
    sparsify(tmp_path / "layers.2", num_latents=90)
    with pytest.raises(InterpError, match="size mismatch for W_enc"):
        load_sae(tmp_path / "layers.2")


# --- layers, devices, types, what lies beside the weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.12.hook_resid_post", 12),
        ("blocks.12.hook_resid_pre", 11),
        ("blocks.0.hook_resid_pre", -1),
        ("blocks.0.hook_resid_post", 0),
        ("hook_embed", -1),
        ("model.layers.17.output", 17),
        ("model.layers.17", 17),
        ("model.language_model.layers.5", 5),
        ("layers.24", 24),
    ],
)
@pytest.mark.parametrize("key", ["hook_name", "hf_hook_name"])
def test_layer_of_a_hook(key, hook, layer, spoiled):
    edit_config(spoiled, metadata={"sae_lens_version": "6.54.12", key: hook})
    assert load_sae(spoiled).layer == layer
    assert load_sae(spoiled, layer=layer).layer == layer
    with pytest.raises(InterpError, match=f"reads layer {layer}; layer 30 was asked for"):
        load_sae(spoiled, layer=30)


@pytest.mark.parametrize(("folder", "layer"), [("model.layers.24", 24), ("layers.24", 24), ("layer_3", 3), ("embed_tokens", -1)])
def test_layer_of_a_folder(folder, layer, saved, tmp_path):
    folder = copy(saved["standard"], tmp_path / folder)
    edit_config(folder, metadata={"sae_lens_version": "6.54.12"})
    assert load_sae(folder).layer == layer


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.3.attn.hook_z",
        "blocks.3.hook_mlp_out",
        "blocks.3.hook_attn_out",
        "blocks.3.hook_resid_mid",
        "blocks.3.hook_resid_postx",
        "model.layers.3.mlp",
        "model.layers.3.mlp.output",
        "vision_tower.encoder.layers.3",
        "ln_final.hook_normalized",
        3,
        ["blocks.3.hook_resid_post"],
    ],
)
def test_other_hooks_are_refused(hook, spoiled):
    edit_config(spoiled, metadata={"sae_lens_version": "6.54.12", "hook_name": hook})
    with pytest.raises(InterpError, match="not a residual stream"):
        load_sae(spoiled, layer=3)


def test_reshaped_activations_are_refused(tmp_path):
    build("standard", hook="blocks.3.attn.hook_z", reshape_activations="hook_z").save_model(tmp_path)
    with pytest.raises(InterpError, match=r"'blocks.3.attn.hook_z', which is not a residual stream"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        "temporal",
        "matching_pursuit",
        "abstopk",
        "transcoder",
        "skip_transcoder",
        "jumprelu_transcoder",
        "jumprelu_skip_transcoder",
        "new",
        3,
        [],
    ],
)
def test_other_architectures_are_refused(kind, spoiled):
    edit_config(spoiled, architecture=kind)
    with pytest.raises(InterpError, match=r"architecture|unhashable"):
        load_sae(spoiled)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"normalize_activations": "covariance_whitening"}, "normalises its input by 'covariance_whitening'"),
        ({"normalize_activations": "new"}, "normalises its input by 'new'"),
        ({"activation_fn_str": "tanh-relu"}, "the activation 'tanh-relu'"),
    ],
)
def test_other_arithmetic_is_refused(change, match, spoiled):
    edit_config(spoiled, **change)
    with pytest.raises(InterpError, match=match):
        load_sae(spoiled)


def test_types(saved, monkeypatch):
    x = states()
    exact = load_sae(saved["jumprelu"])
    assert exact.W_enc.dtype == torch.float32
    rounded = load_sae(saved["jumprelu"], dtype="bfloat16")
    assert rounded.W_enc.dtype == rounded.W_dec.dtype == torch.bfloat16
    agrees(rounded, theirs(saved["jumprelu"], dtype="bfloat16").to(torch.float32), x)
    both = 2 * 4 * D_IN * D_SAE
    for limit, dtype in ((both, torch.float32), (both - 1, torch.bfloat16)):
        monkeypatch.setattr(formats, "_LARGE", limit)
        assert load_sae(saved["jumprelu"]).W_dec.dtype == dtype
        assert load_sae(saved["jumprelu"], dtype="float32").W_dec.dtype == torch.float32
    for wrong in ("float16", None, torch.float32):
        with pytest.raises(InterpError, match="dtype is"):
            load_sae(saved["jumprelu"], dtype=wrong)


def test_sparsify_in_bfloat16(tmp_path):
    raw = sparsify(tmp_path / "layers.2")
    sae = load_sae(tmp_path / "layers.2", dtype="bfloat16")
    rounded = {key: value.bfloat16().float() for key, value in raw.items()}
    assert sae.W_enc.dtype == torch.bfloat16
    torch.testing.assert_close(sae.decode(sae.encode(states())), sparsify_answer(rounded, states())[1], rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_devices(saved):
    assert load_sae(saved["standard"], device="auto").W_enc.device.type == "cpu"
    for wrong in ("cuda", "tpu", "meta", ""):
        with pytest.raises(InterpError, match="device is"):
            load_sae(saved["standard"], device=wrong)


def test_names_densities_and_figures_beside_the_weights(spoiled, no_names_from_the_network):
    write_labels(spoiled / "labels.json", {3: Label("dogs", "by hand")}, "By hand.")
    save_file({"sparsity": torch.linspace(-4, 0, D_SAE)}, spoiled / "sparsity.safetensors")
    trained = {"image": {"explained_variance": 0.9, "l0": 16, "more": 1}, "text": {"l0": 3}, "odd": 3, "none": {}, "nan": {"l0": math.nan}}
    known = {"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_post", "neuronpedia_id": "a/b", "trained": trained}
    edit_config(spoiled, metadata=known)
    sae = load_sae(spoiled)
    assert sae.labels.get(3).text == "dogs"
    assert no_names_from_the_network == []
    assert sae.density.dtype == torch.float32
    assert sae.density.tolist() == pytest.approx(np.logspace(-4, 0, D_SAE).tolist(), rel=1e-4)
    assert sae.trained == {"image": SaeMetrics(0.9, 16.0), "text": SaeMetrics(None, 3.0)}
    assert sae.notes == ()


def test_names_for_features_that_do_not_exist_are_not_used(spoiled):
    write_labels(spoiled / "labels.json", {D_SAE: Label("dogs", "by hand")}, "By hand.")
    assert load_sae(spoiled).labels.names == {}


def test_without_names(saved, no_names_from_the_network):
    sae = load_sae(saved["standard"])
    assert (sae.labels.names, sae.density, sae.trained, sae.neuronpedia_id) == ({}, None, {}, None)
    assert no_names_from_the_network == []


@pytest.mark.parametrize("odd", [7, "no id", "../..", ["a/b"]])
def test_what_is_no_neuronpedia_id_is_left_out(odd, spoiled, no_names_from_the_network):
    edit_config(spoiled, metadata={"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_post", "neuronpedia_id": odd})
    assert load_sae(spoiled).neuronpedia_id is None
    assert no_names_from_the_network == []


@pytest.mark.parametrize("trained", [3, [1], {"all": {"l0": "many"}}, "x"])
def test_odd_figures_are_left_out(trained, spoiled):
    edit_config(spoiled, metadata={"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_post", "trained": trained})
    assert load_sae(spoiled).trained == {}


@pytest.mark.parametrize("damage", ["cut", "shape", "key", "nan"])
def test_damaged_densities_are_told(damage, spoiled):
    file = spoiled / "sparsity.safetensors"
    values = torch.zeros(D_SAE - (damage == "shape"))
    save_file({"other" if damage == "key" else "sparsity": values * (math.nan if damage == "nan" else 1)}, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    sae = load_sae(spoiled)
    assert sae.density is None
    assert "sparsity.safetensors is damaged" in sae.notes[0]


# --- damage -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"x"', "[" * 50_000, b"\xff\xfe\x00", '{"metadata": []}', '{"metadata": null}']
)
def test_a_config_that_is_none(text, spoiled):
    (spoiled / "cfg.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InterpError, match="cannot be read"):
        load_sae(spoiled)


@pytest.mark.parametrize("key", ["d_in", "d_sae"])
def test_a_config_that_lacks_a_key(key, spoiled):
    edit_config(spoiled, key)
    with pytest.raises(InterpError, match=f"lacks '{key}'"):
        load_sae(spoiled)


@pytest.mark.parametrize("key", ["d_in", "d_sae", "k"])
@pytest.mark.parametrize("value", [0, -3, 10**12, 2.0, "12", None, True, [12]])
def test_a_config_with_absurd_sizes(key, value, saved, tmp_path):
    folder = edit_config(copy(saved["topk"], tmp_path / "x"), **{key: value})
    with pytest.raises(InterpError, match=f"says {key} = "):
        load_sae(folder)


@pytest.mark.parametrize("key", ["d_in", "d_sae"])
def test_a_config_with_other_sizes_than_the_weights(key, spoiled):
    edit_config(spoiled, **{key: 13})
    with pytest.raises(InterpError, match=r"size mismatch for W_enc.*\[12, 700\].*13"):
        load_sae(spoiled)


@pytest.mark.parametrize("version", [6, "x.y", [1]])
def test_an_odd_version(version, spoiled):
    edit_config(spoiled, metadata={"sae_lens_version": version, "hook_name": "blocks.3.hook_resid_post"})
    with pytest.raises(InterpError, match="cannot be read"):
        load_sae(spoiled)


@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
def test_a_missing_or_superfluous_tensor_is_named(kind, saved, tmp_path):
    for name in theirs(saved[kind]).state_dict():
        folder = edit_weights(copy(saved[kind], tmp_path / name), name)
        with pytest.raises(InterpError, match=rf'Missing key.*"{name}"'):
            load_sae(folder)
    folder = edit_weights(copy(saved[kind], tmp_path / "more"), W_more=torch.zeros(3))
    with pytest.raises(InterpError, match=r'Unexpected key.*"W_more"'):
        load_sae(folder)


def test_a_tensor_of_wrong_shape(spoiled):
    edit_weights(spoiled, W_dec=torch.zeros(D_IN, D_SAE))
    with pytest.raises(InterpError, match="size mismatch for W_dec"):
        load_sae(spoiled)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(kept, spoiled):
    data = (spoiled / WEIGHTS).read_bytes()
    (spoiled / WEIGHTS).write_bytes(data[:kept])
    with pytest.raises(InterpError, match="cannot be read"):
        load_sae(spoiled)


def test_weights_that_are_no_numbers_are_counted(saved, tmp_path):
    for at, (name, bad) in enumerate([("W_enc", math.nan), ("W_dec", math.inf), ("b_enc", -math.inf), ("threshold", math.nan)]):
        folder = copy(saved["jumprelu"], tmp_path / str(at))
        value = theirs(folder).state_dict()[name].clone()
        value.view(-1)[[0, 5, -1]] = bad
        edit_weights(folder, **{name: value})
        with pytest.raises(InterpError, match=f"3 of {value.numel()} in {name}"):
            load_sae(folder)


def test_weights_that_are_no_numbers_are_counted_before_they_spread(tmp_path):
    build("topk", rescale_acts_by_decoder_norm=True).save_model(tmp_path)
    value = theirs(tmp_path).W_dec.detach().clone()
    value[3, 4] = math.nan
    edit_weights(tmp_path, W_dec=value)
    with pytest.raises(InterpError, match=f"1 of {value.numel()} in W_dec\\.$"):
        load_sae(tmp_path)


def test_large_weights_are_no_damage(spoiled):
    edit_weights(spoiled, b_enc=torch.full((D_SAE,), 3e38))  # their sum is infinite
    assert load_sae(spoiled).b_enc.isfinite().all()


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["sae.pt", "sae_weights.pkl", "deep/pytorch_model.bin", "a/b/ae.pth", "x.ckpt"])
@pytest.mark.parametrize("config", [True, False])
def test_pickles_are_refused_and_never_run(name, config, tmp_path):
    trace = tmp_path / "it ran"
    file = tmp_path / "sae" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(Bomb(trace)))
    if config:
        (file.parent / "cfg.json").write_text(json.dumps(OLD))
    with pytest.raises(InterpError, match=f"only pickles.*{Path(name).name}.*can run code"):
        load_sae(tmp_path / "sae")
    assert not trace.exists()


def test_a_pickle_by_the_name_of_safetensors_is_never_run(spoiled, tmp_path):
    (spoiled / WEIGHTS).write_bytes(pickle.dumps(Bomb(tmp_path / "it ran")))
    with pytest.raises(InterpError, match="cannot be read"):
        load_sae(spoiled)
    assert not (tmp_path / "it ran").exists()


def test_wrong_sources(tmp_path, saved):
    for wrong in (None, 3, "", "  ", ["x"], b"sae", True):
        with pytest.raises(InterpError, match="it must be a preset"):
            load_sae(wrong)
    with pytest.raises(InterpError, match=r"holds no SAE: neither cfg.json"):
        load_sae(tmp_path)
    with pytest.raises(InterpError, match="is a file; give the folder"):
        load_sae(saved["standard"] / "cfg.json")
    for missing in (tmp_path / "nowhere", "./nowhere", "~/nowhere", "..\\nowhere", "/" + "x" * 4000):
        with pytest.raises(InterpError, match="There is no folder"):
            load_sae(missing)
    for unknown in ("nothing-like-this", "x" * 4000):
        with pytest.raises(InterpError, match=r"is not a known SAE.*emoji-llava-sae.*gemma-2b-res-jb/"):
            load_sae(unknown)


def test_a_folder_that_holds_several(saved, tmp_path):
    for place in ("layer_2", "b/layers.5", "b/other"):
        edit_config(
            copy(saved["standard"], tmp_path / place), metadata={"sae_lens_version": "6.54.12", "hook_name": "blocks.5.hook_resid_post"}
        )
    edit_config(tmp_path / "layer_2", metadata={"sae_lens_version": "6.54.12", "hook_name": "layers.2"})
    with pytest.raises(InterpError, match=r"holds 3 SAEs \(b/layers.5, b/other, layer_2\)"):
        load_sae(tmp_path)
    assert load_sae(tmp_path, layer=2).name == f"{tmp_path}/layer_2"
    assert load_sae(tmp_path, layer=5).name == f"{tmp_path}/b/layers.5"
    with pytest.raises(InterpError, match="holds 3 SAEs"):
        load_sae(tmp_path, layer=9)
    copy(tmp_path / "layer_2", tmp_path / "b" / "layer_2_width_1k")
    with pytest.raises(InterpError, match="holds 2 SAEs of layer 2"):
        load_sae(tmp_path, layer=2)


# --- presets ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def preset(saved, tmp_path, monkeypatch):
    """A preset with SAEs of layers 3 and 8."""
    other = copy(saved["topk"], tmp_path / "eight")
    edit_config(other, metadata={"sae_lens_version": "6.54.12", "hook_name": "blocks.8.hook_resid_post"})
    saes = (KnownSae("first-sae", str(saved["standard"]), 3, ""), KnownSae("second-sae", str(other), 8, ""))
    monkeypatch.setitem(PRESETS, "both", dataclasses.replace(PRESETS["emoji-llava"], name="both", saes=saes))
    return saes


def test_presets_and_their_saes(preset):
    for source, layer, name in (
        ("both", None, "first-sae"),
        ("both", 3, "first-sae"),
        ("both", 8, "second-sae"),
        ("first-sae", None, "first-sae"),
        (" second-sae ", None, "second-sae"),
        ("second-sae", 8, "second-sae"),
        (preset[1].source, None, "second-sae"),
    ):
        sae = load_sae(source, layer=layer)
        assert sae.name == name
        assert sae.layer == (8 if name == "second-sae" else 3)
    with pytest.raises(InterpError, match="The SAEs of 'both' read layer 3, 8; layer 4 was asked for"):
        load_sae("both", layer=4)
    with pytest.raises(InterpError, match="reads layer 8; layer 3 was asked for"):
        load_sae("second-sae", layer=3)
    with pytest.raises(InterpError, match="No SAE is known for 'llava-interleave"):
        load_sae("llava-interleave-0.5b")


@pytest.mark.skipif(not (presets.ASSETS / "emoji-llava-sae").is_dir(), reason="the embedded SAE is not built yet")
def test_the_embedded_sae():
    sae = load_sae("emoji-llava")
    assert sae.name == "emoji-llava-sae"
    assert interp.load_sae("emoji-llava-sae").name == "emoji-llava-sae"
    assert sae.model_name == "emoji-llava"
    assert sae.layer == PRESETS["emoji-llava"].saes[0].layer
    assert len(sae.labels.names) > 100
    assert sae.trained.keys() == {"image", "text"}
    assert len(sae.density) == sae.d_sae
    assert sae.activation == "jumprelu"
    assert sae.W_enc.dtype == torch.float32
    assert len(sae.encode(states(5, sae.d_in)).offsets) == 6


# --- the hub ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of one's own, which the test fills."""
    hub = Hub(tmp_path / "hub")
    with serve(hub) as url:
        point_at(monkeypatch, url, tmp_path / "cache")
        yield hub
    huggingface_hub.utils.close_session()


def test_a_repository_with_one_sae(hub, saved):
    copy(saved["jumprelu"], hub.root / "me" / "one")
    (hub.repo("me/one") / "huge.bin").write_bytes(b"0" * 100)
    write_labels(hub.repo("me/one") / "labels.json", {3: Label("dogs", "by hand")}, "By hand.")
    sae = load_sae("me/one")
    assert (sae.name, sae.layer, sae.labels.get(3).text) == ("me/one", 3, "dogs")
    agrees(sae, theirs(saved["jumprelu"]))
    assert not any("huge.bin" in path for path in hub.asked)
    with pytest.raises(InterpError, match="reads layer 3; layer 4 was asked for"):
        load_sae("me/one", layer=4)


def test_a_repository_with_several(hub, saved):
    for layer in (3, 9):
        folder = copy(saved["standard"], hub.repo("me/many") / "res" / f"layers.{layer}")
        edit_config(folder, metadata={"sae_lens_version": "6.54.12", "hook_name": f"blocks.{layer}.hook_resid_post"})
    with pytest.raises(InterpError, match=r"'me/many' holds 2 SAEs \(res/layers.3, res/layers.9\)"):
        load_sae("me/many")
    with pytest.raises(InterpError, match="holds 2 SAEs"):
        load_sae("me/many/res")
    assert not any(WEIGHTS in path for path in hub.asked)
    for source, layer in (("me/many", 9), ("me/many/res", 9), ("me/many/res/layers.9", None), ("me/many/res/layers.9/", 9)):
        sae = load_sae(source, layer=layer)
        assert (sae.name, sae.layer) == ("me/many/res/layers.9", 9)
    assert not any("layers.3" in path for path in hub.asked)
    with pytest.raises(InterpError, match="'me/many/nowhere' holds no SAE"):
        load_sae("me/many/nowhere")


def test_a_sparsify_repository(hub):
    raw = sparsify(hub.repo("lab/sae-131k") / "model.layers.24", num_latents=96)
    for source in ("lab/sae-131k", "lab/sae-131k/model.layers.24"):
        sae = load_sae(source)
        assert (sae.name, sae.layer, sae.model_name) == ("lab/sae-131k/model.layers.24", 24, "some/vlm")
        torch.testing.assert_close(sae.decode(sae.encode(states())), sparsify_answer(raw, states())[1], rtol=1e-4, atol=1e-4)


def test_lmms_labs_sae_gets_the_names_of_its_data_set(hub, monkeypatch):
    asked = []

    def names(repo, *, module, features):
        asked.append((repo, module, features))
        return Labels({7: Label("bread", "LMMs-Lab explanation")}, "from a data set")

    monkeypatch.setattr(loading, "explanation_labels", names)
    sparsify(hub.repo("lmms-lab/llama3-llava-next-8b-hf-sae-131k") / "model.layers.24", num_latents=96)
    assert load_sae("lmms-lab/llama3-llava-next-8b-hf-sae-131k").labels.get(7).text == "bread"
    assert asked == [("lmms-lab/llava-sae-explanations-5k", "model.layers.24", 96)]
    sparsify(hub.repo("lab/another") / "model.layers.24", num_latents=96)
    assert not load_sae("lab/another").labels.names
    assert len(asked) == 1


def test_a_repository_of_pickles(hub):
    (hub.repo("me/pickles") / "sae_layer8.pkl").write_bytes(b"x")
    (hub.repo("me/pickles") / "cfg.json").write_text("{}")
    with pytest.raises(InterpError, match=r"holds only pickles \(sae_layer8.pkl\)"):
        load_sae("me/pickles")
    assert not any("resolve" in path for path in hub.asked)
    hub.repo("me/empty")
    with pytest.raises(InterpError, match="holds no SAE"):
        load_sae("me/empty")


def test_a_repository_that_does_not_exist(hub, saved):
    with pytest.raises(InterpError, match="There is no repository 'me/nothing'"):
        load_sae("me/nothing/folder")
    copy(saved["standard"], hub.root / "me" / "one")
    with pytest.raises(InterpError, match="'me/one' has no revision 'v9'"):
        load_sae("me/one", revision="v9")
    assert load_sae("me/one", revision="main").layer == 3
    for odd in ("me/on e", "a//b", "me/../one", "-/--"):
        with pytest.raises(InterpError, match=r"neither a folder nor the id of a repository|There is no repository"):
            load_sae(odd)


def test_truncated_weights_on_the_hub(hub, saved):
    folder = copy(saved["standard"], hub.root / "me" / "cut")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(InterpError, match="The SAE in 'me/cut' cannot be read"):
        load_sae("me/cut")


def test_without_the_hub_what_was_fetched_before_is_used(saved, tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    copy(saved["standard"], hub.root / "me" / "one" / "layers.3")
    copy(saved["topk"], hub.root / "me" / "one" / "layers.4")
    with serve(hub) as url:
        point_at(monkeypatch, url, tmp_path / "cache")
        load_sae("me/one/layers.3")
    for offline, why in ((False, "refused"), (True, "HF_HUB_OFFLINE")):
        point_at(monkeypatch, url, tmp_path / "cache", offline=offline)
        start = time.monotonic()
        assert load_sae("me/one", layer=3).name == "me/one/layers.3"
        with pytest.raises(
            InterpError, match=f"'me/two' is not in the cache.*{why}.*Connect to the internet, or give the folder of a copy"
        ):
            load_sae("me/two")
        with pytest.raises(InterpError, match="holds no SAE"):
            load_sae("me/one/layers.4")
        assert time.monotonic() - start < 3


# --- releases of sae-lens ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def release(monkeypatch):
    """Adds a release to sae-lens' own table."""
    directory = loading._directory()
    lookup = type(directory["gemma-2b-res-jb"])

    def add(ids, conversion_func=None, **options):
        empty = {"expected_var_explained": {}, "expected_l0": {}, "neuronpedia_id": {}, "norm_scaling_factor": {}, "config_overrides": None}
        known = lookup("our-release", "me/release", "some-model", conversion_func, ids, **(empty | options))
        monkeypatch.setitem(directory, "our-release", known)

    return add


def test_a_release(hub, release, saved, no_names_from_the_network):
    folder = copy(saved["jumprelu"], hub.repo("me/release") / "some" / "path")
    save_file({"sparsity": torch.full((D_SAE,), -2.0)}, folder / "sparsity.safetensors")
    ids = {"blocks.3.hook_resid_post": "some/path", "blocks.4.hook_resid_post": "none"}
    release(ids, expected_var_explained={"blocks.3.hook_resid_post": 0.75}, neuronpedia_id={"blocks.3.hook_resid_post": "m/3-res"})
    for source, layer in (("our-release/blocks.3.hook_resid_post", None), ("our-release", 3), ("our-release/", 3)):
        sae = load_sae(source, layer=layer)
        assert (sae.name, sae.layer, sae.neuronpedia_id) == ("our-release/blocks.3.hook_resid_post", 3, "m/3-res")
        assert sae.trained == {"all": SaeMetrics(0.75, None)}
        assert sae.density.tolist() == pytest.approx([0.01] * D_SAE)
        assert sae.labels.about == "from afar"
        agrees(sae, theirs(saved["jumprelu"]))
    assert no_names_from_the_network == [("m/3-res", D_SAE)] * 3
    with pytest.raises(InterpError, match="reads layer 3; layer 4"):
        load_sae("our-release/blocks.3.hook_resid_post", layer=4)
    with pytest.raises(InterpError, match=r"holds 2 SAEs \(blocks.3.hook_resid_post, blocks.4"):
        load_sae("our-release")
    with pytest.raises(InterpError, match=r"has no SAE 'blocks.5.hook_resid_post'"):
        load_sae("our-release/blocks.5.hook_resid_post")
    with pytest.raises(InterpError, match=r"'me/release' has no file 'none/cfg\.json'"):
        load_sae("our-release/blocks.4.hook_resid_post")
    with pytest.raises(InterpError, match="revision is 'main', but 'our-release' is a release"):
        load_sae("our-release/blocks.3.hook_resid_post", revision="main")


def test_a_release_without_the_hub_is_read_from_the_cache_or_refused_with_no_retries(release, saved, tmp_path, monkeypatch):
    """huggingface_hub would try every file again for 25 seconds; not even one pause is left here."""
    hub = Hub(tmp_path / "hub")
    copy(saved["jumprelu"], hub.repo("me/release") / "a")
    release({"blocks.3.hook_resid_post": "a", "blocks.4.hook_resid_post": "b"})
    with serve(hub) as url:
        point_at(monkeypatch, url, tmp_path / "cache")
        online = load_sae("our-release/blocks.3.hook_resid_post")
    point_at(monkeypatch, url, tmp_path / "cache")

    def waited(_seconds):
        raise AssertionError("a retry")

    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited)
    assert torch.equal(load_sae("our-release/blocks.3.hook_resid_post").W_dec, online.W_dec)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(InterpError, match=r"'me/release' is not complete in \S+cache, and the hub cannot be reached\. Connect"):
        load_sae("our-release/blocks.4.hook_resid_post")
    point_at(monkeypatch, url, tmp_path / "empty")
    with pytest.raises(InterpError, match=r"'me/release' is not in the cache, and the Hugging Face hub cannot be reached"):
        load_sae("our-release/blocks.3.hook_resid_post")


def test_a_gated_repository_of_saes_says_where_its_licence_is(model_hub, saved):
    copy(saved["standard"], model_hub.root / "me" / "gated")
    model_hub.gated.add("me/gated")
    with pytest.raises(InterpError, match=r"'me/gated' is gated: accept its licence at http://127\S+/me/gated, then log in"):
        load_sae("me/gated")


def test_several_of_a_layer_in_a_release_are_not_chosen_between(release):
    release({"layer_3_width_16k_l0_big": "a", "layer_3_width_65k_l0_big": "b", "layer_4_width_16k_l0_big": "c"})
    with pytest.raises(InterpError, match=r"holds 2 SAEs of layer 3 \(layer_3_width_16k_l0_big, layer_3_width_65k_l0_big\)"):
        load_sae("our-release", layer=3)


@pytest.mark.parametrize("factor", [0.25, None])
def test_a_release_with_a_norm_scaling_factor(factor, hub, release, tmp_path):
    build("standard", normalize_activations="expected_average_only_in").save_model(hub.repo("me/release") / "a")
    release({"a": "a"}, norm_scaling_factor={"a": factor} if factor else {})
    if not factor:
        with pytest.raises(InterpError, match="norm_scaling_factor"):
            load_sae("our-release/a")
        return
    sae = load_sae("our-release/a")
    with torch.no_grad():
        z = theirs(hub.repo("me/release") / "a").encode(states() * factor)
    torch.testing.assert_close(dense(sae.encode(states()), D_SAE), z, rtol=1e-4, atol=1e-4)


def test_a_release_is_refused_before_its_weights_are_fetched(hub, release):
    build("standard", hook="blocks.3.hook_mlp_out").save_model(hub.repo("me/release") / "a")
    release({"a": "a"})
    with pytest.raises(InterpError, match=r"'blocks.3.hook_mlp_out', which is not a residual stream"):
        load_sae("our-release/a")
    assert any("cfg.json" in path for path in hub.asked)
    assert not any(WEIGHTS in path for path in hub.asked)


def test_a_release_in_the_format_of_sparsify(hub, release):
    raw = sparsify(hub.repo("me/release") / "layers.5")
    release({"five": "layers.5"}, "sparsify")
    sae = load_sae("our-release/five")
    assert sae.layer == 5
    torch.testing.assert_close(sae.decode(sae.encode(states())), sparsify_answer(raw, states())[1], rtol=1e-4, atol=1e-4)


def test_a_large_release_is_kept_in_bfloat16(hub, release, saved, monkeypatch):
    copy(saved["standard"], hub.repo("me/release") / "a")
    release({"a": "a"})
    monkeypatch.setattr(formats, "_LARGE", 100)
    assert load_sae("our-release/a").W_enc.dtype == torch.bfloat16
    assert load_sae("our-release/a", dtype="float32").W_enc.dtype == torch.float32


def test_a_release_of_numpy_archives(hub, release, monkeypatch):
    folder = hub.repo("google/gemma-scope-2b-pt-res") / "layer_4" / "width_4k"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    shapes = {"W_enc": (2304, 4096), "W_dec": (4096, 2304), "b_enc": 4096, "b_dec": 2304, "threshold": 4096}
    np.savez(folder / "params.npz", **{name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()})
    release({"four": "layer_4/width_4k"}, "gemma_2")
    directory = loading._directory()
    monkeypatch.setattr(directory["our-release"], "repo_id", "google/gemma-scope-2b-pt-res")
    sae = load_sae("our-release/four")
    assert (sae.layer, sae.activation, sae.subtract_b_dec, sae.d_sae) == (4, "jumprelu", False, 4096)


@pytest.mark.parametrize("loader", ["connor_rob_hook_z", "deepseek_r1", "dictionary_learning_1", "goodfire", "qwen_scope"])
def test_pickled_releases_are_refused(loader, hub, release):
    release({"a": "a.pt"}, loader)
    with pytest.raises(InterpError, match="'our-release' is published as pickles"):
        load_sae("our-release/a")
    assert hub.asked == []


def test_every_reader_of_sae_lens_that_unpickles_is_known():
    loaders = formats.loaders()

    def unpickles(function, seen=()):
        called = [getattr(loaders, name, None) for name in function.__code__.co_names]
        inner = [f for f in called if isinstance(f, types.FunctionType) and f.__module__ == loaders.__name__ and f not in seen]
        return "torch.load(" in inspect.getsource(function) or any(unpickles(f, (*seen, function)) for f in inner)

    found = {name for name, reader in loaders.NAMED_PRETRAINED_SAE_LOADERS.items() if unpickles(reader)}
    assert found == loading._PICKLED_RELEASES


def test_sae_lens_is_the_same_module_each_time():
    assert loading.import_sae_lens() is loading.import_sae_lens()
