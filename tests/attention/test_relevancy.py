"""Relevancy: equal to the full matrices of the paper, computed by one autograd pass through eager attention."""

import copy

import pytest
import torch

import interp
from interp import InterpError
from interp.attention.relevancy import relevance, relevancy
from interp.tracing.replay import Replay
from tests import families, tiny

PROMPT = "Describe the image."
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def naive(vlm, trace, target):
    """R [T, T] from one forward over prompt and answer with every weight in the graph, by the model's own means."""
    inputs = vlm.prepare(trace.image, trace.prompt)
    ids = [token.id for token in trace.tokens[inputs["input_ids"].shape[1] : -1]]
    own = vlm.decoder.config._attn_implementation
    vlm.decoder.set_attn_implementation("eager")
    try:
        tensors = tiny.extend(inputs, torch.tensor(ids))
        output = vlm.model(**tensors, output_attentions=True, use_cache=False)
    finally:
        vlm.decoder.set_attn_implementation(own)
    gradients = torch.autograd.grad(target(output.logits[0]), output.attentions)
    whole = torch.eye(trace.length)
    for weights, gradient in zip(output.attentions, gradients, strict=True):
        whole = whole + (weights * gradient).clamp(min=0)[0].mean(0) @ whole
    return whole.detach()


def test_it_equals_the_full_matrices_of_one_pass(vlm, trace):
    for number in (0, 3):
        found = relevancy(trace, number)
        word = trace.tokens[found.token].id
        whole = naive(vlm, trace, lambda logits, row=found.row, word=word: logits[row, word])
        torch.testing.assert_close(found.values, whole[found.row], **CLOSE)
        assert found.on_image().max() > 1e-3


def test_against_a_baseline_it_explains_the_difference(vlm, trace):
    said = trace.tokens[trace.answer_start + 1].id
    other = next(word for word in ("cat", "dog") if said not in vlm.vocabulary.resolve(word, vlm.tokenizer).values())
    found = relevancy(trace, 1, baseline=other)
    rival = vlm.vocabulary.resolve(other, vlm.tokenizer)[f" {other}"]
    whole = naive(vlm, trace, lambda logits: logits[found.row, said] - logits[found.row, rival])
    torch.testing.assert_close(found.values, whole[found.row], **CLOSE)
    assert f"rather than '{other}'" in found.method


def test_it_is_causal_and_never_negative(trace):
    found = relevancy(trace, 2)
    assert found.values.min() >= 0
    assert found.values[found.row] >= 1
    assert found.values[found.row + 1 :].count_nonzero() == 0


def test_without_a_gradient_it_is_the_row_itself(vlm, trace):
    with vlm.lock:
        found = relevance(Replay.of(trace), 5, lambda state: (state * 0).sum())
    assert torch.equal(found, torch.eye(trace.length)[5])


def test_a_gradient_that_overflows_is_refused(vlm, trace):
    with vlm.lock, pytest.raises(InterpError, match="wider dtype"):
        relevance(Replay.of(trace), 5, lambda state: (state * torch.inf).sum())


def test_two_tokens_and_one_head_by_hand():
    """One block, whose row 1 reads rows 0 and 1 with weights that follow from q = 0."""
    vlm = interp.Vlm(*tiny.build("crop"))
    with torch.no_grad():
        vlm.blocks[0].self_attn.q_proj.weight.zero_()
        for block in vlm.blocks[1:]:
            block.self_attn.v_proj.weight.zero_()
        for block in vlm.blocks:
            block.mlp.down_proj.weight.zero_()
    trace = vlm.trace(tiny.noise(60, 60), PROMPT, max_new_tokens=1)
    length, heads = trace.length, 4
    with vlm.lock, torch.no_grad():
        found = relevance(Replay.of(trace), length - 1, lambda state: state[0, 0])
        attention = vlm.blocks[0].self_attn
        normed = vlm.blocks[0].input_layernorm(trace.residual(interp.EMBED))
        value = attention.v_proj(normed).view(length, 2, 16).repeat_interleave(2, dim=1)
        # y = state[0], to which head h adds A_h[j] * v_h[j] . W_O[0, h] for every j, and every A is 1 / T.
        each = torch.einsum("jhw,hw->hj", value, attention.o_proj.weight[0].view(heads, 16)) / length
    expected = each.clamp(min=0).mean(0)
    expected[-1] += 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_patch_that_nothing_reads_has_no_relevancy(vlm, trace):
    """With its attention knocked out in every layer the word cannot depend on it, and exactly 0 is left."""
    patch = trace.positions("image")[5]
    blind = Replay.of(trace)

    class Knocked(Replay):
        def run(self, hidden, **more):
            def without(heads):
                mask = heads.visible().clone()
                mask[..., patch] = False
                mask[..., patch, patch] = True
                return mask

            return super().run(hidden, mask=without, **more)

    knocked = Knocked(**{name: getattr(blind, name) for name in blind.__dataclass_fields__})
    word = trace.tokens[trace.answer_start].id
    with vlm.lock:
        found = relevance(knocked, trace.answer_start - 1, lambda state: vlm.unembed.some_logits(state, torch.tensor([word]))[0, 0])
    assert found[patch] == 0
    assert (found[: trace.answer_start] == 0).sum() == 1


