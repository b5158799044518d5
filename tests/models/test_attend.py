"""The replaced attention: equal to eager attention with all its weights, for every family; and gone when the block ends."""

import pytest
import torch
from PIL import Image

import interp
from interp.models.attend import attending
from tests import families, tiny

PICTURE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
PROMPT = "Describe the image."


def eager(vlm, inputs):
    """All attention weights, as transformers gives them without our function: layer → [H, T, T]."""
    own = vlm.decoder.config._attn_implementation
    vlm.decoder.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return [each[0] for each in vlm.model(**inputs.tensors, output_attentions=True).attentions if each is not None]
    finally:
        vlm.decoder.set_attn_implementation(own)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_its_weights_equal_eager_ones_in_every_family(name):
    vlm = families.vlm(name)
    inputs = vlm.prepare(PICTURE, PROMPT)
    rows, seen = torch.tensor([1, -1]), []
    with vlm.lock, torch.no_grad(), attending(vlm, read=lambda heads: seen.append(heads.weights(rows)[0])):
        logits = vlm.model(**inputs.tensors).logits
    expected = eager(vlm, inputs)
    plain = vlm.model(**inputs.tensors).logits
    assert len(seen) == len(expected)
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs[:, rows].float(), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.sum(-1), torch.ones(ours.shape[:2]))
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=1e-4)


def test_given_weights_take_the_place_of_the_models_own():
    vlm = interp.Vlm(*tiny.build("crop"))
    tensors = vlm.prepare(PICTURE, PROMPT).tensors
    with vlm.lock, torch.no_grad():
        plain = vlm.model(**tensors).logits
        with attending(vlm, read=lambda heads: heads.weights()):
            same = vlm.model(**tensors).logits
        with attending(vlm, read=lambda heads: torch.zeros_like(heads.weights())):
            blind = vlm.model(**tensors).logits
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-4)
    assert not blind.allclose(plain, atol=1e-2)


def test_a_mask_hides_a_key_as_the_models_own_mask_does():
    vlm = interp.Vlm(*tiny.build("crop"))
    tensors = vlm.prepare(PICTURE, PROMPT).tensors
    hidden = 7

    def without(heads):
        mask = heads.visible().clone()
        mask[..., hidden] = False
        mask[..., hidden, hidden] = True  # a row of its own may not be empty
        return mask

    own = torch.ones_like(tensors["input_ids"])
    own[0, hidden] = 0
    with vlm.lock, torch.no_grad():
        with attending(vlm, mask=without):
            ours = vlm.model(**tensors).logits
        theirs = vlm.model(**{**tensors, "attention_mask": own}).logits
    torch.testing.assert_close(ours[:, hidden + 1 :], theirs[:, hidden + 1 :], atol=1e-4, rtol=1e-4)


def test_a_soft_cap_of_the_scores_is_kept():
    vlm = interp.Vlm(*tiny.build("crop", text="gemma2"))
    vlm.decoder.config.attn_logit_softcapping = 0.5
    for block in vlm.blocks:
        block.self_attn.attn_logit_softcapping = 0.5
    tensors = vlm.prepare(PICTURE, PROMPT).tensors
    seen = []
    with vlm.lock, torch.no_grad(), attending(vlm, read=lambda heads: seen.append(heads.weights()[0])):
        vlm.model(**tensors)
    for ours, theirs in zip(seen, eager(vlm, vlm.prepare(PICTURE, PROMPT)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_nothing_stays_behind_after_an_error():
    vlm = interp.Vlm(*tiny.build("crop"))
    before = vlm.decoder.config._attn_implementation

    def fail(_heads):
        raise ValueError("on purpose")

    tensors = vlm.prepare(PICTURE, PROMPT).tensors
    with pytest.raises(ValueError, match="on purpose"), vlm.lock, attending(vlm, read=fail):
        vlm.model(**tensors)
    assert vlm.decoder.config._attn_implementation == before
    vlm.model(**tensors)
