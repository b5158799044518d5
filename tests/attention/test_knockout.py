"""Knockout: equal to the model's own masks and to deleted tokens; it changes what it should, and nothing else."""

import json
import random

import pytest
import torch

import interp
from interp import InterpError
from interp.attention.cuts import Cut, cut_off, cut_states
from interp.attention.knockout import knockout, knockout_map
from interp.models.attend import attending
from interp.presets import ASSETS
from interp.tracing.record import record
from interp.tracing.replay import Replay
from tests import families, tiny

PROMPT = "Describe the image."
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def replay(trace):
    with trace.vlm.lock:
        return Replay.of(trace)


def cut(trace, rows, positions, layers=None):
    return Cut(tuple(rows), tuple(positions), frozenset(range(trace.n_layers) if layers is None else layers))


def whole(vlm, trace):
    """The model's inputs for prompt and answer."""
    inputs = vlm.prepare(trace.image, trace.prompt)
    return tiny.extend(inputs, torch.tensor([token.id for token in trace.tokens[inputs["input_ids"].shape[1] : -1]]))


def naive(vlm, trace, rows, positions):
    """Logits [T, V] of one eager forward with every layer's mask written out by hand."""
    mask = torch.ones(trace.length, trace.length).tril()
    mask[torch.tensor(rows)[:, None], positions] = 0
    own = vlm.decoder.config._attn_implementation
    vlm.decoder.set_attn_implementation("eager")
    try:
        tensors = whole(vlm, trace) | {"attention_mask": (1 - mask)[None, None] * torch.finfo(torch.float32).min}
        with torch.no_grad():
            return vlm.model(**tensors, use_cache=False).logits[0]
    finally:
        vlm.decoder.set_attn_implementation(own)


def test_a_cut_equals_an_eager_forward_with_its_mask(vlm, trace, replay):
    rows, positions = list(range(20, trace.length)), [5, 6, 21]
    every = list(range(trace.length))
    states, forwards = cut_states(replay, [cut(trace, rows, positions)], every)
    torch.testing.assert_close(vlm.unembed.logits(states[0]), naive(vlm, trace, rows, positions), **CLOSE)
    assert forwards == 1


def test_no_row_reading_a_position_equals_masking_it_and_deleting_it(vlm, trace, replay):
    gone = trace.positions("image")[5]
    later = list(range(gone + 1, trace.length))
    states, _ = cut_states(replay, [cut(trace, later, [gone])], later)
    ours = vlm.unembed.logits(states[0])
    tensors = whole(vlm, trace)
    masked = tensors | {"attention_mask": torch.ones_like(tensors["input_ids"])}
    masked["attention_mask"][0, gone] = 0
    masked["position_ids"] = torch.arange(trace.length)[None]
    kept = [position for position in range(trace.length) if position != gone]
    with torch.no_grad():
        theirs = vlm.model(**masked).logits[0, later]
        deleted = vlm.decoder(inputs_embeds=trace.residual(interp.EMBED)[None, kept], position_ids=torch.tensor([kept]))
    torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(ours, vlm.head(deleted.last_hidden_state)[0, gone:], **CLOSE)


def test_a_cut_of_nothing_leaves_every_bit(vlm, trace, replay):
    rows = list(range(trace.length))
    nothing = [cut(trace, [], [5]), cut(trace, [20], []), cut(trace, [20], [5], layers=[])]
    states, forwards = cut_states(replay, nothing, rows)
    assert forwards == 0
    assert all(variant.equal(trace.residual(trace.n_layers - 1)) for variant in states)
    with vlm.lock, torch.no_grad():
        tensors = vlm.prepare(trace.image, trace.prompt).tensors
        plain = vlm.model(**tensors).logits
        with attending(vlm, mask=cut_off([cut(trace, [20], [5], layers=[])], trace)):
            assert vlm.model(**tensors).logits.equal(plain)


def test_before_its_layer_and_outside_its_rows_nothing_changes(vlm, trace, replay):
    with vlm.lock, torch.no_grad():
        mask = cut_off([cut(trace, [22], [5, 6], layers=[1])], trace)
        kept = [replay.run(replay.entering(0), stop=stop, mask=mask)[0] for stop in (1, 2)]
    torch.testing.assert_close(kept[0], trace.residual(0), **CLOSE)
    changed = (kept[1] - trace.residual(1)).abs().amax(-1)
    assert changed[22] > 1e-3
    assert changed[torch.arange(trace.length) != 22].max() < 1e-4


def test_a_key_without_attention_is_not_missed():
    vlm = interp.Vlm(*tiny.build("crop"))
    with torch.no_grad():
        vlm.blocks[1].self_attn.q_proj.weight *= 10_000  # nearly all attention goes to one key
    trace = vlm.trace(tiny.noise(60, 60), PROMPT, max_new_tokens=2)
    seen = []
    with vlm.lock:
        replay = Replay.of(trace, read=lambda heads: seen.append(heads.weights()[0, :, -1]) if heads.layer == 1 else None)
    row = trace.length - 1
    unread = (seen[-1].amax(0)[:row] == 0).nonzero().flatten().tolist()
    assert unread
    (states,), _ = cut_states(replay, [cut(trace, [row], unread, layers=[1])], [row])
    torch.testing.assert_close(states, trace.residual(trace.n_layers - 1)[[row]], **CLOSE)


