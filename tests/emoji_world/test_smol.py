"""The recipe of smol-llava: its processor, its training sequences, and the stages in small."""

import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from interp.emoji_world import train_smol
from interp.emoji_world.conversations import pack
from interp.emoji_world.smol import FOLDER, build_config
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.emoji_world.train import Studio
from interp.emoji_world.world import ENGLISH


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER, backend="pil")


@pytest.fixture(scope="module")
def studio(processor):
    """The real recipe around a decoder of two narrow layers."""
    config = build_config(processor)
    config.text_config.update(
        {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1}
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    return Studio(model, processor, load_sprites(SEEN_VENDORS, size=36, world=ENGLISH), torch.device("cpu"), 4, ENGLISH)


def test_the_image_token_takes_the_place_of_one_that_smollm2_never_needs_here(processor):
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<image>") == 5
    assert len(tokenizer) == 49152
    assert tokenizer.tokenize("Is 42 right?") == ["Is", "Ġ", "4", "2", "Ġright", "?"]
    assert tokenizer("<|im_start|>").input_ids == [1]


def test_a_training_sequence_is_the_conversation_of_run_time(processor):
    question, answer = "Is there a traffic light?", "Yes, there is a traffic light."
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    assert text == ENGLISH.prompt.format(image="<image>", question=question)
    packed = pack(processor.tokenizer, [[(question, answer)]], 1, ENGLISH)
    assert packed.ids[0].tolist() == processor.tokenizer(f"{text}{answer}<|im_end|>").input_ids


def test_the_fit_points_patches_at_their_words(studio, monkeypatch):
    monkeypatch.setattr(train_smol, "FIT_SCENES", 64)
    monkeypatch.setattr(train_smol, "FIT_STEPS", 100)
    tower = {
        name.removeprefix("model.vision_tower."): value.float()
        for name, value in load_file(FOLDER / "model.safetensors").items()
        if "vision_tower" in name
    }
    studio.model.model.vision_tower.load_state_dict(tower)
    assert train_smol.fit_projector(studio) > 0.5  # least squares alone keep hardly any of the rare nouns


def test_align_learns_from_answers_and_leaves_the_decoder_as_it_is(studio):
    model = studio.model.to(torch.bfloat16)
    model.model.vision_tower.float()
    model.model.multi_modal_projector.float()
    model.get_decoder().requires_grad_(requires_grad=False)
    values = train_smol.answers_step(studio)(random.Random(0), 0.0)
    values["loss"].backward()
    assert all(p.grad is None for p in model.get_decoder().parameters())
    assert all(p.grad is not None for p in model.model.multi_modal_projector.parameters())
