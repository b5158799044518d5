"""Models with a LoRA adapter of PEFT: they compute what PEFT computes, are read like any other, and are never taken for their base."""

import json
import pickle
import shutil
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer

import interp
from interp import InterpError
from interp.attention.values import matrix
from interp.models import loading
from interp.models.adapters import CONFIG, WEIGHTS, find_adapter
from interp.models.four_bit import differentiable
from interp.models.identity import state_key
from tests import adapters, families, tiny
from tests.conftest import PROMPT

REPO = "someone/adapter"
DECODER = r".*language_model.*\.(q_proj|v_proj|down_proj)"
CHANGES = {
    "attention": {},
    "every layer": {"targets": "all-linear"},
    "the decoder": {"targets": DECODER},
    "the tower": {"targets": r".*vision_tower.*\.(q_proj|out_proj)"},
    "the head": {"targets": ("q_proj", "lm_head")},
    "the embedding": {"targets": ("o_proj", "embed_tokens")},
    "both ends, tied": {"targets": ("o_proj", "embed_tokens"), "ensure_weight_tying": True},
    "a whole head": {"modules_to_save": ["lm_head"]},
    "a whole projector": {"modules_to_save": ["linear_2"]},
    "biases": {"bias": "all"},
    "DoRA": {"use_dora": True},
    "other ranks": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "some layers": {"targets": ("gate_proj",), "layers_to_transform": [1], "layers_pattern": "layers"},
}


def logits(model, inputs):
    with torch.inference_mode():
        return model(**inputs).logits


def adapted_layers(model):
    return {name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def edit(folder, **changes):
    path = Path(folder) / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def made(checkpoint, tmp_path):
    """The folder of an adapter of the tiny checkpoint "crop", which a test may spoil."""
    adapters.save(tmp_path / "adapter", checkpoint("crop"))
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("crop", change) for change in CHANGES),
        # Its head is tied to its embedding.
        *(("interleave", change) for change in ("every layer", "the head", "the embedding", "both ends, tied", "a whole head")),
    ],
)
def test_it_computes_what_peft_computes_and_is_a_plain_model(checkpoint, load, picture, tmp_path, name, change):
    theirs = adapters.save(tmp_path, checkpoint(name), **CHANGES[change])
    vlm = interp.load(checkpoint(name), adapter=tmp_path, device="cpu")
    base = load(name)
    inputs = base.prepare(picture, PROMPT)
    expected = logits(theirs, inputs)
    torch.testing.assert_close(logits(vlm.model, inputs), expected, atol=2e-4, rtol=1e-4)
    assert (expected - logits(base.model, inputs)).abs().max() > 0.1
    assert [(n, type(m)) for n, m in vlm.model.named_modules()] == [(n, type(m)) for n, m in base.model.named_modules()]
    assert all(weight.requires_grad for weight in vlm.model.parameters())
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    lens = interp.logit_lens(trace, top_k=3)
    torch.testing.assert_close(lens.log_z, tiny.naive_logits(vlm, trace).logsumexp(-1), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("change", ["the head", "both ends, tied", "a whole head"])
def test_a_tied_head_that_is_changed_alone_leaves_the_embedding_alone(checkpoint, load, tmp_path, change):
    adapters.save(tmp_path / "adapter", checkpoint("interleave"), **CHANGES[change])
    vlm, base = interp.load(checkpoint("interleave"), adapter=tmp_path / "adapter", device="cpu"), load("interleave").model
    embedding = vlm.model.get_input_embeddings().weight
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight
    assert torch.equal(embedding, base.get_input_embeddings().weight) == (change != "both ends, tied")
    assert not torch.equal(embedding, vlm.head.weight) or change == "both ends, tied"
    vlm.model.save_pretrained(tmp_path / "merged")  # and can be saved and loaded by itself
    vlm.processor.save_pretrained(tmp_path / "merged")
    again = interp.load(tmp_path / "merged", device="cpu")
    assert torch.equal(again.head.weight, vlm.head.weight)
    assert torch.equal(again.model.get_input_embeddings().weight, embedding)


def test_in_sixteen_bit_it_is_added_in_full_precision(checkpoint, tmp_path):
    theirs = adapters.save(tmp_path, checkpoint("crop"))
    model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint("crop"), dtype=torch.bfloat16)
    find_adapter(str(tmp_path), []).put_on(model)
    assert model.dtype == torch.bfloat16
    for name, weight in theirs.merge_and_unload().named_parameters():
        found = model.get_parameter(name)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), weight, atol=2**-8 * float(weight.abs().max()), rtol=2**-7)


