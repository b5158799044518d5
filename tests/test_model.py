import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import (
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

import interp
from interp import InterpError
from interp.presets import PRESETS
from tests import tiny
from tests.conftest import PROMPT

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def processor():
    return tiny.build("crop")[1]


@pytest.fixture(scope="module")
def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, vocab_size=300))


@pytest.fixture(scope="module")
def idefics2():
    text = {**SMALL, "num_key_value_heads": 2, "vocab_size": 300, "model_type": "mistral", "pad_token_id": 0}
    perceiver = {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 16}
    vision = {**SMALL, "image_size": 28, "patch_size": 14}
    return Idefics2ForConditionalGeneration(
        Idefics2Config(text_config=text, vision_config=vision, perceiver_config=perceiver | {"num_key_value_heads": 2}, image_token_id=2)
    )


def test_layouts_that_are_not_understood_are_refused_by_name(llama, idefics2, processor):
    for held in (processor, processor.tokenizer):
        with pytest.raises(InterpError, match=r"LlamaForCausalLM \(model_type 'llama'\) is not supported.*llava"):
            interp.Vlm(llama, held)
    with pytest.raises(InterpError, match=r"Idefics2ForConditionalGeneration \(model_type 'idefics2'\) is not supported"):
        interp.Vlm(idefics2, processor)


def test_missing_parts_are_named(processor, monkeypatch):
    model, _ = tiny.build("crop")
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda _self: None)
    with pytest.raises(InterpError, match="LlavaForConditionalGeneration has no output embeddings"):
        interp.Vlm(model, processor)


def test_a_processor_without_a_tokenizer_is_refused(processor):
    with pytest.raises(InterpError, match="tokenizer"):
        interp.Vlm(tiny.build("crop")[0], processor.image_processor)


def test_folders_with_another_family_are_refused(llama, idefics2, processor, tmp_path):
    with pytest.raises(InterpError, match=r"Unrecognized configuration class|llama"):
        interp.load(tiny.save(tmp_path / "llama", llama, processor.tokenizer), device="cpu")
    with pytest.raises(InterpError, match=r"idefics2|Idefics2"):
        interp.load(tiny.save(tmp_path / "idefics2", idefics2, processor), device="cpu")


def test_a_model_in_hand_gives_what_its_checkpoint_gives(checkpoint, picture, trace):
    model = LlavaForConditionalGeneration.from_pretrained(checkpoint("crop"))
    vlm = interp.Vlm(model.train(), tiny.build("crop")[1])
    assert not model.training  # dropout would change what is seen
    held = vlm.trace(picture, PROMPT, max_new_tokens=6)
    assert held.answer == trace.answer
    assert torch.equal(held.states, trace.states)
    assert interp.Vlm(model, vlm.processor, name="mine").name == "mine"
    assert interp.Vlm(tiny.build("crop")[0], vlm.processor).name == "LlavaForConditionalGeneration"


def test_a_changed_model_is_traced_as_changed(picture, trace):
    model, processor = tiny.build("crop")
    with torch.no_grad():
        model.get_decoder().layers[1].mlp.down_proj.weight.mul_(3)
    changed = interp.Vlm(model, processor).trace(picture, PROMPT, max_new_tokens=6)
    assert torch.equal(changed.residual(0)[:20], trace.residual(0)[:20])
    assert not torch.allclose(changed.residual(1)[:20], trace.residual(1)[:20])


@pytest.mark.parametrize("name", ["crop", "pad", "stretch", "interleave", "ignored cap", "padded"])
def test_parts(load, name):
    vlm = load(name)
    assert (vlm.depth, vlm.width, vlm.context, vlm.default_layer) == (3, 64, 192, 1)
    assert len(vlm.vocabulary.texts) == vlm.head.weight.shape[0]
    assert vlm.end_ids == {vlm.tokenizer.eos_token_id}
    assert vlm.model.device.type == "cpu"
    assert not vlm.model.training
    assert "Pil" in type(vlm.processor.image_processor).__name__  # the same pixels on every machine


@pytest.mark.parametrize(("depth", "layer"), [(1, 0), (2, 1), (8, 5), (24, 17), (32, 23), (40, 29)])
def test_the_default_layer_is_about_three_quarters_deep(vlm, monkeypatch, depth, layer):
    monkeypatch.setattr(vlm, "layers", [None] * depth)
    assert vlm.default_layer == layer
    for preset in PRESETS.values():
        if preset.layers == depth:
            assert preset.default_layer == layer


