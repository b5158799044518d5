"""SteeringResult generation against its definition (steering_reference), on tiny random models with random SAEs and vectors."""

import contextlib
import dataclasses
import itertools
import json
import math
import threading

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import interp
from interp import Contrast, Edit, InterpError, steer, steer_each, steer_sweep, steered_trace
from interp.steering import batch, generation
from interp.steering import steer as steering
from interp.steering.batch import StoppedError
from interp.steering.generation import Noise
from tests import tiny
from tests.conftest import PROMPT
from tests.steering_reference import D, Naive, activations, change, random_sae
from tests.tracing.test_trace import hooks_of, same

NEW = 5
SAE = random_sae()
VECTOR = torch.randn(D, generator=torch.Generator().manual_seed(7))
MODELS = ["crop", "interleave", "ignored cap", "with sinks"]
PROMPT_LENGTH, IMAGE = 27, [*range(4, 20)]
MANY = [  # two of one layer, two of another, one at the last; an SAE's and vectors; over and beside each other
    Edit(sae=SAE, feature=3, target=4),
    Edit(vector=VECTOR, layer=1, strength=0.5, where="image"),
    Edit(vector=VECTOR.flip(0), layer=0, amount=-0.6, where="answer"),
    Edit(sae=random_sae("jumprelu", "layer_norm", layer=0, seed=1), feature=5, strength=0.7, where="prompt"),
    Edit(sae=random_sae(layer=2, seed=2), feature=8, strength=0.3, where={"box": [0, 1, 2, 3]}),
]


def push(strength=0.5, **fields):
    return Edit(**{"sae": SAE, "feature": 3, "strength": strength} | fields)


@pytest.fixture(scope="module")
def model_of(load):
    """name → Vlm, as everywhere, and one whose text and picture have attention sinks that are none of BOS."""

    model, processor = tiny.build("crop")
    with_sinks = interp.Vlm(model, processor, name="with sinks")
    describe = with_sinks.tokenizer.convert_tokens_to_ids("Describe")
    with torch.no_grad():
        model.get_input_embeddings().weight[describe] *= 300
    model.model.multi_modal_projector.register_forward_hook(
        lambda _module, _args, out: out.index_fill(1, torch.tensor(5), 0) + 40 * F.one_hot(torch.tensor(5), 16)[:, None]
    )
    return lambda name: with_sinks if name == "with sinks" else load(name)


@contextlib.contextmanager
def heads_outputs(vlm):
    """What the model says at every forward: [rows, positions, vocabulary]."""
    seen = []
    handle = vlm.head.register_forward_hook(lambda _module, _args, logits: seen.append(logits.float()))
    try:
        yield seen
    finally:
        handle.remove()


def agrees_with_the_definition(vlm, picture, edits, **options):
    with heads_outputs(vlm) as said:
        found = steer(vlm, picture, PROMPT, edits, max_new_tokens=NEW, **options)
    for row, (answer, pushed) in enumerate([(found.plain_answer, []), (found.steered_answer, edits)]):
        naive = Naive(vlm, picture, PROMPT, pushed)
        ids, logits = naive.answer(NEW, **options)
        assert list(answer.ids) == ids
        torch.testing.assert_close(torch.stack([step[row, -1] for step in said[: len(ids)]]), logits, rtol=1e-3, atol=1e-3)
    for did, lengths, shares in zip(found.applied, naive.lengths, naive.shares, strict=True):
        changed = sum(length > 0 for length in lengths)
        assert did.fired == changed
        assert did.absolute == pytest.approx(sum(lengths) / max(1, changed), rel=1e-3, abs=1e-5)
        assert did.relative == pytest.approx(sum(shares) / max(1, changed), rel=1e-3, abs=1e-6)
    assert found.fired == tuple(did.fired for did in found.applied)
    return found


def agree(one, other):
    """Two `SteeringResult` are the same but for the rounding of other batches."""
    assert (one.plain_answer, one.steered_answer, one.fired) == (other.plain_answer, other.steered_answer, other.fired)
    for key in ("kl", "words"):
        torch.testing.assert_close(getattr(one, key), getattr(other, key), rtol=1e-3, atol=1e-5)
    for did, done in zip(one.applied, other.applied, strict=True):
        assert (did.absolute, did.relative) == pytest.approx((done.absolute, done.relative), rel=1e-4, abs=1e-6)


# Against the definition


@pytest.mark.parametrize(
    "where",
    ["all", "image", "prompt", "answer", {"patches": [[0, 0], [2, 1]]}, {"box": [1, 0, 2, 3]}, {"positions": [0, 21, 26]}],
    ids=repr,
)
@pytest.mark.parametrize(
    "fields",
    [
        {"sae": SAE, "feature": 3, "strength": 0.8},
        {"sae": SAE, "feature": 3, "amount": -6},
        {"sae": SAE, "feature": 1, "target": 0},
        {"vector": VECTOR, "layer": 0, "strength": -0.5},
        {"vector": VECTOR, "layer": 2, "amount": 1.5},
        {"vector": VECTOR, "layer": 1, "target": 9},
    ],
    ids=lambda fields: " ".join(f"{key} {value}" for key, value in fields.items() if isinstance(value, int | float)),
)
def test_every_unit_in_every_place(vlm, picture, fields, where):
    found = agrees_with_the_definition(vlm, picture, [Edit(**fields, where=where)])
    if fields.get("layer") != 2 or where in ("all", "prompt", "answer") or "positions" in where:
        assert max(found.kl) > 1e-7, "all but what the last layer adds to the picture, which nothing looks back at"