def test_many_cuts_in_batches_equal_each_alone(trace, replay):
    rows = [25, trace.length - 1]
    cuts = [cut(trace, range(first, last), [position], layers) for first, last, position, layers in
            ((20, 26, 5, [0]), (24, 25, 6, [1, 2]), (25, 30, 21, None), (26, 27, 2, [2]), (20, 21, 20, [0, 2]), (30, 31, 4, [1]))]  # fmt: skip
    together, forwards = cut_states(replay, [*cuts, cut(trace, [], [])], rows)
    alone = torch.cat([cut_states(replay, [each], rows)[0] for each in cuts])
    torch.testing.assert_close(together[:-1], alone, **CLOSE)
    assert forwards < len(cuts)
    torch.testing.assert_close(together[3, 0], trace.residual(trace.n_layers - 1)[25], **CLOSE)  # a row in front of the cut


def test_chosen_heads_are_cut_and_others_are_not(vlm, trace, replay):
    row, gone = trace.length - 1, (5, 6, 7)
    some = Cut((row,), gone, frozenset([1]), (0, 3))
    seen = []
    with vlm.lock, torch.no_grad():
        for mask in (None, cut_off([some], trace)):
            replay.run(replay.entering(1, row), layer=1, start=row, stop=2, mask=mask, read=lambda heads: seen.append(heads.weights()))
        fast = replay.run(replay.entering(1, row), layer=1, start=row, mask=cut_off([some], trace))
        slow = replay.run(replay.entering(1, row), layer=1, start=row, mask=cut_off([some], trace), read=lambda heads: heads.weights())
    plain, without = (weights[0, :, 0] for weights in seen)
    torch.testing.assert_close(without[[1, 2]], plain[[1, 2]], **CLOSE)
    assert without[[0, 3]][:, list(gone)].count_nonzero() == 0
    expected = plain[[0, 3]].clone()
    expected[:, list(gone)] = 0
    torch.testing.assert_close(without[[0, 3]], expected / expected.sum(-1, keepdim=True), **CLOSE)
    torch.testing.assert_close(fast, slow, **CLOSE)
    every, all_heads = (interp.knockout(trace, "image", heads=heads, answer=False) for heads in (range(4), None))
    torch.testing.assert_close(every.log_odds[1], all_heads.log_odds[1], **CLOSE)


def test_the_figures_are_those_of_the_words_probabilities(vlm, trace):
    found = knockout(trace, "image", answer=False)
    emit = list(range(trace.answer_start - 1, trace.length))
    words = torch.tensor([token.id for token in trace.tokens[trace.answer_start :]])[:, None]
    image = trace.positions("image")
    before, after = (naive(vlm, trace, emit, positions)[emit].double().softmax(-1) for positions in ([], image))
    for ours, of in zip(found.probability, (before, after), strict=True):
        torch.testing.assert_close(ours.double(), of.gather(1, words)[:, 0], atol=1e-5, rtol=1e-3)
    for ours, of in zip(found.log_odds, (before, after), strict=True):
        p = of.gather(1, words)[:, 0]
        torch.testing.assert_close(ours.double(), (p / (1 - p)).log(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.kl.double(), (before * (before / after).log()).sum(-1), atol=1e-4, rtol=1e-3)
    one = knockout(trace, "image", token=2, answer=False)
    torch.testing.assert_close(one.probability[1][0], found.probability[1][2])
    assert one.tokens == (trace.answer_start + 2,)


@pytest.mark.parametrize("name", ["llava_next", "gemma3", "paligemma", "qwen2_vl", "qwen3_vl", "qwen3_5", "aya_vision", "molmo2"])
def test_the_new_answer_equals_uncached_forwards_with_the_same_cut(name):
    vlm = families.vlm(name)
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    found = knockout(trace, "image", "last")
    assert len(found.answer.ids) == 3 or found.answer.finished
    # A trace of the new answer, run again with the same cut, must say each of its words.
    text = [*trace.tokens[: trace.answer_start], *(interp.Token(i, "", "answer") for i in found.answer.ids)]
    with vlm.lock, torch.no_grad():
        forced = record(vlm, vlm.prepare(trace.image, trace.prompt), max_new_tokens=3, answer=torch.tensor(found.answer.ids))
        assert [token.id for token in forced.tokens] == [token.id for token in text]
        replay = Replay.of(forced)
        emit = range(trace.answer_start - 1, forced.length)
        having = [layer for layer in range(vlm.n_layers) if layer not in replay.without_attention]
        (states,), _ = cut_states(replay, [cut(forced, emit, trace.positions("image"), having)], emit)
        assert vlm.unembed.logits(states).argmax(-1).tolist() == list(found.answer.ids)
    assert found.plain_answer.ids == tuple(token.id for token in trace.tokens[trace.answer_start :])


@pytest.mark.parametrize("name", ["gemma3", "paligemma"])
def test_attention_that_looks_ahead_within_a_picture_is_kept(name):
    vlm = families.vlm(name)
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=2)
    first, *_, last = trace.positions("image")
    with vlm.lock, torch.no_grad():
        replay = Replay.of(trace)
        seen = {}
        mask = cut_off([cut(trace, [first], [last], layers=[1])], trace)
        replay.run(replay.entering(0), mask=mask, read=lambda heads: seen.update({heads.layer: heads.visible()[0, 0]}))
    expected = replay.masks[1][0, 0].clone()
    assert expected[first, last]
    expected[first, last] = False
    assert seen[1].equal(expected)
    assert seen[0].equal(replay.masks[0][0, 0])


