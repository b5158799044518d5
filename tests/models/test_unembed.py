import pytest
import torch

import interp
from interp import InterpError
from interp.models import unembed
from interp.models.unembed import BLOCK, _finishes
from tests import tiny


@pytest.mark.parametrize(("name", "capped"), [("crop", False), ("ignored cap", False), ("capped", True)])
def test_a_soft_cap_is_found_by_what_the_model_does(load, name, capped):
    vlm = load(name)
    if name != "crop":
        assert vlm.model.config.get_text_config().final_logit_softcapping == tiny.SOFT_CAP
    finish = vlm.unembed.finish
    assert finish(torch.full((1,), 100.0)).item() == pytest.approx(tiny.SOFT_CAP if capped else 100.0)


@pytest.mark.parametrize(("field", "value", "factor"), [("logit_scale", 0.25, 0.25), ("logits_scaling", 8.0, 1 / 8)])
@pytest.mark.parametrize("applied", [True, False])
def test_a_scale_is_found_by_what_the_model_does(field, value, factor, applied):
    model, processor = tiny.build("crop")
    setattr(model.config.text_config, field, value)
    if applied:
        model.register_forward_hook(lambda _module, _args, output: output.__setitem__("logits", output.logits * factor))
    finish = interp.Vlm(model, processor).unembed.finish
    assert finish(torch.ones(1)).item() == (factor if applied else 1.0)


def test_logits_that_are_not_head_of_norm_are_refused():
    model, processor = tiny.build("crop")
    model.register_forward_hook(lambda _module, _args, output: output.__setitem__("logits", output.logits + 1))
    vlm = interp.Vlm(model, processor)
    with pytest.raises(InterpError, match="not its head applied to its normed last state"):
        _ = vlm.unembed
    assert not any(layer._forward_hooks for layer in vlm.blocks)


def test_plain_comes_first(vlm):
    assert next(iter(_finishes(vlm.model.config))) == "plain"


def test_buffers_are_bounded_and_padded_with_what_never_wins(load, monkeypatch):
    vlm = load("padded")
    rows, most = vlm.head.weight.shape[0], unembed._BUFFER_BYTES["cpu"] // (320 * 4)
    for free, states, expected in ((10**12, 10**9, most), (10**12, 90, 90), (8 * 5 * 320 * 4, 90, 5), (0, 90, 1)):
        monkeypatch.setattr(unembed, "free_bytes", lambda _device, free=free: free)
        first, second = vlm.unembed.buffers(states)
        assert first.shape == (expected, 320)
        assert second.shape == (min(expected, unembed._SLICE_ROWS), 320)
    assert first.shape[1] % BLOCK == 0
    assert (first[:, rows:] < -1e38).all()
    assert torch.isfinite(first[:, rows:]).all()  # minus infinity times a probability of zero is not a number


@pytest.mark.parametrize("name", ["crop", "interleave", "capped"])
def test_some_logits_are_the_same_logits(load, picture, name):
    vlm = load(name)
    states = vlm.trace(picture, "Describe", max_new_tokens=2).residual(1)
    with torch.inference_mode():
        pieces = [(rows, logits.clone()) for rows, logits in vlm.unembed.chunks(states, vlm.unembed.buffers(len(states))[0])]
        assert [i for rows, _ in pieces for i in range(rows.start, rows.stop)] == list(range(len(states)))
        logits = torch.cat([piece for _, piece in pieces])
        ids = torch.tensor([3, 280, 5])
        torch.testing.assert_close(vlm.unembed.some_logits(states, ids), logits[:, ids])


def test_a_soft_cap_is_computed_in_32_bit_for_a_model_in_16(checkpoint):
    """In 16 bit, a logit near the cap would be rounded once more: the probability of a word would not be its column of the softmax."""
    model = tiny.CappedLlava.from_pretrained(checkpoint("ignored cap"), dtype=torch.bfloat16)
    vlm = interp.Vlm(model, tiny.build("crop", text="gemma2")[1])
    states = torch.randn(40, vlm.d_model, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = torch.arange(len(vlm.vocabulary.texts))
    with torch.no_grad():
        logits = vlm.unembed.some_logits(states, ids)
        (_, everything), *_ = vlm.unembed.chunks(states, vlm.unembed.buffers(len(states))[0])
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).any()
    torch.testing.assert_close(logits[: len(everything)], everything[:, : len(ids)], atol=0.02, rtol=0.01)


def test_a_head_with_a_bias(picture):
    model, processor = tiny.build("crop")
    biased = torch.nn.Linear(64, model.lm_head.out_features)
    model.set_output_embeddings(biased)
    model.lm_head = biased
    vlm = interp.Vlm(model, processor)
    trace = vlm.trace(picture, "Describe", answer="dog cat")
    logits = tiny.naive_logits(vlm, trace)
    lens = interp.logit_lens(trace)
    torch.testing.assert_close(lens.log_z, logits.logsumexp(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        lens.probability("cat"), logits.softmax(-1)[..., list(lens.resolve("cat").values())].sum(-1), atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_the_model_reads_it(dtype, picture):
    model, processor = tiny.build("crop")
    vlm = interp.Vlm(model.to(dtype), processor)
    trace = vlm.trace(picture, "Describe", answer="dog cat")
    assert trace.states.dtype == dtype
    lens = interp.logit_lens(trace, layers=[2])
    real = tiny.full_forward(vlm, trace).logits[0].float()  # rounded by the model's own head
    torch.testing.assert_close(lens.log_z[0], real.logsumexp(-1), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(lens.probs[0], real.softmax(-1).topk(5).values, atol=1e-4, rtol=2e-2)