@pytest.mark.parametrize("name", ["crop", "interleave"])
def test_prepare_is_what_the_chat_template_and_the_processor_give(load, picture, name):
    vlm = load(name)
    inputs = vlm.prepare(picture, PROMPT)
    turn = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": PROMPT}]}]
    expected = vlm.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
    assert set(inputs) <= set(expected)
    for key in inputs:
        assert torch.equal(inputs[key], expected[key]), key
    assert len(inputs) == len(dict(inputs))
    output = vlm.model.generate(**inputs, max_new_tokens=3, do_sample=False)  # a mapping that the model takes as it is
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3


def test_begin_of_text_comes_once(load, picture):
    """Some templates write it, some leave it to the tokenizer."""
    vlm = load("crop")
    begin = vlm.tokenizer.bos_token_id
    plain = vlm.prepare(picture, PROMPT)["input_ids"]
    processor = tiny.build("crop")[1]
    processor.chat_template = "{{ bos_token }}" + tiny.LLAVA_TEMPLATE
    written = interp.Vlm(vlm.model, processor).prepare(picture, PROMPT)["input_ids"]
    for ids in (plain, written):
        assert (ids == begin).sum() == 1
        assert ids[0, 0] == begin
    assert torch.equal(plain, written)


@pytest.mark.parametrize("prompt", ["", "  ", "\n", None, 3, ["a"]], ids=repr)
def test_empty_prompts_are_refused(vlm, picture, prompt):
    with pytest.raises(InterpError, match="prompt is empty"):
        vlm.prepare(picture, prompt)


@pytest.mark.parametrize("prompt", ["<image>", "Describe <image> this", "<image><image>"])
@pytest.mark.parametrize("name", ["crop", "interleave"])
def test_the_pictures_placeholder_is_refused_in_a_prompt(load, picture, prompt, name):
    with pytest.raises(InterpError, match="<image>"):
        load(name).prepare(picture, prompt)


@pytest.mark.parametrize("prompt", ["é 🐶 \t\n ok", "</div><script>alert(1)</script>", "{{ bos_token }} {% raw %}", "USER: x ASSISTANT: y"])
def test_any_other_text_is_legal(vlm, picture, prompt):
    trace = vlm.trace(picture, prompt, max_new_tokens=1)
    assert trace.prompt == prompt
    ids = [token.id for token in trace.tokens if token.kind == "prompt"]
    assert prompt in vlm.tokenizer.decode(ids)


def test_a_prompt_longer_than_the_context_is_refused(vlm, picture):
    with pytest.raises(InterpError, match=r"has room for 192\. Shorten the prompt by about \d+ tokens"):
        vlm.prepare(picture, "z" * 400)
    room = vlm.context - vlm.prepare(picture, "z")["input_ids"].shape[1]
    fits = vlm.prepare(picture, "z" * (room + 1))
    assert fits["input_ids"].shape[1] == vlm.context
    with pytest.raises(InterpError):
        vlm.prepare(picture, "z" * (room + 2))
    with pytest.raises(InterpError, match="1 new ones"):
        vlm.trace(picture, "z" * (room + 1), max_new_tokens=1)
    with pytest.raises(InterpError, match="has room for 192"):
        vlm.trace(picture, PROMPT, answer="z" * 200)
    assert vlm.trace(picture, "z" * room, max_new_tokens=1).states.shape[1] == vlm.context - 1


@pytest.mark.parametrize("new", [0, -1, True, False, "3", 3.0, None], ids=repr)
def test_bad_max_new_tokens(vlm, picture, new):
    with pytest.raises(InterpError, match="max_new_tokens is"):
        vlm.trace(picture, PROMPT, max_new_tokens=new)


def test_max_new_tokens_beyond_the_context(vlm, picture):
    prompt = vlm.prepare(picture, PROMPT)["input_ids"].shape[1]
    with pytest.raises(InterpError, match="ask for fewer new ones"):
        vlm.trace(picture, PROMPT, max_new_tokens=vlm.context - prompt + 1)
    assert len(vlm.trace(picture, PROMPT, max_new_tokens=vlm.context - prompt).tokens) == vlm.context


def test_a_processor_without_a_chat_template_says_so(vlm, picture):
    processor = tiny.build("crop")[1]
    processor.chat_template = None
    with pytest.raises(InterpError, match="no chat template"):
        interp.Vlm(vlm.model, processor).prepare(picture, PROMPT)