def test_the_map_is_the_loss_of_each_patch_alone(trace):
    found = knockout_map(trace, 1)
    for at in (0, 7, 15):
        position = trace.positions("image")[at]
        alone = knockout(trace, {"positions": [position]}, {"positions": list(range(position + 1, trace.length))}, token=1, answer=False)
        plain, without = (each.log() for each in alone.probability)
        torch.testing.assert_close(found.on_image()[at : at + 1], plain - without, **CLOSE)
    assert found.values.count_nonzero() == 16
    assert not found.values.allclose(knockout_map(trace, 1, layers=[2]).values)


def test_targets_and_sources_in_words(trace):
    last = trace.answer_start - 1
    own = knockout(trace, "last", "last", answer=False)
    assert own.source_positions == (last,)
    prompt = knockout(trace, "image", "prompt", answer=False)
    behind = list(range(20, last))
    same = knockout(trace, "image", {"positions": behind}, answer=False)
    assert prompt.log_odds[1].equal(same.log_odds[1])
    answer = knockout(trace, "image", "answer", answer=False)
    assert answer.log_odds[1].equal(knockout(trace, "image", "last", answer=False).log_odds[1])
    assert {"schema", "sources", "targets", "layers", "tokens", "answer", "diff"} <= set(json.loads(json.dumps(own.to_dict())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {"positions": []}}, "sources"),
        ({"sources": "answer", "targets": "image"}, "None of the targets"),
        ({"sources": {"positions": [29]}, "targets": {"positions": [28]}}, "earlier sources or later targets"),
        ({"sources": "all", "targets": "last"}, r"everything that row 26 .* can read in layer 0"),
        ({"sources": {"positions": [0, 1]}, "targets": {"positions": [1]}}, r"everything that row 1 .*itself included"),
        ({"layers": [3]}, "Layer 3 does not exist"),
        ({"layers": []}, "layers is"),
        ({"heads": [4]}, "Head 4 does not exist"),
        ({"token": "nothing"}, "not a single token of the answer"),
        ({"sources": "last one"}, "sources: where"),
        ({"targets": {"patches": [[9, 9]]}}, "targets: Patch row 9"),
    ],
)
def test_what_cannot_be_cut_is_refused(trace, change, message):
    with pytest.raises(InterpError, match=message):
        knockout(**{"trace": trace, "sources": "image"} | change)


def test_layers_without_attention_are_left_out_and_refused_by_name():
    vlm = families.vlm("qwen3_5")
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=2)
    with vlm.lock:
        without = Replay.of(trace).without_attention
    assert set(knockout(trace, "image", answer=False).layers) == set(range(vlm.n_layers)) - set(without)
    with pytest.raises(InterpError, match=rf"Layer {without[0]} .* has no attention"):
        knockout(trace, "image", layers=[without[0]])
    with pytest.raises(InterpError, match="has no attention"):
        knockout_map(trace, 0, layers=[without[0]])


def test_without_the_object_the_noun_is_gone_and_without_other_patches_it_stays(emoji_vlm):
    trace = emoji_vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", PROMPT)
    image = trace.positions("image")
    says_dog = interp.logit_lens(trace).probability("dog")[-1][image] > 0.3
    dog = [position for position, inside in zip(image, says_dog.tolist(), strict=True) if inside]
    behind = {"positions": list(range(image[-1] + 1, trace.length))}
    without = knockout(trace, {"positions": dog}, behind, token="dog")
    assert without.probability[0] > 0.9
    assert without.probability[1] < 0.05
    assert "dog" in without.plain_answer.text
    assert "dog" not in without.answer.text
    elsewhere = sorted(set(image) - set(dog))
    for seed in range(3):
        others = random.Random(seed).sample(elsewhere, len(dog))
        kept = knockout(trace, {"positions": others}, behind, token="dog")
        assert kept.probability[1] > 0.9
        assert kept.answer.text == trace.answer