@pytest.mark.parametrize("change", ["the decoder", "the embedding", "biases", "the head"])
def test_in_four_bit_only_the_four_bit_layers_keep_it_beside_them(checkpoint, load, picture, tmp_path, change):
    options = CHANGES[change] | ({"targets": r".*language_model.*\.q_proj|lm_head"} if change == "the head" else {})
    adapters.save(tmp_path, checkpoint("crop"), **options)
    vlm = interp.load(checkpoint("crop"), adapter=tmp_path, quantize="4bit", device="cpu")
    theirs = peft.PeftModel.from_pretrained(interp.load(checkpoint("crop"), quantize="4bit", device="cpu").model, tmp_path)
    inputs = vlm.prepare(picture, PROMPT)
    found = logits(vlm.model, inputs)  # bitsandbytes computes in bfloat16, in which a merged number may round otherwise
    torch.testing.assert_close(found, logits(theirs, inputs), atol=0.05, rtol=1e-2)
    assert (found - logits(load("crop", "4bit").model, inputs)).abs().max() > 0.5
    layers = [vlm.model.get_submodule(name) for name in adapted_layers(vlm.model)]
    assert layers
    assert all(type(layer.get_base_layer()).__name__ == "Linear4bit" for layer in layers)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    lens = interp.logit_lens(trace, top_k=3)
    torch.testing.assert_close(lens.log_z, tiny.naive_logits(vlm, trace).logsumexp(-1), atol=1e-3, rtol=1e-4)
    ids = lens.ids[-1, :, 0]
    states = trace.residual(trace.n_layers - 1)
    torch.testing.assert_close(vlm.unembed.some_logits(states, ids), vlm.unembed.logits(states)[:, ids])
    push = interp.Edit(vector=torch.ones(vlm.d_model), layer=1, strength=0)
    assert set(interp.steer(vlm, picture, PROMPT, [push], max_new_tokens=3).kl) == {0.0}


