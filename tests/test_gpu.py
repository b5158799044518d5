"""What only a CUDA device can show. Everything here also runs on a CPU in the other tests, with the same code."""

import gc
import itertools

import pytest
import torch

import interp
from interp import Edit
from interp.saes.train import Plan, train
from interp.service.requests import LensRequest
from interp.service.service import Service
from interp.steering import batch
from tests import families, tiny
from tests.conftest import PROMPT
from tests.server import ROOT
from tests.steering_reference import D, Naive, random_sae

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_the_lens_on_a_gpu_ends_in_the_models_own_logits(quantize, picture):
    vlm = interp.load("emoji-llava", device="cuda", quantize=quantize)
    trace = vlm.trace(picture, "Describe the image.", max_new_tokens=4)
    lens = interp.logit_lens(trace, layers=[trace.n_layers - 1])
    ids = torch.tensor([[token.id for token in trace.tokens[:-1]]], device="cuda")
    inputs = {**vlm.prepare(picture, "Describe the image."), "input_ids": ids, "attention_mask": torch.ones_like(ids)}
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
        acts, other = on_cpu.encode(states), on_gpu.encode(states.cuda())
        assert torch.equal(acts.features, other.features)
        torch.testing.assert_close(acts.values, other.values, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(on_cpu.decode(acts), on_gpu.decode(other), atol=1e-2, rtol=1e-3)
        # The weights may also stay where they are while the states lie on the GPU.
        assert torch.equal(on_cpu.encode(states.cuda()).features, acts.features)


@pytest.fixture(scope="module", params=["none", "4bit"])
def tiny_on_gpu(request, checkpoint):
    return interp.load(checkpoint("crop"), device="cuda", quantize=request.param)


EDITS = [
    Edit(sae=random_sae(), feature=3, target=4),
    Edit(sae=random_sae("jumprelu", "layer_norm", layer=0), feature=5, strength=0.7, where="prompt"),
    Edit(vector=torch.ones(D), layer=1, strength=-0.5, where="image"),
]
# States and logits are bfloat16, with 8 bits: products of two rows and of one are rounded differently, 0.01 in a logit of 2 or 3.
ROUNDING = 0.1


def test_a_steered_pair_on_a_gpu_is_what_the_definition_says(tiny_on_gpu, picture):
    """Read from the plain answer, for with rounding two runs may say different words where two words are about as likely."""
    found = interp.steer(tiny_on_gpu, picture, PROMPT, EDITS, max_new_tokens=4, words=["dog"])
    ids = found.plain_answer.ids[:-1]
    naive = [Naive(tiny_on_gpu, picture, PROMPT, edits) for edits in ([], EDITS)]
    plain, steered = (one.logits(ids).log_softmax(-1).cpu() for one in naive)
    dogs = list(tiny_on_gpu.vocabulary.resolve("dog", tiny_on_gpu.tokenizer).values())
    for said, logs in zip(found.words["dog"], (plain, steered), strict=True):
        assert said == pytest.approx(logs.exp()[:, dogs].sum(-1).tolist(), rel=ROUNDING)
    assert found.kl == pytest.approx((plain.exp() * (plain - steered)).sum(-1).tolist(), rel=0.2, abs=0.002)
    for did, lengths in zip(found.applied, naive[1].lengths, strict=True):
        assert did.absolute == pytest.approx(sum(lengths) / len(lengths), rel=0.05)


def test_a_pair_on_a_gpu_is_two_single_runs(tiny_on_gpu, picture, monkeypatch):
    pair = interp.steer(tiny_on_gpu, picture, PROMPT, EDITS, max_new_tokens=1, words=["dog"])
    monkeypatch.setattr(batch, "rows_at_once", lambda *_: 1)
    alone = interp.steer(tiny_on_gpu, picture, PROMPT, EDITS, max_new_tokens=1, words=["dog"])
    assert alone.fired == pair.fired
    for key in (0, 1):
        assert alone.words["dog"][key] == pytest.approx(pair.words["dog"][key], rel=ROUNDING)
    assert alone.kl == pytest.approx(pair.kl, rel=0.2, abs=0.002)


@pytest.mark.parametrize("temperature", [0, 1])
def test_no_push_on_a_gpu_changes_nothing(tiny_on_gpu, picture, temperature):
    """Both rows of a batch are rounded alike: no tolerance for the words."""
    zero = Edit(sae=random_sae(), feature=3, strength=0)
    found = interp.steer(tiny_on_gpu, picture, PROMPT, [zero], max_new_tokens=8, temperature=temperature)
    assert found.plain_answer == found.steered_answer
    assert max(found.kl) < 1e-5
    sweep = interp.steer_sweep(tiny_on_gpu, picture, PROMPT, zero, [0, 0, 0], max_new_tokens=8, temperature=temperature)
    assert {run.steered for run in sweep.runs} == {found.plain}


def test_a_steered_trace_on_a_gpu_is_the_plain_one_and_the_push(tiny_on_gpu, picture):
    trace = tiny_on_gpu.trace(picture, PROMPT, max_new_tokens=4)
    edit = Edit(vector=torch.ones(D), layer=1, amount=3, where="image")
    answer = interp.steer(tiny_on_gpu, picture, PROMPT, [edit], max_new_tokens=4).plain_answer
    added = interp.steered_trace(trace, [edit], answer).residual(1).float() - trace.residual(1).float()
    image = trace.positions("image")
    torch.testing.assert_close(added[image], torch.full((len(image), D), 3.0), rtol=0, atol=2 * ROUNDING)
    others = [i for i in range(trace.length) if i not in image]
    torch.testing.assert_close(added[others], torch.zeros(len(others), D), rtol=0, atol=2 * ROUNDING)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_on_a_gpu(name, dtype, picture):
    model, processor = families.build(name)
    here, there = families.vlm(name), interp.Vlm(model.to("cuda", dtype), processor, name=name)
    traces = [one.trace(picture, PROMPT, answer="dog and cat") for one in (here, there)]
    assert traces[0].tokens == traces[1].tokens
    rough = 1 if dtype == torch.float32 else 100
    torch.testing.assert_close(traces[0].states[0], traces[1].states[0].float(), atol=2e-3 * rough, rtol=2e-3 * rough)
    lenses = [interp.logit_lens(trace, top_k=1) for trace in traces]
    torch.testing.assert_close(lenses[0].log_z, lenses[1].log_z, atol=5e-3 * rough, rtol=5e-3 * rough)
    nothing = interp.steer(there, picture, PROMPT, [Edit(vector=torch.ones(there.d_model), layer=1, strength=0)], max_new_tokens=4)
    assert nothing.plain == nothing.steered


def test_switching_gives_the_memory_back(checkpoint):
    """As much is in use after a model has come and gone as was before it came."""
    service = Service(checkpoint("crop"), device="cuda")

    def allocated(name):
        service.lens(LensRequest(tiny.noise(96, 96), PROMPT, name, max_new_tokens=2))
        gc.collect()  # models of other tests
        return torch.cuda.memory_allocated()

    before = allocated(checkpoint("crop"))
    assert allocated("emoji-llava") > before + 5e6
    assert allocated(checkpoint("crop")) < before + 1e6


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_maps_of_a_word_on_a_gpu_are_those_of_the_cpu(quantize):
    found, picture = [], ROOT / "assets" / "examples" / "dog-and-pizza.webp"
    for device in ("cpu", "cuda"):
        vlm = interp.load("emoji-llava", device=device, quantize=quantize if device == "cuda" else "none")
        trace = vlm.trace(picture, PROMPT, answer="a dog")
        relevancy, activation = interp.relevancy(trace, 1, baseline="cat"), interp.activation_map(trace, 1)
        curve = interp.faithfulness(activation, steps=4).deletion_curve
        found.append((relevancy.on_image(), activation.on_image(), curve))
    for of_cpu, of_gpu in zip(*found, strict=True):
        assert torch.corrcoef(torch.stack([of_cpu, of_gpu]))[0, 1] > 0.9


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_an_sae_trained_on_a_gpu_goes_on_from_its_checkpoint(tmp_path, architecture):
    def states(start):
        generator = torch.Generator().manual_seed(start)
        while True:
            yield torch.randn(64, 24, generator=generator)

    def broken(start):
        yield from itertools.islice(states(start), 30)
        raise KeyboardInterrupt

    plan = Plan(
        48, 4, 64 * 40, architecture, 64, norm_batches=2, checkpoints=4, dead_after=5, metadata={"hook_name": "blocks.0.hook_resid_post"}
    )
    with pytest.raises(KeyboardInterrupt):
        train(plan, 24, broken, tmp_path, device="cuda")
    sae = interp.load_sae(train(plan, 24, states, tmp_path, device="cuda"))
    assert len(sae.encode(torch.randn(8, 24)).features) > 0