@pytest.mark.parametrize("normalisation", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("unit", ["amount", "target"])
def test_every_kind_of_sae(vlm, picture, unit, activation, normalisation):
    agrees_with_the_definition(vlm, picture, [Edit(sae=random_sae(activation, normalisation), feature=2, **{unit: 5.0})])


def test_a_topk_sae_s_choice_decides_what_is_switched_off(vlm, picture):
    """A feature that is above 0 but not among the k largest is shown as inactive, and switching it off leaves the run as it was."""
    sae = random_sae("topk", k=3)
    acts = sae.encode(vlm.trace(picture, PROMPT, max_new_tokens=1).residual(1)[IMAGE])
    above = (dataclasses.replace(sae, k=48).encode(vlm.trace(picture, PROMPT, max_new_tokens=1).residual(1)[IMAGE])).features
    counts = torch.bincount(acts.features, minlength=48)
    unshown = next(f for f in range(48) if counts[f] == 0 and (above == f).any())
    off = steer(vlm, picture, PROMPT, [Edit(sae=sae, feature=unshown, target=0, where="image")], max_new_tokens=NEW)
    assert (off.fired, max(off.kl), off.steered_answer) == ((0,), pytest.approx(0, abs=1e-6), off.plain_answer)
    shown = int(counts.argmax())
    edits = [Edit(sae=sae, feature=f, target=0, where="image") for f in (shown, unshown)]
    assert agrees_with_the_definition(vlm, picture, edits).fired == (int(counts[shown]), 0)


def test_one_pass_over_the_encoder_serves_all_edits_of_a_topk_sae(vlm, picture, monkeypatch):
    calls, real = [], interp.Sae.kept
    monkeypatch.setattr(interp.Sae, "kept", lambda sae, states: calls.append(len(states)) or real(sae, states))
    sae = random_sae("topk")
    states = vlm.trace(picture, PROMPT, max_new_tokens=1).residual(1)[IMAGE]
    above = sae.read(states)[0][:, :5] > 0
    steer(vlm, picture, PROMPT, [Edit(sae=sae, feature=f, target=0, where="image") for f in range(5)], max_new_tokens=3)
    assert calls == [int(above.any(1).sum())]
    calls.clear()
    steer(vlm, picture, PROMPT, [Edit(sae=sae, feature=2, amount=1)], max_new_tokens=3)
    assert calls == []


def test_one_pass_over_the_encoder_serves_many_features_beside_each_other(vlm, picture, monkeypatch):
    calls, real = [], interp.Sae.kept
    monkeypatch.setattr(interp.Sae, "kept", lambda sae, states: calls.append(len(states)) or real(sae, states))
    sae = random_sae("topk")
    above = sae.read(vlm.trace(picture, PROMPT, max_new_tokens=1).residual(1)[IMAGE])[0][:, :5] > 0
    steer_each(vlm, picture, PROMPT, [Edit(sae=sae, feature=f, target=0, where="image") for f in range(5)], max_new_tokens=3)
    assert calls == [int(above.sum())]


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu"])
@pytest.mark.parametrize("fields", [{"target": 4.0}, {"target": 0.0, "where": "image"}, {"strength": 0.8}, {"amount": -6.0}], ids=repr)
def test_features_beside_each_other_are_what_each_is_alone(vlm, picture, monkeypatch, activation, fields):
    sae, other = random_sae(activation), random_sae("topk", layer=0, seed=3)
    edits = [*(Edit(sae=sae, feature=f, **fields) for f in (1, 5, 9, 5)), Edit(sae=other, feature=2, **fields)]
    alone = [steer(vlm, picture, PROMPT, [edit], max_new_tokens=NEW, words=["dog"]) for edit in edits]
    for rows in (64, 3):  # in one batch, and in two
        monkeypatch.setattr(batch, "rows_at_once", lambda *_, rows=rows: rows)
        found = steer_each(vlm, picture, PROMPT, edits, max_new_tokens=NEW, words=["dog"])
        for one, each in zip(alone, found, strict=True):
            agree(one, each)


def test_the_plain_answer_is_computed_once(vlm, picture):
    with heads_outputs(vlm) as said:
        found = steer_each(vlm, picture, PROMPT, [push(feature=f) for f in range(6)], max_new_tokens=NEW)
    assert {len(step) for step in said} == {7}
    assert len({each.plain_answer for each in found}) == 1


def test_the_encoder_is_read_only_for_positions_where_the_feature_is_above_zero(vlm, picture, monkeypatch):
    calls, real = [], interp.Sae.kept
    monkeypatch.setattr(interp.Sae, "kept", lambda sae, states: calls.append(len(states)) or real(sae, states))
    sae = random_sae("topk")
    above = sae.read(vlm.trace(picture, PROMPT, max_new_tokens=1).residual(1)[IMAGE])[0] > 0
    counts = above.sum(0).tolist()
    some = next(f for f in range(sae.d_sae) if 0 < counts[f] < 16)
    agrees_with_the_definition(vlm, picture, [Edit(sae=sae, feature=some, target=0, where="image")])
    assert calls
    assert set(calls) == {counts[some]}
    calls.clear()
    off = next([f, i] for f in range(sae.d_sae) for i in range(16) if not above[i, f])
    edit = Edit(sae=sae, feature=off[0], target=0, where={"positions": [IMAGE[off[1]]]})
    assert steer(vlm, picture, PROMPT, [edit], max_new_tokens=NEW).fired == (0,)
    assert calls == []


def test_only_positions_that_change_are_counted(vlm, picture):
    """A hook that ran is not a change; an edit of strength 0 changes nothing, and so does a push that rounding takes away."""
    nothing = steer(vlm, picture, PROMPT, [push(0)], max_new_tokens=NEW).applied[0]
    assert (nothing.fired, nothing.absolute, nothing.relative) == (0, 0, 0)
    assert steer(vlm, picture, PROMPT, [push(1e-30)], max_new_tokens=NEW).fired == (0,)
    active = (SAE.encode(vlm.trace(picture, PROMPT, max_new_tokens=1).residual(1)[IMAGE]).features == 3).sum()
    assert 0 < active < 16
    assert steer(vlm, picture, PROMPT, [Edit(sae=SAE, feature=3, target=0, where="image")], max_new_tokens=NEW).fired == (int(active),)


@pytest.mark.parametrize(
    ("where", "warned"),
    [("image", True), ({"positions": [3, 21]}, True), ({"patches": [[0, 0]]}, True), ({"positions": [26]}, False)]
    + [(where, False) for where in ("all", "prompt", "answer")],
    ids=repr,
)
def test_an_edit_that_nothing_reads_is_told(vlm, picture, where, warned):
    found = steer(vlm, picture, PROMPT, [Edit(vector=VECTOR, layer=2, strength=1, where=where)], max_new_tokens=NEW)
    assert any("cannot change" in note for note in found.notes) == warned
    assert (max(found.kl) < 1e-6) == warned
    assert found.fired[0] > 0
    earlier = steer(vlm, picture, PROMPT, [Edit(vector=VECTOR, layer=1, strength=1, where=where)], max_new_tokens=NEW)
    assert earlier.notes == ()


@pytest.mark.parametrize("temperature", [0, 0.2, 1.5])
@pytest.mark.parametrize("name", MODELS)
def test_many_edits_on_several_layers(model_of, picture, name, temperature):
    vlm = model_of(name)
    found = agrees_with_the_definition(vlm, picture, MANY, temperature=temperature, seed=4)
    assert min(found.kl) > 1e-3
    assert temperature or found.steered != found.plain
    if name == "with sinks":
        naive = Naive(vlm, picture, PROMPT, MANY)
        assert all(len(sinks) == 3 for _, _, sinks in naive.sizes.values()), "BOS, one of the picture, one of the text"


@pytest.mark.parametrize(
    "edits",
    [
        [push(feature=3), push(feature=8)],
        [push(where="image"), push(where="prompt")],
        [push(0.5), push(sae=random_sae(seed=1))],
        [push(0.5), push(strength=None, amount=0.5)],
        [push(0.5), push(sae=dataclasses.replace(SAE, layer=2))],
        [Edit(vector=vector, layer=1, amount=1) for vector in (VECTOR, VECTOR.flip(0))],
        [Edit(vector=VECTOR, layer=layer, amount=1) for layer in (0, 1)],
    ],
    ids=["feature", "place", "SAE", "unit", "layer of an SAE", "vector", "layer of a vector"],
)
def test_edits_that_differ_in_one_thing(vlm, picture, edits):
    agrees_with_the_definition(vlm, picture, edits)


@pytest.mark.parametrize("new", [1, 2])
def test_the_shortest_answers(vlm, picture, new):
    found = steer(vlm, picture, PROMPT, [push(2)], max_new_tokens=new, words=["dog"])
    naive = Naive(vlm, picture, PROMPT, [push(2)])
    assert list(found.steered_answer.ids) == naive.answer(new)[0]
    assert found.fired == (PROMPT_LENGTH - 1 + new - 1,)  # not BOS, and the last token never enters the model
    assert len(found.kl) == len(found.words["dog"][0]) == len(found.words["dog"][1]) == new
    assert steered_trace(vlm.trace(picture, PROMPT, max_new_tokens=new), [push(2)], found.steered_answer).length == PROMPT_LENGTH + new - 1


# Nothing changes where nothing is asked for


@pytest.mark.parametrize("normalisation", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("activation", ["relu", "jumprelu", "gated", "topk"])
def test_no_push_changes_nothing(vlm, picture, trace, activation, normalisation):
    """Strength 0, amount 0, and the activation that a feature has anyway, at the one position that is edited."""
    sae = random_sae(activation, normalisation)
    at = 21
    z, _ = activations(sae, trace.residual(sae.layer)[at])
    feature = int(z.argmax())
    assert z[feature] > 0
    edits = [Edit(sae=sae, feature=feature, where={"positions": [at]}, target=float(z[feature]))]
    edits += [Edit(sae=sae, feature=feature, strength=0), Edit(sae=sae, feature=feature, amount=0)]
    for edit in edits:
        found = steer(vlm, picture, PROMPT, [edit], max_new_tokens=6, words=["dog"])
        assert found.plain == trace.answer
        assert found.steered_answer == found.plain_answer
        assert max(found.kl) < 1e-5
        assert found.words["dog"][1] == pytest.approx(found.words["dog"][0], abs=1e-5)
        assert found.applied[0].absolute < 1e-5
        assert found.diff == [{"op": "equal", "plain": trace_text(trace), "steered": trace_text(trace)}]
        states = steered_trace(trace, [edit], found.steered_answer).states
        torch.testing.assert_close(states, trace.states, rtol=0, atol=1e-4)
    assert max(steer(vlm, picture, PROMPT, [edits[0].with_value(float(z[feature]) + 3)], max_new_tokens=6).kl) > 1e-5


def trace_text(trace):
    return "".join(token.text for token in trace.tokens if token.kind == "answer")


# Batches


def test_the_pair_is_two_single_runs(vlm, picture, trace, monkeypatch):
    pair = steer(vlm, picture, PROMPT, MANY, words=["dog"], max_new_tokens=6)
    assert [token.id for token in trace.tokens[PROMPT_LENGTH:]] == list(pair.plain_answer.ids)
    monkeypatch.setattr(batch, "rows_at_once", lambda *_: 1)
    agree(steer(vlm, picture, PROMPT, MANY, words=["dog"], max_new_tokens=6), pair)


@pytest.mark.parametrize("temperature", [0, 0.2])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_a_sweep_is_its_single_runs_in_any_number_of_batches(vlm, picture, rows, temperature, monkeypatch):
    """With an edit of an earlier layer in every row: the usual norm of the later one is still that of the plain run."""
    options = {"max_new_tokens": NEW, "temperature": temperature, "seed": 2, "words": ["dog"]}
    values, others = [-4, 0, 0.4, 3], [Edit(vector=VECTOR, layer=0, strength=0.9)]
    alone = [steer(vlm, picture, PROMPT, [push(value), *others], **options) for value in values]
    monkeypatch.setattr(batch, "rows_at_once", lambda *_: rows)
    shown = []
    sweep = steer_sweep(vlm, picture, PROMPT, push(9), values, others=others, on_text=shown.append, **options)
    assert sweep.values == (-4, 0, 0.4, 3)
    for run, single in zip(sweep.runs, alone, strict=True):
        agree(run, single)
    assert shown[-1] == [sweep.runs[0].plain, *(run.steered for run in sweep.runs)]
    assert len(set(shown[-1])) > 2
    assert sweep.to_list() == [
        {"strength": value, "answer": run.steered, "kl": pytest.approx(sum(run.kl) / NEW), "relative": run.applied[0].relative}
        for value, run in zip(values, sweep.runs, strict=True)
    ]


def test_a_sweep_goes_over_the_edits_own_unit(vlm, picture):
    sweep = steer_sweep(vlm, picture, PROMPT, Edit(sae=SAE, feature=3, target=1), (0, 6), max_new_tokens=2)
    assert [set(row) for row in sweep.to_list()] == [{"target", "answer", "kl", "relative"}] * 2
    for value, run in zip((0, 6), sweep.runs, strict=True):
        agree(run, steer(vlm, picture, PROMPT, [Edit(sae=SAE, feature=3, target=value)], max_new_tokens=2))
    assert [run.applied[0].edit.strength for run in steer_sweep(vlm, picture, PROMPT, push(), max_new_tokens=1).runs] == list(
        steering.STRENGTHS
    )


def test_the_order_of_edits_means_nothing(vlm, picture):
    whole = steer(vlm, picture, PROMPT, MANY, max_new_tokens=NEW)
    for edits in (MANY[::-1], MANY[2:] + MANY[:2]):
        other = steer(vlm, picture, PROMPT, edits, max_new_tokens=NEW)
        assert other.steered_answer == whole.steered_answer
        torch.testing.assert_close(other.kl, whole.kl, rtol=1e-3, atol=1e-6)
        assert {id(did.edit): pytest.approx(did.absolute) for did in whole.applied} == {id(did.edit): did.absolute for did in other.applied}


def test_an_edit_that_stands_twice_acts_twice(vlm, picture):
    twice = steer(vlm, picture, PROMPT, [push(0.5), push(0.3)], max_new_tokens=NEW)
    once = steer(vlm, picture, PROMPT, [push(0.8)], max_new_tokens=NEW)
    assert twice.steered_answer == once.steered_answer
    torch.testing.assert_close(twice.kl, once.kl, rtol=1e-3, atol=1e-6)
    assert sum(did.absolute for did in twice.applied) == pytest.approx(once.applied[0].absolute)


@pytest.mark.parametrize("free", [0, 1 << 24, 1 << 34])
def test_rows_by_the_memory_that_is_free(vlm, free, monkeypatch):
    monkeypatch.setattr(generation, "free_bytes", lambda _device: free)
    short, long = (generation.rows_at_once(vlm, length) for length in (50, 5000))
    assert short >= long >= 1
    assert (short > 1) == (free > 0)
    if free > 1 << 30:
        assert short > 10 * long
    state = 4 * vlm.d_model * 50  # one row's states of one layer
    assert short * state < max(free, 2 * state)


# Answers that end


@pytest.fixture
def ends(vlm, monkeypatch):
    """Set the ids that end an answer, and what pads the rows that ended."""

    def set_ends(ids, pad=None):
        monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", ids)
        monkeypatch.setattr(vlm.model.generation_config, "pad_token_id", pad)

    return set_ends


@pytest.mark.parametrize(("padding", "rows"), [("none", 99), ("its own", 3), ("the end", 2)])
def test_rows_that_end_before_the_others(vlm, picture, ends, monkeypatch, padding, rows):
    monkeypatch.setattr(batch, "rows_at_once", lambda *_: rows)
    values = [-3, -1, 0.5, 1, 2, 4]
    free = steer_sweep(vlm, picture, PROMPT, push(), values, max_new_tokens=9)
    said = {i for run in free.runs for i in run.steered_answer.ids}
    lengths = set()
    for end in sorted(said):
        ends([end, 1], {"none": None, "its own": vlm.tokenizer.pad_token_id, "the end": end}[padding])
        shown = []
        sweep = steer_sweep(vlm, picture, PROMPT, push(), values, max_new_tokens=9, on_text=shown.append)
        plain = sweep.runs[0].plain_answer
        for value, run, before in zip(values, sweep.runs, free.runs, strict=True):
            for answer, whole in ((plain, before.plain_answer.ids), (run.steered_answer, before.steered_answer.ids)):
                cut = whole[: whole.index(end) + 1] if end in whole else whole
                assert answer.ids == cut
                assert answer.finished == (end in whole)
                assert len(answer.tokens) == len(cut)
                assert answer.text == vlm.tokenizer.decode(cut, skip_special_tokens=True).strip()
            steps = len(run.steered_answer.ids)
            naive = Naive(vlm, picture, PROMPT, [push(value)])
            naive.logits(run.steered_answer.ids[:-1])
            assert run.fired == (len(naive.lengths[0]),) == (PROMPT_LENGTH - 1 + steps - 1,)
            assert run.applied[0].relative == pytest.approx(sum(naive.shares[0]) / len(naive.shares[0]), rel=1e-4)
            assert len(run.kl) == len(plain.ids)
            lengths.add((len(plain.ids), steps))
        assert shown[-1] == [plain.text, *(run.steered for run in sweep.runs)]
    assert any(plain < steered for plain, steered in lengths)
    assert any(plain > steered > 1 for plain, steered in lengths)
    assert any(plain == 1 for plain, _ in lengths), "an answer that is nothing but its end"


def test_a_model_without_an_end(vlm, picture, ends):
    before = steer(vlm, picture, PROMPT, [push()], max_new_tokens=NEW)
    ends(None)
    end, vlm.tokenizer.eos_token = vlm.tokenizer.eos_token, None
    try:
        after = steer(vlm, picture, PROMPT, [push()], max_new_tokens=NEW)
    finally:
        vlm.tokenizer.eos_token = end
    assert after.steered_answer == before.steered_answer
    assert not after.steered_answer.finished


def test_answers_are_what_the_model_says_whatever_the_checkpoint_asks_for(vlm, picture, monkeypatch):
    own = vlm.model.generation_config
    expected = steer(vlm, picture, PROMPT, [push()], max_new_tokens=NEW)
    monkeypatch.setattr(own, "repetition_penalty", 9.0)
    monkeypatch.setattr(own, "suppress_tokens", [expected.steered_answer.ids[0]])
    assert steer(vlm, picture, PROMPT, [push()], max_new_tokens=NEW).to_dict() == expected.to_dict()
    assert vlm.model.generation_config is own


def test_the_pictures_placeholder_may_be_a_word_of_the_answer(vlm, picture):
    placeholder = F.one_hot(torch.tensor(vlm.image_token_id), vlm.head.weight.shape[0]) * 1e4
    handle = vlm.head.register_forward_hook(lambda _module, _args, logits: logits + placeholder)
    try:
        found = steer(vlm, picture, PROMPT, [push(0.5)], max_new_tokens=3)
    finally:
        handle.remove()
    assert found.plain_answer.ids == found.steered_answer.ids == (vlm.image_token_id,) * 3
    assert found.fired == (PROMPT_LENGTH - 1 + 2,)
    assert len(found.kl) == 3


# What a steered run looks like inside


@pytest.mark.parametrize(
    ("where", "touched"),
    [("image", IMAGE), ({"patches": [[1, 2]]}, [10]), ("prompt", [1, 2, 3, *range(20, 27)]), ("answer", [*range(26, 31)]), ("all", [*range(1, 31)]), ({"positions": [0]}, [0])],
    ids=repr,
)  # fmt: skip
def test_an_edit_touches_its_place_at_its_layer_and_what_comes_after(vlm, picture, where, touched):
    edit = push(0.5, where=where)
    plain = vlm.trace(picture, PROMPT, max_new_tokens=NEW)
    answer = steer(vlm, picture, PROMPT, [edit], max_new_tokens=NEW).plain_answer
    steered = steered_trace(plain, [edit], answer)  # the plain answer, so that the tokens are the same
    assert steered.tokens == plain.tokens
    for layer in (interp.EMBED, 0):
        torch.testing.assert_close(steered.residual(layer), plain.residual(layer), rtol=0, atol=1e-4)
    before, after = plain.residual(1), steered.residual(1)
    changed = (after - before).norm(dim=-1) > 1e-3
    assert changed.nonzero().flatten().tolist() == touched
    image, text, _ = Naive(vlm, picture, PROMPT, [edit]).sizes[1]
    expected = before.clone()
    for at in touched:
        expected[at] += change(edit, before[at], image if at in IMAGE else text)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-4)
    later = (steered.residual(2) - plain.residual(2)).norm(dim=-1) > 1e-4
    assert later.nonzero().flatten().tolist() == [*range(touched[0], plain.length)]


def test_a_strength_is_a_share_of_the_usual_norm(model_of, picture):
    """Image and text apart, sinks not counted; of those that are named the same."""
    vlm = model_of("with sinks")
    plain = vlm.trace(picture, PROMPT, max_new_tokens=2)
    edit = push(-0.25, where={"positions": [0, 2, 7, 9, 21]})
    steered = steered_trace(plain, [edit], steer(vlm, picture, PROMPT, [edit], max_new_tokens=2).plain_answer)
    norms = plain.residual(1)[:PROMPT_LENGTH].norm(dim=-1)
    sinks = [0, 9, 21]
    usual_image = norms[[i for i in IMAGE if i not in sinks]].median()
    usual_text = norms[[i for i in range(PROMPT_LENGTH) if i not in IMAGE and i not in sinks]].median()
    assert norms[9] > 5 * usual_image
    assert norms[21] > 5 * usual_text
    pushed = (steered.residual(1) - plain.residual(1)).norm(dim=-1)
    expected = torch.stack([usual_text, usual_text, usual_image, usual_image, usual_text])
    torch.testing.assert_close(pushed[[0, 2, 7, 9, 21]], 0.25 * expected, rtol=1e-3, atol=1e-3)


def test_the_target_of_a_vector_is_its_projection(vlm, picture, trace):
    edit = Edit(vector=5 * VECTOR, layer=1, target=-3, where="image")
    answer = steer(vlm, picture, PROMPT, [edit], max_new_tokens=2).steered_answer
    along = steered_trace(trace, [edit], answer).residual(1) @ (VECTOR / VECTOR.norm())
    torch.testing.assert_close(along[IMAGE], torch.full((16,), -3.0), rtol=0, atol=1e-4)
    assert ((trace.residual(1) @ (VECTOR / VECTOR.norm()))[IMAGE] + 3).abs().min() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_the_lens_of_a_steered_trace_ends_in_the_steered_answer(model_of, picture, name):
    vlm = model_of(name)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=6)
    found = steer(vlm, picture, PROMPT, MANY, max_new_tokens=6)
    steered = steered_trace(trace, MANY, found.steered_answer)
    assert steered.answer == found.steered != found.plain
    start = len(steered.tokens) - len(found.steered_answer.ids)
    if name != "interleave":  # whose padded head says ids that a lens never lists
        lens = interp.logit_lens(steered, top_k=1, layers=[vlm.n_layers - 1])
        assert tuple(lens.ids[0, start - 1 :, 0].tolist()) == found.steered_answer.ids
    with torch.inference_mode():
        said = vlm.head(vlm.norm(steered.residual(vlm.n_layers - 1)[start - 1 :])).argmax(-1)
    assert tuple(said.tolist()) == found.steered_answer.ids
    assert tuple(token.id for token in steered.tokens[start:]) == found.steered_answer.ids