def test_gradients_flow_through_a_four_bit_layer_and_its_adapter(checkpoint, tmp_path):
    adapters.save(tmp_path, checkpoint("crop"), targets=DECODER)
    vlm = interp.load(checkpoint("crop"), adapter=tmp_path, quantize="4bit", device="cpu")
    layer = vlm.blocks[1].self_attn.q_proj
    states = torch.randn(3, vlm.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer(states)  # on a CPU, bitsandbytes packs the weights when they are used first
        whole = matrix(layer, states)
    pull = torch.randn(3, len(whole), generator=torch.Generator().manual_seed(1))
    states.requires_grad_()
    with differentiable(vlm.blocks):
        (layer(states) * pull).sum().backward()
    torch.testing.assert_close(states.grad, pull @ whole, atol=0.05, rtol=0.02)
    change = layer.lora_B.default.weight @ layer.lora_A.default.weight * layer.scaling["default"]
    assert (states.grad - pull @ (whole - change)).abs().max() > 0.5


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_takes_one(family, picture, tmp_path):
    vlm = families.vlm(family)
    inputs = vlm.prepare(picture, PROMPT)
    theirs = adapters.put_on(families.build(family)[0], targets=r".*language_model.*\.(q_proj|o_proj|in_proj_qkv|out_proj)|lm_head")
    theirs.save_pretrained(tmp_path)
    model = families.build(family)[0]
    found = find_adapter(str(tmp_path), [])
    found.check(model, four_bit=False)
    found.put_on(model)
    assert not adapted_layers(model)
    torch.testing.assert_close(logits(model, inputs), logits(theirs, inputs), atol=5e-4, rtol=1e-3)
    assert (logits(model, inputs) - logits(vlm.model, inputs)).abs().max() > 0.01


def test_names_of_layers_from_before_transformers_5_are_understood(checkpoint, made):
    folder, new = made, safetensors.torch.load_file(made / WEIGHTS)
    expected = interp.load(checkpoint("crop"), adapter=folder, device="cpu")
    old = {
        name.replace("model.model.language_model.", "model.language_model.model.").replace(
            "model.model.vision_tower.", "model.vision_tower."
        ): w
        for name, w in new.items()
    }
    assert not set(old) & set(new)
    safetensors.torch.save_file(old, folder / WEIGHTS)
    found = interp.load(checkpoint("crop"), adapter=folder, device="cpu")
    pairs = zip(found.model.parameters(), expected.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_it_comes_from_the_hub_too_and_is_checked_before_the_model_is_downloaded(model_hub, checkpoint, made):
    shutil.copytree(checkpoint("crop"), model_hub.repo("someone/vlm"), dirs_exist_ok=True)
    shutil.copytree(made, model_hub.repo(REPO), dirs_exist_ok=True)
    said = []
    vlm = interp.load("someone/vlm", adapter=REPO, device="cpu", on_progress=said.append)
    assert vlm.names == (f"someone/vlm + {REPO}",) * 2
    assert said[:2] == ["Asking the hub for someone/vlm …", f"Asking the hub for {REPO} …"]
    assert said[-1] == f"Loading someone/vlm + {REPO} …"
    shutil.copytree(checkpoint("pad"), model_hub.repo("someone/other"), dirs_exist_ok=True)
    model_hub.sent.clear()
    edit(made, r=8)
    with pytest.raises(InterpError, match="does not fit this base"):
        interp.load("someone/other", adapter=made, device="cpu")
    assert not any(file == "model.safetensors" for file, _ in model_hub.sent)
    with pytest.raises(InterpError, match=r"There is no repository 'someone/nothing'"):
        interp.load("someone/vlm", adapter="someone/nothing", device="cpu")
    with pytest.raises(InterpError, match=rf"'{REPO}' holds no model: .* It holds an adapter: load its base with adapter='{REPO}'\."):
        interp.load(REPO, device="cpu")
    model_hub.down = 503
    assert interp.load("someone/vlm", adapter=REPO, device="cpu").n_layers == 3  # from the cache
    with pytest.raises(InterpError, match=r"'someone/new' is not in the cache, and the Hugging Face hub cannot be reached"):
        interp.load("someone/vlm", adapter="someone/new", device="cpu")


def test_its_name_names_both_and_loads_both(checkpoint, made, vlm, picture, tmp_path):
    found = interp.load(checkpoint("crop"), adapter=made, device="cpu")
    assert found.name == f"{checkpoint('crop')} + {made}"
    assert found.names == (found.name, found.name)
    again = interp.load(found.name, device="cpu")
    assert again.name == found.name
    assert state_key(again) != state_key(vlm)
    trace = found.trace(picture, PROMPT, max_new_tokens=2)
    assert trace.model_name == found.name
    trace.save(tmp_path / "trace")
    assert interp.Trace.load(tmp_path / "trace", vlm=again).answer == trace.answer
    with pytest.raises(InterpError, match="differ from its own"):
        interp.Trace.load(tmp_path / "trace", vlm=vlm)


def test_a_folder_may_have_a_plus_in_its_name(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("crop"), tmp_path / "this + that")
    assert interp.load(folder, device="cpu").name == str(folder)


@pytest.mark.parametrize("saved", ["base", "adapted"])
def test_traces_in_four_bit_are_told_apart(checkpoint, made, picture, tmp_path, saved):
    """What differs is beside the weights, and the weights themselves cannot be compared."""
    base, adapted = (interp.load(checkpoint("crop"), adapter=each, quantize="4bit", device="cpu") for each in (None, made))
    own, other = (base, adapted) if saved == "base" else (adapted, base)
    own.trace(picture, PROMPT, max_new_tokens=2).save(tmp_path / "trace")
    interp.Trace.load(tmp_path / "trace", vlm=own)
    with pytest.raises(InterpError, match="differ from its own"):
        interp.Trace.load(tmp_path / "trace", vlm=other)


def test_an_sae_of_the_base_says_that_it_is_not_of_the_fine_tune(emoji_vlm):
    sae = interp.load_sae("emoji-llava")
    assert not sae.notes_for(emoji_vlm.names)
    for adapter in ("emoji-llava-adapter", "someone/emoji-llava"):
        names = tuple(f"{base} + {adapter}" for base in emoji_vlm.names)
        assert sae.notes_for(names) == ["trained on another model: emoji-llava"]


def test_an_adapter_beside_the_weights_is_not_put_on_unasked(checkpoint_copy, made, vlm, picture):
    shutil.copy(made / CONFIG, checkpoint_copy)
    (checkpoint_copy / "adapter_model.bin").write_bytes(pickle.dumps(Explosive()))
    found = interp.load(checkpoint_copy, device="cpu")
    assert torch.equal(found.trace(picture, PROMPT, max_new_tokens=2).states, vlm.trace(picture, PROMPT, max_new_tokens=2).states)


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


def test_pickles_are_refused(checkpoint, made):
    (made / WEIGHTS).unlink()
    with pytest.raises(InterpError, match=r"it has no weights: there is no adapter_model\.safetensors"):
        interp.load(checkpoint("crop"), adapter=made, device="cpu")
    (made / "adapter_model.bin").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(
        InterpError, match=r"only a pickle \(adapter_model\.bin\), which can run code .* Use a revision or a copy with safetensors"
    ):
        interp.load(checkpoint("crop"), adapter=made, device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, r"of type 'LOHA', and only 'LORA' is supported\. Merge it into its base"),
        ({"peft_type": None}, r"of type None"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, r"sets megatron_config, which is not supported"),
        ({"layer_replication": [[0, 2]]}, r"sets layer_replication"),
        ({"trainable_token_indices": [1]}, r"sets trainable_token_indices"),
        ({"of_next_year": 3}, r"sets of_next_year, which is not supported"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights='pissa', which changes the base's own weights"),
        (
            {"base_model_name_or_path": "Qwen/Qwen2-VL-7B-Instruct"},
            r"was trained on 'Qwen/Qwen2-VL-7B-Instruct', not on 'someone/vlm'\. .* change base_",
        ),
        ({"target_modules": ["nowhere"]}, r"does not fit this base: .*nowhere.* not found in the base model"),
        ({"target_modules": ["q_proj"]}, r"does not fit this base: \d+ of its weights belong to no layer of it, such as .*v_proj"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, r"has no weights for \d+ of the layers that it changes, such as .*o_proj"),
        ({"modules_to_save": ["lm_head"]}, r"does not fit this base: it has no weight '.*lm_head"),
        ({"r": 8}, r"does not fit this base: \S+ is 4 x \d+ in the adapter, and for this base it would be 8 x \d+"),
        ({"r": "many"}, r"does not fit this base"),
    ],
)
def test_what_cannot_work_is_refused(model_hub, checkpoint, made, monkeypatch, changes, message):
    shutil.copytree(checkpoint("crop"), model_hub.repo("someone/vlm"), dirs_exist_ok=True)
    monkeypatch.setattr(loading.Ready, "load", lambda *_: pytest.fail("it was loaded"))
    edit(made, **changes)
    with pytest.raises(InterpError, match=message):
        interp.load("someone/vlm", adapter=made, device="cpu")


@pytest.mark.parametrize("name", ["someone/vlm", "another/VLM", "unsloth/vlm-unsloth-bnb-4bit", "/home/someone/model", "checkpoint", None])
def test_another_name_of_its_base_is_no_reason_to_refuse_it(checkpoint, made, name):
    edit(made, base_model_name_or_path=name)
    assert find_adapter(str(made), ["someone/vlm"]).folder == made
    assert find_adapter(str(made), []).folder == made


def test_an_adapter_of_a_wider_model_is_refused(checkpoint, made):
    weights = {name: torch.cat([w, w], dim=1) if "lora_A" in name else w for name, w in safetensors.torch.load_file(made / WEIGHTS).items()}
    safetensors.torch.save_file(weights, made / WEIGHTS)
    with pytest.raises(InterpError, match=r"lora_A\S* is 4 x \d+ in the adapter, .* Give it the base that it was trained on"):
        interp.load(checkpoint("crop"), adapter=made, device="cpu")


@pytest.mark.parametrize("option", [{"use_dora": True}])
def test_what_four_bit_weights_do_not_allow(checkpoint, tmp_path, option):
    adapters.save(tmp_path, checkpoint("crop"), **option)
    with pytest.raises(InterpError, match=rf"sets {next(iter(option))}, which 4-bit weights do not allow\. Load it with quantize='none'"):
        interp.load(checkpoint("crop"), adapter=tmp_path, quantize="4bit", device="cpu")


def test_weights_that_are_not_finite_are_refused(checkpoint, made):
    weights = {name: torch.full_like(w, torch.nan) for name, w in safetensors.torch.load_file(made / WEIGHTS).items()}
    safetensors.torch.save_file(weights, made / WEIGHTS)
    with pytest.raises(InterpError, match=r"cannot be merged into its base: NaNs detected"):
        interp.load(checkpoint("crop"), adapter=made, device="cpu")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "nonsense"])
