"""Parts of a forward pass run again: equal to the trace, from every layer and position, in every family."""

import pytest
import torch
from PIL import Image

import interp
from interp.tracing.replay import Replay
from tests import families, tiny

PICTURE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
PROMPT = "Describe the image."
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def replay_of(vlm):
    trace = vlm.trace(PICTURE, PROMPT, max_new_tokens=5)
    return trace, Replay.of(trace)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_replay_equals_the_trace_in_every_family(name):
    vlm = families.vlm(name)
    with vlm.lock, torch.no_grad():
        trace, replay = replay_of(vlm)
        last = trace.residual(vlm.n_layers - 1)
        whole = replay.run(replay.entering(0).expand(2, -1, -1))
        torch.testing.assert_close(whole, last.expand(2, -1, -1), **CLOSE)
        torch.testing.assert_close(replay.run(replay.entering(1), layer=1)[0], last, **CLOSE)
        for position in (replay.prompt_length - 1, trace.positions("image")[-1]):
            start = replay.first_changed(position)
            again = replay.run(replay.entering(1, start), layer=1, start=start)
            torch.testing.assert_close(again[0], last[start:], **CLOSE)


@pytest.mark.parametrize("name", ["llava_next", "qwen3_vl", "gemma3", "paligemma", "aya_vision"])
def test_a_change_reaches_no_position_before_first_changed(name):
    vlm = families.vlm(name)
    with vlm.lock, torch.no_grad():
        trace, replay = replay_of(vlm)
        position = trace.positions("image")[-1]
        start = replay.first_changed(position)
        hidden = replay.entering(0).clone()
        hidden[0, position] += 1
        changed = replay.run(hidden)[0] - trace.residual(vlm.n_layers - 1)
        if start:
            torch.testing.assert_close(changed[:start], torch.zeros_like(changed[:start]), **CLOSE)
        assert changed[start].abs().max() > 1e-3
        torch.testing.assert_close(replay.run(hidden[:, start:], start=start)[0], replay.run(hidden)[0, start:], **CLOSE)


def test_stopping_early_gives_the_states_in_between():
    vlm = interp.Vlm(*tiny.build("crop"))
    with vlm.lock, torch.no_grad():
        trace, replay = replay_of(vlm)
        torch.testing.assert_close(replay.run(replay.entering(0), stop=2)[0], trace.residual(1), **CLOSE)


def test_gradients_flow_from_the_last_state_to_the_first():
    vlm = interp.Vlm(*tiny.build("crop"))
    with vlm.lock:
        trace, replay = replay_of(vlm)
        hidden = replay.entering(1).clone().requires_grad_()
        logits = vlm.unembed.logits(replay.run(hidden, layer=1)[0, -1:])
        logits.max().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum(-1).count_nonzero() == trace.length


def test_a_trace_of_another_tokenization_is_refused(tmp_path):
    vlm = interp.Vlm(*tiny.build("crop"))
    trace = vlm.trace(PICTURE, PROMPT, max_new_tokens=2)
    vlm.processor.chat_template = tiny.LLAVA_TEMPLATE.replace("ASSISTANT:", "ASSISTANT: a")
    with pytest.raises(interp.InterpError, match="as other tokens"), vlm.lock:
        Replay.of(trace)
