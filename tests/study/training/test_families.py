"""States with answers, and the loss with an SAE in place, on models that differ in how pictures enter and how positions are counted."""

from fractions import Fraction

import pytest
import torch

import interp
from interp.concepts.samples import Sample
from interp.study.prompt_states import prompt_states
from interp.study.training.collect import Mixture, part
from interp.study.training.held_out import figures, measured
from tests import families, tiny
from tests.conftest import PROMPT

NAMES = ["llava_next", "qwen3_vl", "gemma3", "molmo2"]
NEW = 4


@pytest.fixture(scope="module")
def samples():
    """Two of one shape, which share a pass, and one of another."""
    return [Sample(str(i), tiny.noise(*size, i), PROMPT) for i, size in enumerate([(120, 200), (120, 200), (150, 150)])]


@pytest.mark.parametrize("new", [0, NEW])
@pytest.mark.parametrize("name", NAMES)
def test_states_are_those_of_single_traces(name, samples, new):
    vlm = families.vlm(name)
    seen = []
    for read in prompt_states(vlm, samples, 0, new):
        for number, prompt, states in read.each(vlm):
            trace = vlm.trace(samples[number].picture, PROMPT, max_new_tokens=max(1, new))
            assert [token.id for token in prompt.tokens] == [token.id for token in trace.tokens[: len(states)]]
            assert [token.kind for token in prompt.tokens] == [token.kind for token in trace.tokens[: len(states)]]
            assert len(states) == (trace.length if new else trace.answer_start)
            torch.testing.assert_close(states, trace.residual(0)[: len(states)], atol=1e-4, rtol=1e-4)
            seen.append(number)
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_sae_costs_nothing(name, samples):
    vlm = families.vlm(name)
    both = torch.cat([torch.eye(vlm.d_model), -torch.eye(vlm.d_model)])
    perfect = interp.Sae("perfect", "", 0, both.T.clone(), torch.zeros(len(both)), both, torch.zeros(vlm.d_model), "relu")
    found, _ = figures([measured(vlm, perfect, samples, NEW)])
    assert found["loss"]["sae"] == pytest.approx(found["loss"]["plain"], abs=1e-5)
    assert found["image"]["explained_variance"] == pytest.approx(1, abs=1e-6)
    made = part(vlm, Mixture(0, Fraction(1, 2), None, Fraction(1, 2), None, NEW, 100, 0), samples, 0)
    assert len(set(torch.bincount(made["kind"]).tolist())) == 1