def test_damaged_adapters_are_refused(checkpoint, made, file, damage):
    path = made / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "nonsense": b"nonsense" * 9}[damage])
    with pytest.raises(InterpError, match=r"cannot be loaded: .*adapter_"):
        interp.load(checkpoint("crop"), adapter=made, device="cpu")


@pytest.mark.parametrize("name", ["no-such-adapter", "", ".", "/nowhere/at/all", "a/b/c", 9999 * "y", 3, ["x"]], ids=repr)
def test_unknown_adapters_are_refused(checkpoint, name):
    with pytest.raises(InterpError, match="adapter"):
        interp.load(checkpoint("crop"), adapter=name, device="cpu")


def test_a_model_and_an_adapter_are_told_apart(checkpoint, made):
    with pytest.raises(InterpError, match=r"there is no adapter_config\.json\. It holds a whole model: load that by itself"):
        interp.load(checkpoint("crop"), adapter=checkpoint("pad"), device="cpu")
    with pytest.raises(InterpError, match=r"there is no config\.json\. It holds an adapter: load its base with adapter="):
        interp.load(made, device="cpu")


def test_the_adapters_bytes_are_counted(checkpoint, made, monkeypatch):
    counted = []
    monkeypatch.setattr(loading, "_check_memory", lambda _name, needed, *_rest: counted.append(needed))
    for adapter in (None, made):
        loading.fetch(checkpoint("crop"), adapter=adapter, device="cpu")
    assert counted[1] - counted[0] == (made / WEIGHTS).stat().st_size


