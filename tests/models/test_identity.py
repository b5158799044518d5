import copy

import pytest
import torch

import interp
from interp.models.identity import fingerprint, mismatch, state_key
from tests import tiny


@pytest.fixture
def own_vlm(checkpoint):
    """A model that a test may change."""
    return interp.load(checkpoint("crop"), quantize="none", device="cpu")


def test_a_checkpoint_has_one_fingerprint_however_often_it_is_loaded(own_vlm, vlm):
    assert fingerprint(own_vlm) == fingerprint(vlm)
    assert mismatch(fingerprint(vlm), own_vlm) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_16_bits_is_no_other_model(own_vlm, vlm, dtype):
    saved = fingerprint(vlm)
    own_vlm.model.to(dtype)
    assert mismatch(saved, own_vlm) is None
    assert mismatch(fingerprint(own_vlm), vlm) is None
    with torch.no_grad():
        own_vlm.blocks[1].self_attn.q_proj.weight.mul_(1.1)
    assert mismatch(saved, own_vlm) == "blocks.1.self_attn.q_proj.weight"


def test_in_one_dtype_the_smallest_change_of_a_compared_value_shows(own_vlm, vlm):
    with torch.no_grad():
        own_vlm.norm.weight.mul_(1 + 1e-6)
    assert mismatch(fingerprint(vlm), own_vlm) == "norm.weight"


def test_quantised_weights_are_not_compared(load, vlm):
    four_bit = load("crop", "4bit")
    found = fingerprint(four_bit)
    assert found["blocks.0.mlp.up_proj.weight"] is None
    assert found["embed.weight"] is not None
    assert mismatch(found, vlm) is None
    assert mismatch(fingerprint(vlm), four_bit) is None
    assert mismatch(found, interp.Vlm(*tiny.build("crop", seed=1))) == "embed.weight"


def test_where_nothing_can_be_compared_the_names_decide(vlm):
    assert mismatch(dict.fromkeys(fingerprint(vlm)), vlm) == ""


def test_another_shape_is_another_model(vlm):
    saved = copy.deepcopy(fingerprint(vlm))
    saved["embed.weight"][1][0] += 1
    assert mismatch(saved, vlm) == "embed.weight"


def test_the_state_of_a_model_stays_as_it_is_over_a_run(own_vlm, picture):
    before = state_key(own_vlm)
    own_vlm.trace(picture, "Describe the image.", max_new_tokens=2)
    assert state_key(own_vlm) == before
