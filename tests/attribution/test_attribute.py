"""One backward pass against taking every feature away: equal where the model is linear, and each with the right sign where it is not."""

import copy
import csv
import io
import json
import random

import pytest
import torch

import interp
from interp import InterpError
from interp.attribution import removal, scores
from interp.attribution.attribute import attribute, explained
from interp.emoji_world.scenes import draw_picture, sample_scene
from interp.emoji_world.sprites import SEEN_VENDORS, load_sprites
from interp.emoji_world.words import NOUNS, QUESTIONS
from interp.tracing.replay import Replay
from tests import families, tiny
from tests.attribution.random_sae import FEATURES, linear_vlm, sae
from tests.conftest import PROMPT

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")


@pytest.fixture(scope="module")
def linear():
    return linear_vlm().trace(tiny.noise(120, 90), PROMPT, answer="dog and cat")


def naive(trace, dictionary, token, other):
    """The reference's procedure, feature by feature and without choosing others in its place: (x - x') dm/dx' at every position, x' without it."""
    vlm, layer = trace.vlm, dictionary.layer
    states = trace.residual(layer)
    acts = dictionary.encode(states)
    out = torch.zeros(dictionary.d_sae, trace.length)
    replay = Replay.of(trace)
    for feature in acts.features.unique().tolist():
        without = states.clone()
        for token_at, number, value in zip(acts.tokens, acts.features, acts.values, strict=True):
            if number == feature:
                without[token_at] -= value / acts.scale[token_at] * dictionary.W_dec[feature]
        without.requires_grad_()
        logits = vlm.unembed.logits(replay.run(without[None], layer=layer + 1)[0, token - 1 : token])[0]
        (gradient,) = torch.autograd.grad(logits[trace.tokens[token].id] - logits[other], without)
        out[feature] = ((states - without) * gradient).sum(-1).detach()
    return out


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_on_a_linear_model_the_score_is_the_exact_effect(linear, layer, normalisation):
    found = attribute(linear, sae(layer, normalisation=normalisation), 1, top=FEATURES, where="all")
    assert len(found.features) == found.active > 20
    torch.testing.assert_close(
        torch.tensor([each.score for each in found.features]), torch.tensor([each.exact for each in found.features]), **CLOSE
    )
    for effect in (found.all_features, found.all_error, found.total):
        assert effect.score == pytest.approx(effect.exact, abs=1e-3, rel=1e-4)
    assert found.pearson == pytest.approx(1, abs=1e-4)
    assert found.overlap >= 0.9


def test_it_equals_the_loop_over_features_where_the_model_is_linear(linear):
    dictionary = sae(0)
    found = attribute(linear, dictionary, 1)
    with linear.vlm.lock:
        looped = naive(linear, dictionary, found.token, found.margin.other)
    ours = torch.stack([found.scores.of(feature) for feature in range(FEATURES)])
    torch.testing.assert_close(ours, looped, **CLOSE)
    assert torch.corrcoef(torch.stack([ours.flatten(), looped.flatten()]))[0, 1] >= 0.999


def test_the_scores_the_error_and_the_bias_add_up_to_the_state(trace):
    dictionary = sae(1, normalisation="layer_norm")
    found = attribute(trace, dictionary, 2, top=3, norms="free")
    with trace.vlm.lock:
        gradient = found.margin.gradient(Replay.of(trace), 1)
    states, acts = trace.residual(1), found.encoding.acts
    missed = (gradient * (states - dictionary.decode(acts))).sum(-1)
    torch.testing.assert_close(found.error, missed, **CLOSE)
    whole = torch.zeros(trace.length).index_add_(0, found.scores.positions, found.scores.values)
    torch.testing.assert_close(whole + found.error + found.scores.bias, (gradient * states).sum(-1), **CLOSE)


