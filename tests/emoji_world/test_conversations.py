import random

import pytest
import torch

import interp
from interp.emoji_world.architecture import build_model, build_processor
from interp.emoji_world.conversations import pack, sample_questions
from interp.emoji_world.scenes import Scene, Thing
from interp.emoji_world.words import QUESTIONS
from tests import tiny

PATCHES = 64
DIALOGUES = [
    [("Describe the image.", "a dog and a cat on a red background."), ("How many objects are there?", "two."), ("Is there a hat?", "no.")],
    [("What is on the left?", "an apple."), ("what do you see, é?", "a tree on a blue background.")],
]


@pytest.fixture(scope="module")
def vlm():
    processor = build_processor()
    return interp.Vlm(build_model(processor), processor, name="emoji shape")


@pytest.fixture(scope="module")
def packed(vlm):
    return pack(vlm.tokenizer, DIALOGUES, PATCHES)


def branches(packed):
    """(row, dialogue's index in it, question, answer, columns of the branch)."""
    for row, dialogue in enumerate(DIALOGUES):
        start = packed.image.stop + 1  # the newline behind the picture ends the prefix
        for index, (question, answer) in enumerate(dialogue):
            columns = (packed.positions[row, start:] == start).nonzero().flatten() + start
            first = int(columns[index])
            seen = packed.mask[row, 0]
            own = [at for at in range(first, packed.ids.shape[1]) if seen[at, first]]
            yield row, index, question, answer, own


def test_a_branch_is_the_conversation_of_run_time(vlm, packed):
    for row, index, question, answer, own in branches(packed):
        inputs = vlm.prepare(tiny.noise(96, 96), question)
        start = inputs["input_ids"].shape[1]
        single = torch.cat([inputs["input_ids"][0], vlm.answer_ids(inputs, answer)])
        prefix = list(range(packed.image.stop + 1))
        assert packed.ids[row, prefix + own].tolist() == single.tolist(), (row, index)
        assert packed.positions[row, prefix + own].tolist() == list(range(len(single)))
        expected = [-100] * (start - 1) + single[start:].tolist() + [-100]
        asked = torch.where(packed.answer[row], packed.targets[row], -100)
        assert asked[prefix + own].tolist() == expected


def test_targets_are_the_next_tokens_of_the_same_branch(packed):
    for row, *_, own in branches(packed):
        assert packed.targets[row, own].tolist() == [*packed.ids[row, own[1:]].tolist(), -100]
    assert (packed.targets[:, : packed.image.stop + 1] == -100).all()  # nothing is asked of the picture


def test_padding_is_asked_nothing_and_seen_by_none(packed, vlm):
    used = torch.zeros_like(packed.answer)
    used[:, : packed.image.stop + 1] = True
    for row, *_, own in branches(packed):
        used[row, own] = True
    assert not used.all()
    assert (packed.ids[~used] == vlm.tokenizer.pad_token_id).all()
    assert (packed.targets[~used] == -100).all()
    for row in range(len(DIALOGUES)):
        assert not packed.mask[row, 0][used[row]][:, ~used[row]].any()
        assert packed.mask[row, 0].any(-1).all()  # a row that sees nothing would be NaN, and poison the batch


def test_the_picture_lies_where_it_should(packed, vlm):
    assert packed.image.stop - packed.image.start == PATCHES
    assert (packed.ids[:, packed.image] == vlm.tokenizer.image_token_id).all()
    assert (packed.ids == vlm.tokenizer.image_token_id).sum() == PATCHES * len(DIALOGUES)


@torch.inference_mode()
def test_a_branch_gives_the_logits_of_the_one_turn_conversation(vlm, packed):
    pictures = [tiny.noise(96, 96, seed) for seed in (1, 2)]
    pixels = torch.cat([vlm.prepare(picture, "x")["pixel_values"] for picture in pictures])
    image = torch.stack(vlm.model.get_image_features(pixels).pooler_output)
    embeds = vlm.model.get_input_embeddings()(packed.ids)
    embeds[:, packed.image] = image
    states = vlm.model.get_decoder()(
        inputs_embeds=embeds, position_ids=packed.positions, attention_mask=packed.mask, use_cache=False
    ).last_hidden_state
    logits = vlm.head(states)
    checked = 0
    for row, _, question, answer, own in branches(packed):
        inputs = vlm.prepare(pictures[row], question)
        single = vlm.model(**tiny.extend(inputs, vlm.answer_ids(inputs, answer))).logits[0]
        rows = list(range(packed.image.stop + 1)) + own
        torch.testing.assert_close(logits[row, rows], single, atol=2e-4, rtol=1e-3)
        checked += 1
    assert checked == 5
    assert torch.isfinite(logits).all()


def test_questions_of_a_scene():
    scene = Scene((Thing("dog", 0, 0.3, 0.5, 0.4), Thing("cat", 0, 0.7, 0.5, 0.4)), "red", (1, 0, 0))
    rng = random.Random(0)
    for _ in range(50):
        (first, answer), *others = sample_questions(scene, rng, 4)
        assert first in QUESTIONS["describe"]
        assert answer == "a dog and a cat on a red background."
        assert len({question for question, _ in others}) == 3
        assert not {question for question, _ in others} & set(QUESTIONS["describe"])
    plain = sample_questions(scene, random.Random(1), 6, paraphrased=0)
    starts = {wordings[0].split("{")[0] for wordings in QUESTIONS.values()}
    assert all(any(question.startswith(start) for start in starts) for question, _ in plain)