# What is said of a steered run


def test_kl_and_words_are_those_of_two_forwards_over_the_plain_answer(vlm, picture):
    found = steer(vlm, picture, PROMPT, MANY, max_new_tokens=6, words=["dog", "cat"])
    ids = found.plain_answer.ids[:-1]
    plain, steered = (Naive(vlm, picture, PROMPT, edits).logits(ids).log_softmax(-1) for edits in ([], MANY))
    kl = F.kl_div(steered, plain, log_target=True, reduction="none").sum(-1)
    assert found.kl == pytest.approx(kl.tolist(), rel=1e-3)
    assert min(found.kl) > 1e-3
    for word in ("dog", "cat"):
        spellings = [i for i, text in enumerate(vlm.vocabulary.texts) if text.strip().lower() == word]
        assert len(spellings) == (3 if word == "dog" else 1)
        for said, logs in zip(found.words[word], (plain, steered), strict=True):
            assert said == pytest.approx(logs.exp()[:, spellings].sum(-1).tolist(), rel=1e-3)


@pytest.mark.parametrize("strength", [0, 0.5, 2, 4])
def test_the_difference_joins_to_both_answers(vlm, picture, strength):
    found = steer(vlm, picture, PROMPT, [push(strength)], max_new_tokens=8)
    assert "".join(piece["plain"] for piece in found.diff).strip() == found.plain
    assert "".join(piece["steered"] for piece in found.diff).strip() == found.steered
    for piece in found.diff:
        assert (piece["op"] == "equal") == (piece["plain"] == piece["steered"])
        assert bool(piece["plain"]) == (piece["op"] != "insert")
        assert bool(piece["steered"]) == (piece["op"] != "delete")