@pytest.mark.parametrize("layer", [interp.EMBED, 0, 2])
def test_the_gradient_is_that_of_one_pass_through_all_blocks(trace, layer):
    found = attribute(trace, sae(layer), 2, top=1, norms="free")
    vlm, margin = trace.vlm, found.margin
    with vlm.lock:
        replay = Replay.of(trace)
        hidden = trace.residual(layer)[None].clone().requires_grad_()
        logits = vlm.unembed.logits(replay.run(hidden, layer=layer + 1)[0, margin.row : margin.token])[0]
        (expected,) = torch.autograd.grad(logits[margin.said] - logits[margin.other], hidden)
        torch.testing.assert_close(margin.gradient(replay, layer), expected[0], **CLOSE)
    assert found.metric == pytest.approx(float((logits[margin.said] - logits[margin.other]).detach()), abs=1e-4)


def test_the_exact_effect_is_that_of_a_pass_without_the_feature(trace):
    dictionary = sae(1, k=6)
    found = attribute(trace, dictionary, 2, top=5)
    vlm, margin = trace.vlm, found.margin
    with vlm.lock, torch.no_grad():
        replay = Replay.of(trace)
        for each in found.features:
            hidden = trace.residual(1).clone()
            hidden[list(found.positions)] -= each.about.activations[list(found.positions), None] * dictionary.W_dec[each.feature]
            left = float(margin.after(replay, 1, hidden[None]))
            assert each.exact == pytest.approx(found.metric - left, abs=1e-4)


def test_what_is_not_active_and_what_comes_later_has_no_score(trace):
    found = attribute(trace, sae(1), 1, top=2)
    silent = set(range(FEATURES)) - set(found.encoding.acts.features.tolist())
    assert found.scores.of(silent.pop()).count_nonzero() == 0
    assert found.scores.positions.max() <= found.margin.row
    assert found.error[found.token :].count_nonzero() == found.scores.bias[found.token :].count_nonzero() == 0


def test_a_position_that_nothing_reads_has_no_score(trace):
    """With its attention knocked out in every layer behind the SAE, the word cannot depend on it."""
    found = attribute(trace, sae(0), 1, top=1)
    patch = trace.positions("image")[5]

    class Knocked(Replay):
        def run(self, hidden, **more):
            def without(heads):
                mask = heads.visible().clone()
                mask[..., patch] = False
                mask[..., patch, patch] = True
                return mask

            return super().run(hidden, mask=without, **more)

    with trace.vlm.lock:
        replay = Replay.of(trace)
        knocked = Knocked(**{name: getattr(replay, name) for name in replay.__dataclass_fields__})
        blind = scores.scores(found.encoding, found.margin.gradient(knocked, 0), found.margin.row)
    assert found.error[patch] != 0
    assert blind.error[patch] == 0
    assert blind.values[blind.positions == patch].count_nonzero() == 0


def test_features_and_error_of_chosen_positions_only(trace):
    everywhere, pictured = attribute(trace, sae(1), 2), attribute(trace, sae(1), 2, where="image")
    assert set(pictured.positions) == set(trace.positions("image")) - set(pictured.encoding.left_out)
    each = pictured.features[0]
    assert each.score == pytest.approx(float(everywhere.scores.of(each.feature)[list(pictured.positions)].sum()), abs=1e-6)
    assert pictured.all_error.score == pytest.approx(float(everywhere.error[list(pictured.positions)].sum()), abs=1e-5)
    assert 0 not in everywhere.positions  # BOS
    assert attribute(trace, sae(1), 2, where={"positions": [0, 3]}).positions == (0, 3)


def test_in_small_pieces_it_is_the_same(trace, monkeypatch):
    dictionary = sae(1)
    whole = attribute(trace, dictionary, 2, top=20)
    monkeypatch.setattr("interp.saes.sae._BLOCK_BYTES", 4 * 64 * 7)
    monkeypatch.setattr(removal, "rows_at_once", lambda _vlm, _length: 4)
    pieces = attribute(trace, dictionary, 2, top=20)
    assert [each.feature for each in pieces.features] == [each.feature for each in whole.features]
    torch.testing.assert_close(pieces.scores.values, whole.scores.values, **CLOSE)
    for one, other in zip(whole.features, pieces.features, strict=True):
        assert one.exact == pytest.approx(other.exact, abs=1e-4)