@pytest.mark.parametrize("name", ["no-such-model", "emoji_llava", "", ".", "/nowhere/at/all", "someone/no-such-model", "a/b/c", "../x"])
def test_unknown_checkpoints_are_refused(name):
    with pytest.raises(InterpError, match=r"emoji-llava|holds no checkpoint"):
        interp.load(name)


@pytest.mark.parametrize("name", [None, 3, ["emoji-llava"]], ids=repr)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InterpError):
        interp.load(name)


def test_a_path_object_is_a_folder_too(checkpoint):
    assert interp.load(Path(checkpoint("crop")), device="cpu").depth == 3


@pytest.mark.parametrize("quantize", ["8bit", "", None, True, 4, "4BIT"], ids=repr)
def test_bad_quantize(quantize):
    with pytest.raises(InterpError, match=r"must be 'auto', '4bit' or 'none'"):
        interp.load("emoji-llava", quantize=quantize)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:99", "meta", None, 3], ids=repr)
def test_bad_devices(checkpoint, device):
    with pytest.raises(InterpError, match="device is"):
        interp.load(checkpoint("crop"), device=device)


def test_auto_is_not_quantised_on_a_cpu(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    vlm = interp.load(checkpoint("crop"))
    assert vlm.model.device.type == "cpu"
    assert not getattr(vlm.model.config, "quantization_config", None)
    assert vlm.model.dtype == torch.float32
    with pytest.raises(InterpError, match="torch sees no CUDA device"):
        interp.load(checkpoint("crop"), device="cuda")


def test_a_folder_of_pickles_is_refused(checkpoint_copy):
    weights = checkpoint_copy / "model.safetensors"
    torch.save(safetensors.torch.load_file(weights), checkpoint_copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InterpError, match="safetensors"):
        interp.load(str(checkpoint_copy), device="cpu")


def test_code_in_a_checkpoint_is_not_run(checkpoint_copy):
    config = json.loads((checkpoint_copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}}
    (checkpoint_copy / "config.json").write_text(json.dumps(config))
    (checkpoint_copy / "evil.py").write_text("raise SystemExit('code of the checkpoint was run')")
    with pytest.raises(InterpError):
        interp.load(str(checkpoint_copy), device="cpu")


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "nonsense"])
def test_damaged_folders_are_refused(checkpoint_copy, file, damage):
    path = checkpoint_copy / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "nonsense": b"nonsense" * 9}[damage])
    with pytest.raises(InterpError, match="holds no checkpoint that can be loaded"):
        interp.load(str(checkpoint_copy), device="cpu")


@pytest.mark.parametrize("change", ["missing", "misshapen"])
def test_weights_that_do_not_fit_are_refused(checkpoint_copy, change):
    """transformers would fill them with random numbers and go on: a lens of noise, with the model's name on it."""
    weights = safetensors.torch.load_file(checkpoint_copy / "model.safetensors")
    name = next(key for key in weights if key.endswith("layers.1.mlp.up_proj.weight"))
    if change == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:-8].clone()
    safetensors.torch.save_file(weights, checkpoint_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InterpError, match="up_proj"):
        interp.load(str(checkpoint_copy), device="cpu")


def test_presets_say_what_is_true(emoji_vlm):
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert 0 <= preset.default_layer < preset.layers
        assert preset.proved in {"real weights", "shape"}
    preset = PRESETS["emoji-llava"]
    assert (emoji_vlm.depth, emoji_vlm.default_layer) == (preset.layers, preset.default_layer)
    assert emoji_vlm.name == "emoji-llava"
    bytes_held = sum(parameter.nbytes for parameter in emoji_vlm.model.parameters())
    assert bytes_held < preset.memory_gb(cpu=True) * 1e9


def test_the_embedded_model_in_four_bit(emoji_vlm, picture):
    vlm = interp.load("emoji-llava", quantize="4bit", device="cpu")
    kinds = {name for name, module in vlm.model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert kinds
    assert all(name.startswith("model.language_model.layers.") for name in kinds)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    lens = interp.logit_lens(trace, top_k=3)
    logits = tiny.naive_logits(vlm, trace)
    torch.testing.assert_close(lens.log_z, logits.logsumexp(-1), atol=1e-3, rtol=1e-4)
    plain = emoji_vlm.trace(picture, PROMPT, max_new_tokens=3)
    assert torch.equal(trace.residual(interp.EMBED)[:64], plain.residual(interp.EMBED)[:64])  # tower and projector are as they were
    assert not torch.equal(trace.residual(0)[:64], plain.residual(0)[:64])
