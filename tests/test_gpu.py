"""What only a CUDA device can show. Everything here also runs on a CPU in the other tests, with the same code."""

import pytest
import torch

import interp

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_the_lens_on_a_gpu_ends_in_the_models_own_logits(quantize, noise_picture):
    vlm = interp.load("emoji-llava", device="cuda", quantize=quantize)
    trace = vlm.trace(noise_picture, "Describe the image.", max_new_tokens=4)
    lens = interp.logit_lens(trace, layers=[trace.layers - 1])
    ids = torch.tensor([[token.id for token in trace.tokens[:-1]]], device="cuda")
    inputs = {**vlm.prepare(noise_picture, "Describe the image."), "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        logits = vlm.model(**inputs).logits[0].float().cpu()
    # One pass over the whole sequence and a cached generation differ by the rounding of 16-bit numbers.
    torch.testing.assert_close(lens.log_z[0], logits.logsumexp(-1), atol=0.1, rtol=0.02)
    assert (lens.ids[0, :, 0] == logits.argmax(-1)).float().mean() > 0.95


def test_auto_is_4bit_on_cuda_for_real_checkpoints_and_none_for_the_embedded_one(tmp_path):
    small = interp.load("emoji-llava", device="cuda")
    assert not getattr(small.model, "is_loaded_in_4bit", False)
    small.model.save_pretrained(tmp_path)
    small.processor.save_pretrained(tmp_path)
    assert interp.load(str(tmp_path), device="cuda").model.is_loaded_in_4bit


def test_features_on_a_gpu_are_those_of_the_cpu():
    torch.manual_seed(0)
    d, n = 64, 5000
    for dtype in (torch.float32, torch.bfloat16):
        encoder, decoder = torch.randn(d, n, dtype=dtype), torch.randn(n, d, dtype=dtype)
        weights = {"W_enc": encoder, "b_enc": torch.zeros(n), "W_dec": decoder, "b_dec": torch.zeros(d)}
        on_cpu = interp.Sae("test", "test", 0, **weights, activation="topk", k=32)
        on_gpu = interp.Sae("test", "test", 0, **{key: value.cuda() for key, value in weights.items()}, activation="topk", k=32)
        states = torch.randn(40, d)
        codes, other = on_cpu.encode(states), on_gpu.encode(states.cuda())
        assert torch.equal(codes.features, other.features)
        torch.testing.assert_close(codes.values, other.values, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(on_cpu.decode(codes), on_gpu.decode(other), atol=1e-2, rtol=1e-3)
        # The weights may also stay where they are while the states lie on the GPU.
        assert torch.equal(on_cpu.encode(states.cuda()).features, codes.features)