def test_everything_as_json(vlm):
    picture = Image.new("RGBA", (60, 60), (200, 30, 30, 0))
    sae = random_sae(model_name="someone/other-model", notes=("a note",))
    edits = [Edit(sae=sae, feature=3, target=4), Edit(vector=VECTOR, layer=0, amount=1, where={"positions": [5]})]
    found = steer(vlm, picture, PROMPT, edits, max_new_tokens=3, words=["dog"])
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["plain"], told["steered"], told["model"], told["prompt"]) == (found.plain, found.steered, vlm.name, PROMPT)
    assert "Transparent" in told["notes"].pop(0)
    assert told["notes"] == ["a note", "trained on another model: someone/other-model"]
    assert told["kl"] == list(found.kl)
    assert told["tokens"] == list(found.plain_answer.tokens)
    assert told["words"] == {"dog": {"plain": list(found.words["dog"][0]), "steered": list(found.words["dog"][1])}}
    first, second = told["edits"]
    measured = {"fired", "absolute", "relative"}
    assert {key: first[key] for key in first.keys() - measured} == {"sae": "random", "feature": 3, "layer": 1, "target": 4, "where": "all"}
    assert {key: second[key] for key in second.keys() - measured} == {
        "vector": "a vector at layer 0",
        "layer": 0,
        "amount": 1,
        "where": {"positions": [5]},
    }
    assert second["fired"] == 1
    assert second["absolute"] == pytest.approx(float(VECTOR.norm()))