def test_repeated_words_keep_two_maps(vlm, picture):
    trace = vlm.trace(picture, PROMPT, answer="dog and cat on dog")
    first, second = relevancy(trace, 0), relevancy(trace, 4)
    assert (first.token, second.token) == (trace.answer_start, trace.answer_start + 4)
    assert not first.values.allclose(second.values)
    with pytest.raises(InterpError, match="several tokens of the answer: 0, 4"):
        relevancy(trace, "dog")


@pytest.mark.parametrize("name", families.FAMILIES)
def test_it_works_in_every_family(name):
    trace = families.vlm(name).trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    found = relevancy(trace, 1)
    assert found.values.isfinite().all()
    assert found.values.min() >= 0
    assert found.values[found.row] >= 1
    assert found.values[found.row + 1 :].count_nonzero() == 0
    assert found.on_image().max() > 0
    assert ("other means than attention" in found.note) == name.startswith("qwen3_5")


@pytest.mark.parametrize("name", ["qwen3_vl", "molmo2", "llava_next"])
def test_features_added_between_layers_change_nothing_but_the_states(name):
    vlm = families.vlm(name)
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    found = relevancy(trace, 0)  # one token: the prompt alone, for which the model's own pass needs no tricks
    short = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=1)
    word = trace.tokens[found.token].id
    whole = naive(vlm, short, lambda logits: logits[found.row, word])
    torch.testing.assert_close(found.values[: short.length], whole[found.row], **CLOSE)


def test_through_4_bit_weights_it_is_that_of_the_same_weights_in_full(load, picture):
    vlm = load("crop", "4bit")
    trace = vlm.trace(picture, PROMPT, answer="dog and cat")
    before = interp.logit_lens(trace).ids
    model = copy.deepcopy(load("crop").model)
    for name, layer in vlm.model.named_modules():
        if type(layer).__name__ == "Linear4bit":
            with torch.no_grad():
                model.get_submodule(name).weight.copy_(
                    layer(torch.eye(layer.in_features)).T - (0 if layer.bias is None else layer.bias[:, None])
                )
    full = interp.Vlm(model, vlm.processor).trace(picture, PROMPT, answer="dog and cat")
    found, expected = relevancy(trace, 2), relevancy(full, 2)
    assert torch.corrcoef(torch.stack([found.on_image(), expected.on_image()]))[0, 1] > 0.98
    assert all(parameter.grad is None for parameter in vlm.model.parameters())
    again = vlm.trace(picture, PROMPT, answer="dog and cat")
    assert torch.equal(interp.logit_lens(again).ids, before)


def test_in_bfloat16_it_is_close_to_float32(picture):
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model, processor = tiny.build("crop")
        trace = interp.Vlm(model.to(dtype), processor).trace(picture, PROMPT, answer="dog and cat")
        found.append(relevancy(trace, 1).on_image())
    assert torch.corrcoef(torch.stack(found))[0, 1] > 0.98


def test_wrong_words_are_refused(vlm, trace, tmp_path):
    with pytest.raises(InterpError, match="Answer token 6 does not exist"):
        relevancy(trace, 6)
    with pytest.raises(InterpError, match="'nothing' is not a single token of the answer"):
        relevancy(trace, "nothing")
    with pytest.raises(InterpError, match="'elephantine' is 11 tokens"):
        relevancy(trace, 0, baseline="elephantine")
    itself = trace.tokens[trace.answer_start].text
    with pytest.raises(InterpError, match="is the token itself"):
        relevancy(trace, 0, baseline=itself)
    trace.save(tmp_path / "trace")
    with pytest.raises(InterpError, match="without its model"):
        relevancy(interp.Trace.load(tmp_path / "trace"), 0)
