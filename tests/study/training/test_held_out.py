"""Figures on held-out samples, against their definitions."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

import interp
from interp.concepts.samples import Sample
from interp.study.training import held_out
from interp.study.training.held_out import figures, measured
from interp.tracing.select import sinks
from tests import tiny
from tests.attribution.random_sae import FEATURES, WIDTH, sae
from tests.conftest import PROMPT
from tests.sae_checkpoints import dense

NEW = 5


@pytest.fixture(scope="module")
def samples():
    return [Sample(str(number), tiny.noise(120, 90, number), PROMPT) for number in range(3)]


@pytest.fixture(scope="module")
def traces(vlm, samples):
    return [vlm.trace(sample.picture, sample.prompt, max_new_tokens=NEW) for sample in samples]


def perfect(layer=1):
    """An SAE that reconstructs everything: a feature for each direction and its opposite."""
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    return interp.Sae("perfect", "", layer, both.T.clone(), torch.zeros(2 * WIDTH), both, torch.zeros(WIDTH), "relu")


def nothing(layer=1):
    """One whose features are never active."""
    return dataclasses.replace(perfect(layer), b_enc=torch.full((2 * WIDTH,), -1e6))


@pytest.mark.parametrize("k", [None, 7])
def test_figures_are_those_of_the_definition(vlm, samples, traces, k):
    dictionary = sae(1, k=k)
    found, density = figures([measured(vlm, dictionary, [sample], NEW) for sample in samples])
    shares = []
    for kind, kinds in (("image", ("image",)), ("text", ("prompt", "answer"))):
        rows = []
        for trace in traces:
            states = trace.residual(1)
            first = trace.positions("image")[0]
            left = sinks(trace, states)
            rows.append(states[[i for i in trace.positions(*kinds) if i not in left and i >= first]])
        x = torch.cat(rows)
        acts = dictionary.encode(x)
        active = dense(acts, FEATURES) > 0
        own = found[kind]
        assert own["tokens"] == len(x)
        assert own["explained_variance"] == pytest.approx(
            float(1 - (x - dictionary.decode(acts)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()), abs=1e-5
        )
        assert own["l0"] == pytest.approx(float(active.sum() / len(x)))
        assert own["dead"] == pytest.approx(float((~active.any(0)).float().mean()))
        shares.append(active.float().mean(0))
    torch.testing.assert_close(density, torch.stack(shares).mean(0))
    assert found["dead"] == pytest.approx(float((density == 0).float().mean()))
    assert found["loss"]["tokens"] == sum(len(trace.tokens) - trace.answer_start for trace in traces)


def test_the_loss_is_that_of_the_model_s_own_logits(vlm, samples, traces):
    found, _ = figures([measured(vlm, sae(1), samples, NEW)])
    total, words = 0.0, 0
    for trace in traces:
        logits = tiny.full_forward(vlm, trace).logits[0].float()
        ids = torch.tensor([token.id for token in trace.tokens])
        rows = range(trace.answer_start - 1, trace.length)
        total += float(F.cross_entropy(logits[list(rows)], ids[trace.answer_start :], reduction="sum"))
        words += len(rows)
    assert found["loss"]["plain"] == pytest.approx(total / words, rel=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_perfect_sae_recovers_all_and_an_empty_one_nothing(vlm, samples, layer):
    found, _ = figures([measured(vlm, perfect(layer), samples, NEW)])
    assert found["loss"]["sae"] == pytest.approx(found["loss"]["plain"], abs=1e-4)
    assert found["loss"]["recovered"] == pytest.approx(1, abs=1e-3)
    assert found["loss"]["zero"] > found["loss"]["plain"]
    assert found["image"]["explained_variance"] == pytest.approx(1, abs=1e-6)
    found, _ = figures([measured(vlm, nothing(layer), samples, NEW)])
    assert found["loss"]["recovered"] == pytest.approx(0, abs=1e-6)
    assert (found["image"]["l0"], found["dead"]) == (0, 1)


def test_zeros_are_what_a_hook_of_zeros_gives(vlm, samples, traces):
    """At all positions but BOS and sinks, of the prompt and of the answer."""
    found, _ = figures([measured(vlm, sae(1), samples[:1], NEW)])
    trace = traces[0]
    stays = sinks(trace, trace.residual(1))
    hooks = interp.models.hooks.Hooks

    def zero(hidden):
        keep = torch.zeros(hidden.shape[1], 1, dtype=torch.bool)
        keep[list(stays)] = True
        return hidden * keep

    inputs = tiny.extend(vlm.prepare(trace.image, trace.prompt), torch.tensor([t.id for t in trace.tokens[trace.answer_start : -1]]))
    with torch.inference_mode(), hooks() as put:
        vlm.on_layer(put, 1, zero)
        logits = vlm.model(**inputs).logits[0].float()
    ids = torch.tensor([token.id for token in trace.tokens[trace.answer_start :]])
    loss = F.cross_entropy(logits[trace.answer_start - 1 :], ids)
    assert found["loss"]["zero"] == pytest.approx(float(loss), rel=1e-4)


def test_figures_that_are_not_defined_are_none():
    sums = held_out._nothing(sae(1))
    sums["image.tokens"] += 1
    found, density = figures([sums])
    assert found["text"] == {"tokens": 0, "explained_variance": None, "l0": None, "dead": None}
    assert found["image"]["explained_variance"] is None
    assert found["loss"] == {"tokens": 0, "plain": None, "sae": None, "zero": None, "recovered": None}
    assert not math.isnan(float(density.sum()))