def test_text_grows_and_ends_with_the_answers(vlm, picture):
    shown = []
    found = steer(vlm, picture, PROMPT, [push(2)], max_new_tokens=NEW, on_text=shown.append)
    assert len(shown) == NEW
    assert shown[-1] == [found.plain, found.steered]
    for earlier, later in itertools.pairwise(shown):
        assert all(after.startswith(before) and len(after) > len(before) for before, after in zip(earlier, later, strict=True))


# Nothing is left behind


@pytest.mark.parametrize("failure", ["layer", "callback", "stopped before", "stopped within", "not finite", "place"])
def test_nothing_is_left_behind(vlm, picture, trace, failure):
    def fail(*_):
        raise ZeroDivisionError

    stop, handle = threading.Event(), None
    before, own = hooks_of(vlm), vlm.model.generation_config
    options, edits, error = {"max_new_tokens": 6}, [push()], ZeroDivisionError
    if failure == "layer":
        handle = vlm.blocks[2].register_forward_pre_hook(fail)
    elif failure == "callback":
        options["on_text"] = fail
    elif failure == "not finite":
        edits, error = [push(1e300)], InterpError
    elif failure == "place":
        edits, error = [push(where={"positions": [99]})], InterpError
    else:
        options |= {"stop": stop, "on_text": lambda texts: stop.set() if len(texts[0].split()) == 3 else None}
        error = StoppedError
        if failure == "stopped before":
            stop.set()
    with pytest.raises(error), heads_outputs(vlm) as said:
        steer(vlm, picture, PROMPT, edits, **options)
    if handle:
        handle.remove()
    assert hooks_of(vlm) == before
    assert vlm.model.generation_config is own
    assert same(vlm.trace(picture, PROMPT, max_new_tokens=6), trace)
    if error is StoppedError:
        assert issubclass(StoppedError, InterpError)
        assert len(said) == (1 if failure == "stopped before" else 4), "the token that was under way is the last"


