"""What is recorded and read can be used in autograd: no tensor of inference mode leaves the package."""

import pytest
import torch

import interp
from tests.conftest import PROMPT
from tests.saes.test_features import random_sae

NEW = 6


def ended(vlm, picture):
    """An answer that ends before `max_new_tokens`, so that its states are cut from a larger buffer."""
    trace = vlm.trace(picture, PROMPT, max_new_tokens=2)
    end = trace.tokens[-1].id
    own = vlm.model.generation_config.eos_token_id
    vlm.model.generation_config.eos_token_id = end
    try:
        return vlm.trace(picture, PROMPT, max_new_tokens=NEW)
    finally:
        vlm.model.generation_config.eos_token_id = own


def steered(vlm, picture):
    edits = [interp.Edit(vector=torch.ones(vlm.d_model), layer=1, strength=0.5)]
    result = interp.steer(vlm, picture, PROMPT, edits, max_new_tokens=3)
    return interp.steered_trace(vlm.trace(picture, PROMPT, max_new_tokens=3), edits, result.steered_answer)


@pytest.fixture
def loaded(vlm, picture, tmp_path):
    vlm.trace(picture, PROMPT, max_new_tokens=2).save(tmp_path / "trace.safetensors")
    return interp.Trace.load(tmp_path / "trace.safetensors", vlm=vlm)


@pytest.fixture(params=["generated", "ended early", "forced", "steered", "loaded"])
def any_trace(request, vlm, picture):
    make = {
        "generated": lambda: vlm.trace(picture, PROMPT, max_new_tokens=NEW),
        "ended early": lambda: ended(vlm, picture),
        "forced": lambda: vlm.trace(picture, PROMPT, answer="a dog"),
        "steered": lambda: steered(vlm, picture),
        "loaded": lambda: request.getfixturevalue("loaded"),
    }
    return make[request.param]()


def flows(values):
    """Whether a gradient reaches a weight that these values are multiplied by."""
    weight = torch.nn.Parameter(torch.ones(values.shape[-1]))
    (values.float() * weight).sum().backward()
    return not values.is_inference() and weight.grad is not None


def test_states_and_a_lens(any_trace):
    lens = interp.logit_lens(any_trace, top_k=2)
    assert all(map(flows, (any_trace.states, any_trace.residual(1), lens.probs, lens.entropy, lens.log_z, lens.probability("dog"))))


def test_features(trace):
    sae = random_sae()
    acts = sae.encode(trace.residual(sae.layer))
    assert flows(acts.values)
    assert flows(sae.decode(acts))
    assert flows(interp.top_features(trace, sae, k=1).features[0].activations)