@pytest.mark.parametrize(
    "change", [lambda weights: weights.bfloat16(), lambda weights: weights.T.contiguous().T], ids=["bfloat16", "transposed"]
)
def test_a_decoder_in_another_form_gives_the_same(trace, change, monkeypatch):
    dictionary = sae(1)
    expected = sae(1)
    object.__setattr__(dictionary, "W_dec", change(dictionary.W_dec))
    object.__setattr__(expected, "W_dec", dictionary.W_dec.float().contiguous())
    monkeypatch.setattr("interp.saes.sae._BLOCK_BYTES", 4 * 64 * 40)  # a few tokens at a time
    found, whole = (attribute(trace, each, 2, top=20) for each in (dictionary, expected))
    torch.testing.assert_close(found.scores.values, whole.scores.values, **CLOSE)
    torch.testing.assert_close(found.error, whole.error, **CLOSE)


def test_the_baseline_is_the_runner_up_unless_given(vlm, trace):
    found = attribute(trace, sae(1), 1, top=1)
    with torch.no_grad():
        best = vlm.unembed.logits(trace.residual(2)[found.margin.row][None])[0].topk(2).indices.tolist()
    assert [found.margin.said, found.margin.other] == best
    assert found.metric > 0
    other = next(word for word in ("cat", "dog") if vlm.vocabulary.texts[found.margin.said].strip() != word)
    assert attribute(trace, sae(1), 1, baseline=other, top=1).baseline.strip() == other


@pytest.mark.parametrize("name", families.FAMILIES)
def test_it_works_in_every_family(name):
    trace = families.vlm(name).trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    found = attribute(trace, sae(0), 1, top=4)
    assert len(found.features) == 4
    assert found.scores.values.isfinite().all()
    assert found.scores.values.count_nonzero() > 0
    vlm, margin = trace.vlm, found.margin
    each = found.features[0]
    with vlm.lock, torch.no_grad():  # the whole sequence again, not from the first change
        hidden = trace.residual(0).clone()
        hidden[list(found.positions)] -= each.about.activations[list(found.positions), None] * found.sae.W_dec[each.feature]
        left = float(margin.after(Replay.of(trace), 0, hidden[None].to(margin.states(Replay.of(trace), 0).device)))
    assert each.exact == pytest.approx(found.metric - left, abs=1e-3)


@pytest.fixture(scope="module")
def emoji(emoji_vlm):
    """Answers to unseen scenes, and the shipped SAE."""
    rng, sprites = random.Random("attribution"), load_sprites()
    scenes = [sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0) for _ in range(4)]
    traces = [emoji_vlm.trace(draw_picture(scene, sprites, 96), QUESTIONS["describe"][0]) for scene in scenes]
    return traces, interp.load_sae("emoji-llava")


def test_a_nouns_own_feature_is_among_the_first_three_and_removing_it_costs_the_noun(emoji):
    traces, dictionary = emoji
    nouns = {noun for noun, _ in NOUNS}
    first, raised, asked = 0, 0, 0
    for trace in traces:
        encoding = interp.encode(trace, dictionary)
        for number, token in enumerate(trace.tokens[trace.answer_start :]):
            if (noun := token.text.strip()) in nouns:
                found = explained(encoding, number)
                own = [each for each in found.features if noun in each.label]
                asked += 1
                first += any(each in found.features[:3] for each in own)
                raised += max((each.exact for each in own), default=0) > 0.5
    assert asked >= 6
    assert first >= 0.8 * asked
    assert raised >= 0.8 * asked