def test_nothing_is_left_behind_a_steered_trace(vlm, picture, trace):
    before = hooks_of(vlm)
    answer = steer(vlm, picture, PROMPT, [push()], max_new_tokens=3).steered_answer
    steered_trace(trace, [push()], answer)
    with pytest.raises(InterpError, match="Position 99 does not exist"):
        steered_trace(trace, [push(where={"positions": [99]})], answer)
    assert hooks_of(vlm) == before
    assert same(vlm.trace(picture, PROMPT, max_new_tokens=6), trace)


def test_an_edit_that_never_acts_is_an_error(vlm, picture, trace, monkeypatch):
    answer = steer(vlm, picture, PROMPT, [push()], max_new_tokens=3).steered_answer
    monkeypatch.setattr(vlm, "blocks", [*vlm.blocks, torch.nn.Identity()])  # the model does not know of this one
    edits = [push(), Edit(vector=VECTOR, layer=3, amount=1)]
    for run in (lambda: steer(vlm, picture, PROMPT, edits), lambda: steer_sweep(vlm, picture, PROMPT, edits[1], [1, 2])):
        with pytest.raises(InterpError, match=r"^Layer 3 never ran as a module of its own"):
            run()
    monkeypatch.undo()
    assert same(vlm.trace(picture, PROMPT, max_new_tokens=6), trace)
    steered_trace(trace, [push()], answer)


def test_layers_that_return_tuples(vlm, picture):
    """As transformers before 5 did, and as other people's layers do."""
    expected = steer(vlm, picture, PROMPT, MANY, max_new_tokens=NEW)
    handles = []
    for layer, after in zip(vlm.blocks, [*vlm.blocks[1:], vlm.norm], strict=True):
        handles.append(
            after.register_forward_pre_hook(lambda _module, args: (args[0][0] if isinstance(args[0], tuple) else args[0], *args[1:]))
        )
        handles.append(layer.register_forward_hook(lambda _module, _args, output: (output, "something else")))
    try:
        agree(steer(vlm, picture, PROMPT, MANY, max_new_tokens=NEW), expected)
    finally:
        for handle in handles:
            handle.remove()


