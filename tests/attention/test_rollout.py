"""Rollout: closed forms, the order of the layers, and equality with a few naive lines on eager weights."""

import pytest
import torch
from PIL import Image

import interp
from interp.attention.rollout import rollout_matrix, step
from tests import families, tiny
from tests.attention.test_rows import eager

PICTURE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def trace():
    return interp.Vlm(*tiny.build("crop")).trace(PICTURE, PROMPT, max_new_tokens=4)


@pytest.mark.parametrize(("over", "start", "sinks"), [("mean", 0, True), ("max", 0, True), ("mean", 1, True), ("mean", 0, False)])
def test_it_equals_the_product_written_out(trace, over, start, sinks):
    flows = torch.eye(trace.length)
    for weights in eager(trace.vlm, trace)[start:]:
        reduced = weights.mean(0) if over == "mean" else weights.amax(0)
        if not sinks:
            reduced[:, 0] = 0
        total = reduced.sum(-1, keepdim=True)
        attended = torch.where(total > 0, reduced / total, torch.eye(trace.length))
        flows = (0.5 * attended + 0.5 * torch.eye(trace.length)) @ flows
    found = rollout_matrix(trace, start, over=over, sinks=sinks)
    torch.testing.assert_close(found, flows, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(-1), torch.ones(trace.length))
    assert found.triu(1).count_nonzero() == 0


def test_a_map_is_the_row_that_emits_the_token(trace):
    found = interp.rollout(trace, 2)
    assert found.row == trace.answer_start + 1
    torch.testing.assert_close(found.values, rollout_matrix(trace)[found.row])


def test_closed_forms():
    one = torch.eye(3)
    assert step(torch.eye(3), one, []).equal(one)
    attended = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(step(attended.clone(), one, []), (attended + one) / 2)


def test_uniform_attention_of_three_tokens_over_two_layers():
    uniform = torch.tensor([[1.0, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]])
    found = step(uniform.clone(), step(uniform.clone(), torch.eye(3), []), [])
    torch.testing.assert_close(found, torch.tensor([[1, 0, 0], [7 / 16, 9 / 16, 0], [23 / 72, 17 / 72, 4 / 9]]))


def test_layers_are_composed_from_the_first_to_the_last():
    first, second = torch.eye(3), torch.eye(3)
    first[1] = torch.tensor([1.0, 0, 0])  # token 1 reads 0 in the first layer,
    second[2] = torch.tensor([0, 1.0, 0])  # and token 2 reads 1 in the second
    assert step(second.clone(), step(first.clone(), torch.eye(3), []), [])[2, 0] == 0.25
    assert step(first.clone(), step(second.clone(), torch.eye(3), []), [])[2, 0] == 0


def test_layers_without_attention_count_as_the_identity():
    vlm = families.vlm("qwen3_5")
    trace = vlm.trace(PICTURE, PROMPT, max_new_tokens=2)
    found = rollout_matrix(trace)
    torch.testing.assert_close(found.sum(-1), torch.ones(trace.length))
    torch.testing.assert_close(found, rollout_matrix(trace, 2), atol=1e-4, rtol=1e-4)
    assert "2 of 3 layers mix positions by other means than attention and are left out" in interp.rollout(trace, 0).note


def test_a_layer_that_does_not_exist_is_refused(trace):
    with pytest.raises(interp.InterpError, match="start_layer"):
        interp.rollout(trace, 0, 3)
