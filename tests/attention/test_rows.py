"""Attention rows: equal to eager attention, shares that sum to 1, values weighed by the output projection, in every family."""

import pytest
import torch
from PIL import Image

import interp
from interp.models.attend import Heads
from tests import families, tiny

PICTURE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")
PROMPT = "Describe the image."
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def vlm():
    return interp.Vlm(*tiny.build("crop"))


@pytest.fixture(scope="module")
def trace(vlm):
    return vlm.trace(PICTURE, PROMPT, max_new_tokens=4)


def eager(vlm, trace):
    """[layers, heads, T, T] of one pass over everything, as transformers computes it."""
    tensors = dict(vlm.prepare(PICTURE, PROMPT).tensors)
    tensors["input_ids"] = torch.tensor([[token.id for token in trace.tokens[:-1]]])
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    vlm.decoder.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            return torch.stack(vlm.model(**tensors, output_attentions=True).attentions)[:, 0]
    finally:
        vlm.decoder.set_attn_implementation("sdpa")


def test_rows_of_prompt_and_answer_equal_one_eager_pass(vlm, trace):
    found = interp.attention(trace)
    rows = [token - 1 for token in found.tokens]
    assert found.tokens == tuple(range(trace.answer_start, len(trace.tokens)))
    torch.testing.assert_close(found.weights, eager(vlm, trace)[:, :, rows], **CLOSE)


def test_some_tokens_and_layers_are_a_part_of_all(trace):
    every, some = interp.attention(trace), interp.attention(trace, [2, 0], [2, 1])
    torch.testing.assert_close(some.weights, every.weights[[2, 1]][:, :, [2, 0]])
    assert some.layers == (2, 1)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_the_four_shares_sum_to_one_in_every_family(name):
    vlm = families.vlm(name)
    found = interp.attention(vlm.trace(PICTURE, PROMPT, max_new_tokens=3))
    total = sum(found.share(kind) for kind in ("image", "prompt", "answer", "sinks"))
    torch.testing.assert_close(total, torch.ones_like(total))
    assert len(found.layers) == (1 if "qwen3_5" in name else vlm.n_layers)


def test_maps_are_reduced_over_layers_and_heads(trace):
    found = interp.attention(trace)
    row = found.weights[:, :, 1]
    torch.testing.assert_close(found.patch_map(1).values, row.mean((0, 1)))
    torch.testing.assert_close(found.patch_map(1, layer=2, over="max").values, row[2].amax(0))
    torch.testing.assert_close(found.patch_map(1, head=3).values, row[:, 3].mean(0))
    one = found.patch_map(1, 2, 3)
    torch.testing.assert_close(one.values, row[2, 3])
    assert one.method == "attention, layer 2, head 3"
    torch.testing.assert_close(found.map(1, 2, 3), one.values[trace.grids[0].positions])


def test_without_sinks_they_are_zero_and_nothing_else_changes(trace):
    found = interp.attention(trace)
    sinks = list(found.sinks.all)
    assert 0 in sinks
    kept, left = found.patch_map(0).values, found.patch_map(0, sinks=False).values
    assert left[sinks].count_nonzero() == 0
    rest = [i for i in range(trace.length) if i not in sinks]
    assert kept[rest].equal(left[rest])


def naive_norms(vlm, trace, layer):
    """|V W_O| written out for every head and position: [heads, T]."""
    block = vlm.blocks[layer]
    heads = vlm.model.config.text_config.num_attention_heads
    values = block.self_attn.v_proj(block.input_layernorm(trace.residual(layer - 1)))
    values = values.view(trace.length, -1, block.self_attn.head_dim)
    groups = heads // values.shape[1]
    out = []
    for head in range(heads):
        width = block.self_attn.head_dim
        slice_of = block.self_attn.o_proj.weight[:, head * width : (head + 1) * width]
        out.append((values[:, head // groups] @ slice_of.T).norm(dim=-1))
    return torch.stack(out)


def test_value_norms_are_those_of_the_values_through_the_output_projection(vlm, trace):
    found = interp.attention(trace)
    with torch.no_grad():
        for axis, layer in enumerate(found.layers):
            torch.testing.assert_close(found.value_norms[axis], naive_norms(vlm, trace, layer), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.patch_map(0, 1, 2, weighted=True).values, found.weights[1, 2, 0] * found.value_norms[1, 2])


def test_value_norms_through_packed_weights_are_those_of_the_unpacked_ones(load):
    vlm = load("crop", quantize="4bit")
    found = interp.attention(vlm.trace(PICTURE, PROMPT, max_new_tokens=2))
    projection = vlm.blocks[1].self_attn.o_proj
    assert type(projection) is not torch.nn.Linear
    full = interp.attention(load("crop").trace(PICTURE, PROMPT, max_new_tokens=2))
    assert torch.corrcoef(torch.stack([found.value_norms[0].flatten(), full.value_norms[0].flatten()]))[0, 1] > 0.95


def test_a_gated_output_has_no_value_norms():
    found = interp.attention(families.vlm("qwen3_5").trace(PICTURE, PROMPT, max_new_tokens=2))
    assert found.value_norms is None
    with pytest.raises(interp.InterpError, match="gates its output"):
        found.patch_map(0, weighted=True)


def test_readers_say_how_much_each_token_reads_some_positions(trace):
    found = interp.attention(trace)
    torch.testing.assert_close(found.readers([3, 5]), found.weights[..., [3, 5]].sum(-1).mean((0, 1)))


def test_a_plain_trace_is_the_same_after_rows_were_read(vlm, trace):
    interp.attention(trace)
    assert vlm.decoder.config._attn_implementation == "sdpa"
    assert vlm.trace(PICTURE, PROMPT, max_new_tokens=4).states.equal(trace.states)


def test_a_read_that_fails_leaves_nothing_behind(vlm, trace, monkeypatch):
    monkeypatch.setattr(Heads, "weights", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        interp.attention(trace)
    assert vlm.decoder.config._attn_implementation == "sdpa"
    assert vlm.trace(PICTURE, PROMPT, max_new_tokens=4).states.equal(trace.states)


def test_wrong_arguments_are_named(trace):
    found = interp.attention(trace, [0])
    for call, says in (
        (lambda: interp.attention(trace, [99]), "Answer token"),
        (lambda: interp.attention(trace, ["zebra"]), "'zebra' is not a single token of the answer"),
        (lambda: interp.attention(trace, layers=[3]), "has layers 0 to 2"),
        (lambda: found.map(1), r"tokens=\[1\]"),
        (lambda: found.map(0, layer=7), "Layer 7 is not here"),
        (lambda: found.map(0, head=9), "Head"),
        (lambda: found.map(0, grid=3), "Grid"),
        (lambda: found.share("noise"), "noise"),
        (lambda: found.map(0, over="sum"), "sum"),
    ):
        with pytest.raises(interp.InterpError, match=says):
            call()


def test_a_layer_without_attention_is_refused():
    trace = families.vlm("qwen3_5").trace(PICTURE, PROMPT, max_new_tokens=2)
    with pytest.raises(interp.InterpError, match="has no attention; choose from 2"):
        interp.attention(trace, layers=[0, 2])