def test_threads_get_what_they_get_alone(vlm, picture):
    """Two that steer in opposite directions, one that samples, and one that only looks."""

    def look():
        return vlm.trace(picture, PROMPT, max_new_tokens=4).states.tolist()

    jobs = [
        lambda: steer(vlm, picture, PROMPT, [push(2)], max_new_tokens=4).to_dict(),
        lambda: steer(vlm, picture, PROMPT, [push(-2)], max_new_tokens=4).to_dict(),
        lambda: steer(vlm, picture, PROMPT, [push(1)], max_new_tokens=4, temperature=2, seed=3).to_dict(),
        look,
    ]
    alone = [job() for job in jobs]
    together = [[] for _ in jobs]
    start = threading.Barrier(len(jobs))

    def run(at):
        start.wait()
        for _ in range(6):
            together[at].append(jobs[at]())

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [[result] * 6 for result in alone]
    assert len({str(result) for result in alone}) == len(jobs)


# Other types of numbers


def test_four_bit(load, picture, monkeypatch):
    vlm = load("crop", "4bit")
    assert vlm.model.is_loaded_in_4bit
    assert max(steer(vlm, picture, PROMPT, [push(0)], max_new_tokens=NEW).kl) < 1e-5
    pair = agrees_with_the_definition(vlm, picture, MANY)
    monkeypatch.setattr(batch, "rows_at_once", lambda *_: 1)
    agree(steer(vlm, picture, PROMPT, MANY, max_new_tokens=NEW), pair)


