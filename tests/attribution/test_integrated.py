"""Integrated gradients over one feature: they sum up to what taking the feature away changes."""

import pytest
import torch

from interp import InterpError
from interp.attribution import integrated as module
from interp.attribution.attribute import attribute
from interp.attribution.integrated import integrated
from interp.tracing.replay import Replay
from tests import tiny
from tests.attribution.random_sae import linear_vlm, sae
from tests.conftest import PROMPT


@pytest.fixture(scope="module")
def strong(trace):
    """The feature of the largest effect."""
    return max(attribute(trace, sae(0), 2, top=20).features, key=lambda each: abs(each.exact))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_on_a_linear_model_one_pass_the_exact_effect_and_this_are_the_same(layer):
    trace = linear_vlm().trace(tiny.noise(120, 90), PROMPT, answer="dog and cat")
    one_pass = attribute(trace, sae(layer), 1, top=3)
    counted = list(one_pass.positions)
    for each in one_pass.features:
        found = integrated(trace, sae(layer), 1, each.feature, steps=2)
        assert found.score == pytest.approx(each.exact, abs=1e-5, rel=1e-5)
        assert found.exact == pytest.approx(each.exact, abs=1e-5, rel=1e-5)
        torch.testing.assert_close(found.scores[counted], each.scores[counted], atol=1e-5, rtol=1e-4)


def test_more_steps_come_closer_and_twenty_are_within_two_percent(trace, strong):
    errors = [abs(integrated(trace, sae(0), 2, strong.feature, steps=steps).score - strong.exact) for steps in (1, 4, 20)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02 * abs(strong.exact)


def test_it_is_the_mean_of_the_gradients_on_the_way(trace, strong):
    dictionary, steps = sae(0), 3
    found = integrated(trace, dictionary, 2, strong.feature, steps=steps)
    vlm, margin = trace.vlm, found.margin
    acts = strong.about.activations.clone()
    acts[found.scores == 0] = 0  # BOS, and what comes after the word
    total = torch.zeros(trace.length)
    with vlm.lock:
        replay = Replay.of(trace)
        for step in range(steps):
            z = ((step + 0.5) / steps * acts).requires_grad_()
            hidden = trace.residual(0) + (z - acts)[:, None] * dictionary.W_dec[strong.feature]
            (gradient,) = torch.autograd.grad(margin.after(replay, 0, hidden[None]).sum(), z)
            total += gradient * acts / steps
    torch.testing.assert_close(found.scores, total, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.map(), total[trace.grids[0].positions], atol=1e-5, rtol=1e-4)


def test_in_small_batches_it_is_the_same(trace, strong, monkeypatch):
    whole = integrated(trace, sae(0), 2, strong.feature, steps=5)
    monkeypatch.setattr(module, "rows_at_once", lambda _vlm, _length: 8)
    torch.testing.assert_close(integrated(trace, sae(0), 2, strong.feature, steps=5).scores, whole.scores, atol=1e-5, rtol=1e-4)


def test_a_feature_that_is_not_active_did_nothing(trace):
    dictionary = sae(1)
    silent = (set(range(dictionary.d_sae)) - set(dictionary.encode(trace.residual(1)).features.tolist())).pop()
    found = integrated(trace, dictionary, 1, silent)
    assert (found.score, found.exact) == (0, 0)
    assert found.scores.count_nonzero() == 0


def test_wrong_questions_are_refused(trace):
    with pytest.raises(InterpError, match="Feature 96 does not exist"):
        integrated(trace, sae(1), 1, 96)
    with pytest.raises(InterpError, match="steps is 0"):
        integrated(trace, sae(1), 1, 3, steps=0)
    with pytest.raises(InterpError, match="Answer token 99"):
        integrated(trace, sae(1), 99, 3)
