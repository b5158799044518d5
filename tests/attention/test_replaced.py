"""Image tokens replaced: equal to the model run on changed embeddings, whichever tokens go and in whichever order."""

import pytest
import torch

import interp
from interp.attention.replaced import Blank, replaced_states, with_replaced
from interp.tracing.replay import Replay
from tests import families, tiny

PROMPT = "Describe the image."
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def replay(trace):
    with trace.vlm.lock:
        return Replay.of(trace)


def tokens_of(trace):
    return list(range(trace.answer_start, len(trace.tokens)))


def test_nothing_replaced_is_the_trace_itself(trace, replay):
    tokens = tokens_of(trace)
    own = tiny.naive_logits(trace.vlm, trace)[-1].log_softmax(-1)
    expected = torch.stack([own[token - 1, trace.tokens[token].id] for token in tokens])
    found = with_replaced(replay, [[], []], Blank.mean(replay), tokens)
    torch.testing.assert_close(found, expected.expand(2, -1), **CLOSE)


def test_a_token_replaced_by_itself_changes_nothing(trace, replay):
    image = trace.positions("image")
    itself = Blank(replay.entering(0)[0], {})
    plain, same, one = with_replaced(replay, [[], image, image[3:4]], itself, tokens_of(trace))
    torch.testing.assert_close(same, plain)
    torch.testing.assert_close(one, plain)


def test_a_batch_equals_its_rows_alone_in_any_order(trace, replay):
    image, tokens = trace.positions("image"), tokens_of(trace)
    blank = Blank.mean(replay)
    sets = [image[:3], image[5:6], [], image]
    together = with_replaced(replay, sets, blank, tokens)
    alone = torch.cat([with_replaced(replay, [positions[::-1]], blank, tokens) for positions in sets])
    torch.testing.assert_close(together, alone, **CLOSE)
    assert together.exp().std(0).max() > 1e-3


def test_a_change_is_seen_from_its_position_on(trace, replay):
    position = trace.positions("image")[4]
    rows = range(trace.length)
    plain, changed = replaced_states(replay, [[], [position]], Blank.zero(replay), rows)
    torch.testing.assert_close(changed[:position], plain[:position])
    assert ((changed - plain)[position:].abs().amax(-1) > 1e-3).all()


def test_the_mean_leaves_out_separators_and_sinks():
    vlm = families.vlm("llava_next")  # with a newline token behind each row of patches
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=2)
    image = trace.positions("image")
    assert trace.positions("separator")
    trace.states[0, image[2]] *= 100
    with vlm.lock:
        blank = Blank.mean(Replay.of(trace))
    torch.testing.assert_close(blank.embedding, trace.states[0, image[:2] + image[3:]].mean(0))


def test_another_picture_at_the_image_tokens_is_that_picture(trace, replay):
    vlm = trace.vlm
    other = vlm.trace(tiny.noise(120, 90, 5), PROMPT, answer=trace.answer)
    with vlm.lock:
        theirs = Replay.of(other)
    tokens = [trace.answer_start]
    found = with_replaced(replay, [trace.positions("image")], Blank.other(replay, theirs), tokens)
    logits = tiny.naive_logits(vlm, other)[-1].log_softmax(-1)
    torch.testing.assert_close(found[0, 0], logits[tokens[0] - 1, trace.tokens[tokens[0]].id], **CLOSE)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_5", "gemma3", "paligemma", "onevision", "molmo2"])
def test_a_run_from_the_first_change_on_equals_one_of_all_positions(name):
    vlm = families.vlm(name)
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    with vlm.lock:
        replay = Replay.of(trace)
    image, last, blank = trace.positions("image"), trace.length - 1, Blank.mean(replay)
    sets = [image[-2:], image[-1:], []]
    whole = replaced_states(replay, sets, blank, [0, last])  # row 0 is before any change
    torch.testing.assert_close(replaced_states(replay, sets, blank, [last])[:, 0], whole[:, 1], **CLOSE)
    torch.testing.assert_close(whole[2], trace.residual(vlm.n_layers - 1)[[0, last]], **CLOSE)
    assert not whole[0].allclose(whole[1], atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_5", "gemma3", "molmo2"])
def test_with_every_image_token_replaced_no_picture_is_seen(name):
    """In particular not through the features that Qwen3-VL adds to the first layers."""
    vlm = families.vlm(name)
    found = []
    for seed in (0, 1):
        trace = vlm.trace(tiny.noise(90, 60, seed), PROMPT, answer="dog and cat")
        with vlm.lock:
            replay = Replay.of(trace)
        image = trace.positions("image")
        found.append(with_replaced(replay, [image, []], Blank.zero(replay), range(trace.answer_start, len(trace.tokens))))
    torch.testing.assert_close(found[0][0], found[1][0], **CLOSE)
    assert not found[0][1].allclose(found[1][1], atol=1e-5)


def test_a_picture_that_becomes_other_tokens_is_refused(trace, replay):
    vlm = trace.vlm
    with vlm.lock:
        other = Replay.of(vlm.trace(trace.image, "What is it?", max_new_tokens=2))
    with pytest.raises(interp.InterpError, match="cannot take their places"):
        Blank.other(replay, other)
