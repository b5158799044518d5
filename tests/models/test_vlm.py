import math

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    MllamaConfig,
    MllamaForConditionalGeneration,
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
def mllama():
    text = {**SMALL, "num_key_value_heads": 2, "vocab_size": 300, "cross_attention_layers": [1], "pad_token_id": 0}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14, "vision_output_dim": 64, "intermediate_layers_indices": [0]}
    return MllamaForConditionalGeneration(MllamaConfig(vision_config=vision, text_config=text, image_token_index=2))


def test_layouts_that_are_not_understood_are_refused_by_name(llama, mllama, processor):
    for held in (processor, processor.tokenizer):
        with pytest.raises(InterpError, match=r"LlamaForCausalLM \(model_type 'llama'\) is not supported.*llava"):
            interp.Vlm(llama, held)
    with pytest.raises(
        InterpError, match=r"MllamaForConditionalGeneration \(model_type 'mllama'\) is not supported: it reads .* cross-att"
    ):
        interp.Vlm(mllama, processor)


def test_missing_parts_are_named(processor, monkeypatch):
    model, _ = tiny.build("crop")
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda _self: None)
    with pytest.raises(InterpError, match="LlavaForConditionalGeneration has no output embeddings"):
        interp.Vlm(model, processor)


def test_a_processor_without_a_tokenizer_is_refused(processor):
    with pytest.raises(InterpError, match="tokenizer"):
        interp.Vlm(tiny.build("crop")[0], processor.image_processor)


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
    assert (vlm.n_layers, vlm.d_model, vlm.context, vlm.default_layer) == (3, 64, 192, 1)
    assert len(vlm.vocabulary.texts) == vlm.head.weight.shape[0]
    assert vlm.end_ids == {vlm.tokenizer.eos_token_id}
    assert vlm.model.device.type == "cpu"
    assert not vlm.model.training
    assert "Pil" in type(vlm.processor.image_processor).__name__  # the same pixels on every machine


@pytest.mark.parametrize(("depth", "layer"), [(1, 0), (2, 1), (8, 5), (24, 17), (32, 23), (40, 29)])
def test_the_default_layer_is_about_three_quarters_deep(vlm, monkeypatch, depth, layer):
    monkeypatch.setattr(vlm, "blocks", [None] * depth)
    assert vlm.default_layer == layer
    for preset in PRESETS.values():
        if preset.n_layers == depth and not preset.default_layer_note:
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


@pytest.mark.parametrize("prompt", ["", "  ", "\n"], ids=repr)
def test_empty_prompts_are_refused(vlm, picture, prompt):
    with pytest.raises(InterpError, match="prompt is empty"):
        vlm.prepare(picture, prompt)


@pytest.mark.parametrize(("wrong", "message"), [(None, "it must be text"), (["a"], "it must be text"), ("a \ud800", "half of a character")])
def test_what_is_not_text_is_refused_as_prompt_and_as_answer(vlm, picture, wrong, message):
    with pytest.raises(InterpError, match=f"prompt .*{message}"):
        vlm.prepare(picture, wrong)
    if wrong is not None:
        with pytest.raises(InterpError, match=f"answer .*{message}"):
            vlm.trace(picture, PROMPT, answer=wrong)


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows(picture):
    model, processor = tiny.build("crop")
    processor.tokenizer.add_tokens(["zebra"])
    vlm = interp.Vlm(model, processor)
    rows = model.get_input_embeddings().weight.shape[0]
    trace = vlm.trace(picture, PROMPT, answer="dog")  # legal, as long as none of them is used
    assert interp.logit_lens(trace, top_k=3).ids.max() < rows
    for prompt, answer in (("zebra", None), (PROMPT, "zebra")):
        with pytest.raises(InterpError, match=f"'zebra' the id {rows}, and the model's embedding has {rows} rows"):
            vlm.trace(picture, prompt, answer=answer)
    with pytest.raises(InterpError, match="no token for any part of 'zebra'"):
        interp.logit_lens(trace, top_k=3).probability("zebra")


def test_a_placeholder_that_the_embedding_has_no_row_for_is_refused(picture):
    model, processor = tiny.build("crop")
    model.resize_token_embeddings(2)
    with pytest.raises(InterpError, match="the model's embedding has 2 rows"):
        interp.Vlm(model, processor).prepare(picture, PROMPT)


@pytest.mark.parametrize("wrong", [None, "crop", 3, object(), torch.nn.Linear(2, 2)], ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_model_is_refused(vlm, wrong):
    with pytest.raises(InterpError, match=r"model is .*; it must be a model of transformers"):
        interp.Vlm(wrong, vlm.processor)
    with pytest.raises(InterpError, match="tokenizer"):
        interp.Vlm(vlm.model, wrong)


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
    with pytest.raises(InterpError, match=r"has a context of 192\. Shorten the prompt by about \d+ tokens"):
        vlm.prepare(picture, "z" * 400)
    room = vlm.context - vlm.prepare(picture, "z")["input_ids"].shape[1]
    fits = vlm.prepare(picture, "z" * (room + 1))
    assert fits["input_ids"].shape[1] == vlm.context
    with pytest.raises(InterpError):
        vlm.prepare(picture, "z" * (room + 2))
    with pytest.raises(InterpError, match="1 new ones"):
        vlm.trace(picture, "z" * (room + 1), max_new_tokens=1)
    with pytest.raises(InterpError, match="has a context of 192"):
        vlm.trace(picture, PROMPT, answer="z" * 200)
    assert vlm.trace(picture, "z" * room, max_new_tokens=1).states.shape[1] == vlm.context - 1


@pytest.mark.parametrize("new", [0, -1, True, False, "3", 3.5, None, math.inf, 193, 10**40], ids=repr)
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


TEXT_ONLY = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }} {% endfor %}[answer]"


@pytest.mark.parametrize("place", ["tokenizer", "processor"])
def test_a_template_of_text_alone_gets_the_picture_as_a_word(vlm, picture, place):
    processor = tiny.build("crop")[1]
    processor.chat_template = None
    (processor if place == "processor" else processor.tokenizer).chat_template = TEXT_ONLY
    inputs = interp.Vlm(vlm.model, processor).prepare(picture, PROMPT)
    assert inputs.text == f"[user] <image>\n{PROMPT} [answer]"
    assert int((inputs["input_ids"] == vlm.image_token_id).sum()) == 16


@pytest.mark.parametrize(
    "template", ["{{ messages[0]['role'] }}", "<image><image>{{ messages[0]['content'] }}", "{{ raise_exception('no') }}"]
)
def test_a_template_that_loses_the_picture_or_the_prompt_is_refused(vlm, picture, template):
    processor = tiny.build("crop")[1]
    processor.chat_template = template
    with pytest.raises(InterpError, match=r"does not produce one picture \(<image>\) and the prompt"):
        interp.Vlm(vlm.model, processor).prepare(picture, PROMPT)
