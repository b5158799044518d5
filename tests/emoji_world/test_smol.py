"""The recipe of smol-llava: its processor, its training sequences, and the stages in small."""

import random

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

import interp
from interp.emoji_world import train_smol
from interp.emoji_world.conversations import pack
from interp.emoji_world.english import a
from interp.emoji_world.measure import answers, sample
from interp.emoji_world.scenes import Scene, Thing
from interp.emoji_world.smol import FOLDER, build_config
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.emoji_world.train import Studio
from interp.emoji_world.train_smol import SoftPatches
from interp.emoji_world.world import ENGLISH


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER, backend="pil")


@pytest.fixture(scope="module")
def sprites():
    return load_sprites(SEEN_VENDORS, size=36, world=ENGLISH)


def scene(*nouns):
    things = tuple(Thing(noun, 0, (i + 0.5) / len(nouns), 0.5, 0.4) for i, noun in enumerate(nouns))
    return Scene(things, "red", (1, 0, 0))


@pytest.fixture
def studio(processor, sprites):
    """The real recipe around a decoder of two narrow layers."""
    config = build_config(processor)
    config.text_config.update(
        {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1}
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    return Studio(model, processor, sprites, torch.device("cpu"), 4, ENGLISH)


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


def test_rasters_of_words_are_mixed_by_the_shares_of_a_patch(studio):
    soft = SoftPatches(studio)
    table = studio.model.get_input_embeddings().weight
    ids = studio.processor.tokenizer([" dog", " cat", " traffic light"], add_special_tokens=False).input_ids
    nouns = [ENGLISH.nouns.index(noun) for noun in ("dog", "cat", "traffic light")]
    shares = torch.zeros(1, 64, len(ENGLISH.words))
    shares[0, 3, nouns[:2]] = torch.tensor([0.75, 0.25])
    shares[0, 4, nouns[2]] = 1
    scenes = [scene("dog", "cat", "traffic light")]
    at_first = soft(scenes, shares)[0]
    torch.testing.assert_close(at_first[3], 0.75 * table[ids[0]].mean(0) + 0.25 * table[ids[1]].mean(0))
    torch.testing.assert_close(at_first[4], table[ids[2]].mean(0))
    assert len(ids[2]) > 1
    with torch.no_grad():
        soft.changes["positions"][4] = 1.0
        soft.changes["words"][nouns[2]] = 2.0
    torch.testing.assert_close(soft(scenes, shares)[0, 4], at_first[4] + 3)
    torch.testing.assert_close(soft(scenes, shares)[0, 3], at_first[3])


def test_patches_are_told_how_many_things_there_are_and_where_theirs_stands(studio):
    soft = SoftPatches(studio)
    with torch.no_grad():
        soft.facts["counts"].copy_(torch.tensor([1.0, 2.0, 3.0])[:, None].expand(-1, 48))
        soft.facts["sides"].copy_(torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])[:, None].expand(-1, 48))
    cell = {noun: i for i, noun in enumerate(("dog", "cat", "owl"))}
    shares = torch.zeros(4, 64, len(ENGLISH.words))
    for noun, at in cell.items():
        shares[:, at, ENGLISH.nouns.index(noun)] = 0.5
    scenes = [scene("dog"), scene("dog", "cat"), scene("dog", "cat", "owl"), scene("dog", "cat", "dog")]
    told = soft.told(scenes, shares)[..., 0]
    assert told[:, 10].tolist() == [1, 2, 3, 3]  # no thing there
    assert told[0, cell["dog"]] == 1 + 0.5 * 10
    assert told[1, [cell["dog"], cell["cat"]]].tolist() == [2 + 0.5 * 20, 2 + 0.5 * 40]
    assert told[2, list(cell.values())].tolist() == [3 + 0.5 * 20, 3 + 0.5 * 30, 3 + 0.5 * 40]
    assert told[3, [cell["dog"], cell["cat"]]].tolist() == [3 + 0.5 * 50, 3 + 0.5 * 30]


def test_the_fit_points_patches_at_their_words(studio):
    soft = SoftPatches(studio)
    train_smol.start_projector(studio, soft)
    step = train_smol.fit_step(studio, soft)
    model = studio.model.model
    trained = [*model.vision_tower.parameters(), *model.multi_modal_projector.parameters()]
    opt = torch.optim.AdamW(trained, 1e-4)
    values = []
    for i in range(15):
        values.append(step(random.Random(i), 0.0))
        opt.zero_grad()
        values[-1]["loss"].backward()
        opt.step()
    assert values[-1]["off"] < values[0]["off"]
    assert values[-1]["colors"] > values[0]["colors"]
    assert all(p.grad is None for p in soft.parameters())


def test_the_words_stage_trains_no_eyes(studio):
    soft = SoftPatches(studio)
    model = studio.model.to(torch.bfloat16)
    model.requires_grad_(requires_grad=False)
    loss = train_smol.words_step(studio, soft)(random.Random(0), 0.0)["loss"]
    loss.backward()
    assert all(p.grad is not None for p in soft.parameters())


def test_align_learns_from_answers_and_leaves_the_decoder_as_it_is(studio):
    model = studio.model.to(torch.bfloat16)
    model.model.vision_tower.float()
    model.model.multi_modal_projector.float()
    model.get_decoder().requires_grad_(requires_grad=False)
    values = train_smol.answers_step(studio)(random.Random(0), 0.0)
    values["loss"].backward()
    assert all(p.grad is None for p in model.get_decoder().parameters())
    assert all(p.grad is not None for p in model.model.multi_modal_projector.parameters())


def test_what_ships_names_and_finds_what_is_in_unseen_scenes():
    vlm, scenes = interp.load("smol-llava", device="cpu"), sample("a test of smol-llava", 6, SEEN_VENDORS, world=ENGLISH)
    said = answers(vlm, scenes.pictures, [ENGLISH.questions["describe"][0]] * 6)
    shown = [set(scene.nouns) for scene in scenes.scenes]
    named = [set(ENGLISH.named(text)) for text in said]
    assert sum(len(a & b) for a, b in zip(shown, named, strict=True)) >= 0.8 * sum(map(len, shown))
    other = [next(noun for noun in ENGLISH.nouns if noun not in nouns) for nouns in shown]
    asked = [f"Is there {a(noun)}?" for nouns in (map(min, shown), other) for noun in nouns]
    found = [text.startswith("Yes") for text in answers(vlm, scenes.pictures * 2, asked)]
    assert sum(found[:6]) - sum(found[6:]) >= 4  # 0 if it guesses