@pytest.fixture(scope="module")
def cast():
    """The model in another type of numbers."""

    def to(dtype):
        model, processor = tiny.build("crop")
        return interp.Vlm(model.to(dtype), processor)

    return to


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_states_of_other_types(cast, picture, dtype):
    vlm = cast(dtype)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=NEW)
    zero = steer(vlm, picture, PROMPT, [push(0)], max_new_tokens=NEW)
    assert zero.plain_answer == zero.steered_answer
    assert max(zero.kl) < 1e-4
    edit = Edit(sae=SAE, feature=3, target=6)
    found = steer(vlm, picture, PROMPT, [edit], max_new_tokens=NEW)
    states, plain = (steered_trace(trace, [e], found.plain_answer).residual(1) for e in (edit, push(0)))
    assert states.dtype == dtype
    torch.testing.assert_close(plain, trace.residual(1), rtol=0, atol=1e-12 if dtype == torch.float64 else 0.2)
    expected = torch.stack([state + change(edit, state.float(), 0) for state in plain.float()])
    expected[0] = plain[0].float()
    torch.testing.assert_close(states.float(), expected, rtol=0.01, atol=1e-3)
    naive = Naive(vlm, picture, PROMPT, [edit])
    assert found.applied[0].fired == 30
    naive.logits(found.steered_answer.ids[:-1])
    assert found.applied[0].absolute == pytest.approx(sum(naive.lengths[0]) / 30, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strength", [1e5, 1e25, 1e300])
def test_a_push_that_leaves_nothing_of_the_output(cast, picture, dtype, strength):
    """The squares of its states, which every norm takes, end at 1e38."""
    vlm = cast(dtype)
    if strength == 1e5 and dtype != torch.float16:
        assert math.isfinite(steer(vlm, picture, PROMPT, [push(strength)], max_new_tokens=2).applied[0].absolute)
        return
    with pytest.raises(InterpError, match=r"With strength 1.* on feature 3 of random .*Push less"):
        steer(vlm, picture, PROMPT, [push(strength)], max_new_tokens=2)
    with pytest.raises(InterpError, match="Push less"):
        steer_sweep(vlm, picture, PROMPT, push(), [0, strength], max_new_tokens=2)


def test_output_that_is_not_finite_is_an_error_wherever_it_is_read(vlm, picture):
    def spoil(when):
        return lambda _module, _args, logits: logits * (math.nan if when(logits) else 1)

    for when, message in (
        (
            lambda _logits: True,
            r"With no edits the model's output is not finite at token 0 of the answer\. Load the model in a wider dtype",
        ),
        (lambda logits: logits.shape[1] > 1, "With no edits .* not finite when it reads the plain answer"),
    ):
        handle = vlm.head.register_forward_hook(spoil(when))
        try:
            with pytest.raises(InterpError, match=message):
                steer(vlm, picture, PROMPT, [push()], max_new_tokens=3)
        finally:
            handle.remove()


# Temperature


def test_the_same_seed_gives_the_same_answers_and_touches_no_other_randomness(vlm, picture):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one, again, *others = (steer(vlm, picture, PROMPT, [push(1)], max_new_tokens=8, temperature=1.5, seed=seed) for seed in (5, 5, 6, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.to_dict() == again.to_dict()
    assert len({(run.plain, run.steered) for run in (one, *others)}) == 4
    assert all(run.kl == others[0].kl for run in others if run.plain == others[0].plain), "KL is of the distributions, not of the sample"


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_both_answers_share_their_noise(vlm, picture, temperature):
    runs = [steer(vlm, picture, PROMPT, [push(0)], max_new_tokens=8, temperature=temperature, seed=seed) for seed in range(4)]
    assert all(run.plain_answer == run.steered_answer for run in runs)
    assert len({run.plain for run in runs}) > 1


@pytest.mark.parametrize("temperature", [0, 1e-320, 1e-6])
def test_hardly_any_temperature_is_none(vlm, picture, temperature):
    greedy = steer(vlm, picture, PROMPT, [push(2)], max_new_tokens=NEW)
    agree(steer(vlm, picture, PROMPT, [push(2)], max_new_tokens=NEW, temperature=temperature), greedy)
    assert not Noise(temperature, 0, [()])(torch.empty(1, 0), torch.tensor([[3.0, 1.0, 3.0]])).isnan().any()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_noise_samples_from_the_softmax(temperature):
    scores = torch.tensor([[2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -math.inf], [0.0] * 8])
    noise, draws = Noise(temperature, 0, [(), ()]), 4000
    chosen = torch.stack([noise(torch.empty(2, 0), scores).argmax(-1) for _ in range(draws)], dim=1)
    for row, drawn in zip(scores, chosen, strict=True):
        counts = torch.bincount(drawn, minlength=8).double()
        expected = draws * (row.double() / temperature).softmax(-1)
        possible = expected > 0
        assert counts[~possible].sum() == 0
        chi_square = ((counts - expected) ** 2 / expected)[possible].sum()
        assert chi_square < 24.3, "seven degrees of freedom: one draw in a thousand lies above"
    assert (chosen[0] == chosen[1]).double().mean() > 0.2, "one noise for both rows"


# What is refused


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([], "There are no edits"),
        ((), "There are no edits"),
        (None, "edits is None; it must be a list of Edits"),
        (push(), "edits is an Edit; it must be a list of Edits"),
        ([{"feature": 3, "strength": 1}], r"One of edits is \{.*\}; it must be an Edit, made with"),
        ([push(), None], "One of edits is None; it must be an Edit"),
        ([Edit(vector=torch.ones(63), layer=1, amount=1)], "a vector at layer 1 has width 63; the residual stream of .* has width 64"),
        ([push(sae=random_sae(layer=3))], "feature 3 of random acts after layer 3; .* has layers 0 to 2"),
        ([Edit(vector=VECTOR, layer=-2, amount=1)], "a vector at layer -2 acts after layer -2; .* has layers 0 to 2"),
        (
            [push(sae=random_sae(model_name="a/one")), push(sae=random_sae(model_name="b/two"))],
            r"belong to different models \(one, two\); choose directions of one model",
        ),
        ([push(where={"positions": [PROMPT_LENGTH]})], "Position 27 does not exist: there are 27 positions"),
    ],
)  # fmt: skip
def test_edits_that_are_refused(vlm, picture, trace, edits, message):
    before = hooks_of(vlm)
    answer = steer(vlm, picture, PROMPT, [push()], max_new_tokens=1).steered_answer
    with pytest.raises(InterpError, match=message):
        steer(vlm, picture, PROMPT, edits)
    with pytest.raises(InterpError, match=message):
        steered_trace(trace, edits, answer)
    if isinstance(edits, list) and edits:
        with pytest.raises(InterpError, match=message):
            steer_sweep(vlm, picture, PROMPT, edits[-1], [1.0], others=edits[:-1])
    assert hooks_of(vlm) == before


def test_one_model_may_be_called_by_two_names(vlm, picture):
    named = interp.Vlm(vlm.model, vlm.processor, name="mine")
    checkpoint = vlm.model.config.name_or_path.rsplit("/", 1)[-1]
    found = Contrast(VECTOR, 0, "mine", "image tokens", 0.9, (3, 3))
    edits = [push(sae=random_sae(model_name=f"owner/{checkpoint}")), Edit(vector=found, strength=0.2), push(0.1)]
    assert steer(named, picture, PROMPT, edits, max_new_tokens=1).notes == ()
    with pytest.raises(InterpError, match=r"different models \(mine, other\)"):
        steer(named, picture, PROMPT, [*edits, push(sae=random_sae(model_name="some/other"))], max_new_tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"max_new_tokens": new}, "max_new_tokens is .*; it must be a whole number from 1 to 192") for new in (0, -1, True, 2.5, "3", None, 193)),
        ({"max_new_tokens": 166}, "ask for fewer new ones"),
        *(({"temperature": value}, "temperature is .*; it must be a finite number") for value in (math.nan, math.inf, True, "1", None)),
        ({"temperature": -0.1}, r"temperature is -0\.1; it must be a finite number of at least 0"),
        *(({"seed": seed}, "seed is .*; it must be a whole number from 0 to ") for seed in (-1, 2**63, 0.5, True, "1", None)),
        ({"words": ["dog", "aardvark"]}, "'aardvark' is 8 tokens for this model"),
        ({"words": [""]}, "The word to look for is empty"),
        ({"words": "dog"}, "words is 'dog'; it must be a list of words"),
        ({"words": ["dog", 3]}, "words is 3; it must be text"),
        ({"words": ["\ud800"]}, "words holds half of a character"),
        ({"on_text": "print"}, "on_text is 'print'; it must be a function, or None"),
        ({"stop": True}, "stop is True; it must be a threading.Event, or None"),
    ],
    ids=repr,
)  # fmt: skip
def test_options_that_are_refused(vlm, picture, trace, options, message):
    before = hooks_of(vlm)
    with pytest.raises(InterpError, match=message):
        steer(vlm, picture, PROMPT, [push()], **options)
    with pytest.raises(InterpError, match=message):
        steer_sweep(vlm, picture, PROMPT, push(), [0.1], **options)
    assert hooks_of(vlm) == before


@pytest.mark.parametrize("strengths", [[], (), "0.1", 0.1, None, {0.1}], ids=repr)
def test_strengths_that_are_no_list(vlm, picture, strengths):
    with pytest.raises(InterpError, match=r"strengths is .*; it must be a list of numbers"):
        steer_sweep(vlm, picture, PROMPT, push(), strengths)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", None], ids=repr)
def test_strengths_that_are_no_numbers(vlm, picture, value):
    with pytest.raises(InterpError, match=r"amount is .*; it must be a finite number"):
        steer_sweep(vlm, picture, PROMPT, Edit(sae=SAE, feature=3, amount=1), [0.1, value])


@pytest.mark.parametrize(
    ("picture", "prompt", "message"), [(None, " ", "prompt is empty"), (None, "<image>", "<image>"), ("/nowhere.png", PROMPT, "nowhere")]
)
def test_pictures_and_prompts_are_refused_as_by_prepare(vlm, picture, prompt, message):
    with pytest.raises(InterpError, match=message):
        steer(vlm, picture or tiny.noise(60, 60), prompt, [push()])


def test_a_trace_without_its_model_cannot_be_steered(vlm, picture, trace):
    answer = steer(vlm, picture, PROMPT, [push()], max_new_tokens=1).steered_answer
    with pytest.raises(InterpError, match="without its model"):
        steered_trace(dataclasses.replace(trace, _vlm=None), [push()], answer)