def test_what_is_held_already(checkpoint, load, picture):
    """Adapters in the blocks work unmerged; around the head or the embedding they would hide its weights."""
    processor = load("crop").processor

    def fresh():
        return transformers.AutoModelForImageTextToText.from_pretrained(checkpoint("crop"))

    wrapped = adapters.put_on(fresh(), targets=DECODER)
    with pytest.raises(InterpError, match=r"merge_and_unload\(\) of PEFT"):
        interp.Vlm(wrapped, processor)
    vlm = interp.Vlm(wrapped.get_base_model(), processor)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    log_z = interp.logit_lens(trace).log_z
    torch.testing.assert_close(log_z, tiny.naive_logits(vlm, trace).logsumexp(-1), atol=1e-3, rtol=1e-4)
    merged = interp.Vlm(wrapped.merge_and_unload(), processor)
    again = merged.trace(picture, PROMPT, answer=trace.answer)
    torch.testing.assert_close(again.states, vlm.trace(picture, PROMPT, answer=trace.answer).states, atol=1e-3, rtol=1e-4)
    for end in ("lm_head", "embed_tokens"):
        with pytest.raises(InterpError, match=r"put embeddings of this .* around others, as an adapter makes it"):
            interp.Vlm(adapters.put_on(fresh(), targets=(end,)).get_base_model(), processor)