def rank_correlation(pairs):
    return torch.corrcoef(torch.tensor(pairs).T.argsort(1).argsort(1).double())[0, 1]


def half(vlm):
    return interp.Vlm(copy.deepcopy(vlm.model).to(torch.bfloat16), vlm.processor, name="emoji-llava")


@pytest.mark.parametrize("rough", [half, lambda _vlm: interp.load("emoji-llava", quantize="4bit", device="cpu")], ids=["bfloat16", "4bit"])
def test_in_fewer_bits_the_features_rank_as_in_float32(emoji, rough):
    traces, dictionary = emoji
    trace = rough(traces[0].vlm).trace(traces[0].image, traces[0].prompt, answer=traces[0].answer)
    full = attribute(traces[0], dictionary, 1)
    short = attribute(trace, dictionary, 1, baseline=full.baseline)
    scores_of = dict(zip(*(each.tolist() for each in short.scores.summed([*short.positions])), strict=True))
    assert rank_correlation([(each.score, scores_of.get(each.feature, 0.0)) for each in full.features]) > 0.9
    exact = {each.feature: each.exact for each in short.features}
    common = [(each.exact, exact[each.feature]) for each in full.features if each.feature in exact]
    assert len(common) > 40
    assert torch.corrcoef(torch.tensor(common).T)[0, 1] > 0.98


def test_a_summary_goes_into_json_and_csv(trace):
    dictionary = sae(1, density=torch.linspace(0, 1, FEATURES))
    dictionary.labels.names[5] = interp.saes.labels.labels.Label("=1+1", "me")
    found = attribute(trace, dictionary, 1, top=FEATURES)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["schema"] == "llava-microscope/attribution/1"
    assert len(plain["features"]) == len(found.features)
    assert len(plain["features"][0]["map"][0]) == trace.grids[0].rows
    rows = [*csv.reader(io.StringIO(found.to_csv()))]
    assert rows[0][:5] == ["feature", "label", "label_source", "score", "exact"]
    assert next(row for row in rows if row[0] == "5")[1] == "'=1+1"
    assert next(each for each in found.features if each.feature > 80).dense.endswith("of the reference tokens")
    torch.testing.assert_close(found.features[0].map(), found.scores.map(found.features[0].feature))


def test_an_sae_of_another_model_is_reported(trace):
    assert attribute(trace, sae(1), 0, top=1).notes == []
    foreign = interp.Sae(**{**vars(sae(1)), "model_name": "gemma-2b"})
    assert attribute(trace, foreign, 0, top=1).notes == ["trained on another model: gemma-2b"]


def test_wrong_questions_are_refused(vlm, trace):
    narrow = interp.Sae("narrow", "", 1, torch.zeros(8, 4), torch.zeros(4), torch.zeros(4, 8), torch.zeros(8), "relu")
    itself = trace.tokens[trace.answer_start].text
    for arguments, words in (
        ((sae(1), "nothing"), "'nothing' is not a single token of the answer"),
        ((sae(1), 99), "Answer token 99 does not exist"),
        ((sae(1), 0, "elephantine"), "'elephantine' is 11 tokens"),
        ((sae(1), 0, itself), "is the token itself"),
        ((sae(1), 0, None, 0), "top is 0; it must be a whole number from 1 to 96"),
        ((sae(1), 0, None, 97), "top is 97; it must be a whole number from 1 to 96, the number of features of random"),
        ((sae(1), 0, None, 1, "image", "open"), "norms is 'open'; it must be one of fixed, free"),
        ((sae(7), 0), "random reads layer 7"),
        ((narrow, 0), "narrow reads a residual stream of width 8"),
    ):
        with pytest.raises(InterpError, match=words):
            attribute(trace, *arguments[:4], **dict(zip(("where", "norms"), arguments[4:], strict=False)))
    with pytest.raises(InterpError, match="it cannot depend on them"):
        attribute(trace, sae(1), 0, where="answer")
