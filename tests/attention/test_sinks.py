"""Attention sinks are found where the states say so, and plain pictures have none in the tower."""

import dataclasses

import pytest
import torch
from PIL import Image

import interp
from interp.attention.sinks import _massive
from interp.tracing.trace import EMBED
from tests import tiny
from tests.bench.tools import ROOT

PICTURE = Image.linear_gradient("L").resize((90, 60)).convert("RGB")


@pytest.fixture(scope="module")
def trace():
    return interp.Vlm(*tiny.build("crop")).trace(PICTURE, "Describe the image.", max_new_tokens=2)


def changed(trace, **states):
    """The trace with other states: name of a layer → function of its [T, d]."""
    new = trace.states.clone()
    for layer, change in states.items():
        change(new[(EMBED if layer == "embed" else int(layer[1:])) + 1])
    return dataclasses.replace(trace, states=new)


def test_the_first_special_token_is_always_a_sink(trace):
    assert interp.find_sinks(trace) == interp.Sinks((), (0,))


def test_a_register_of_the_tower_is_found_by_its_norm(trace):
    at = trace.positions("image")[5]

    def raise_one(states):
        states[at] *= 6

    assert interp.find_sinks(changed(trace, embed=raise_one)).tower == (at,)


def test_a_massive_activation_in_the_dimensions_of_the_first_token_is_found(trace):
    def massive(states):
        states[:] = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
        states[0, 7] = states[9, 7] = 1e4
        states[3, 8] = 1e4  # another dimension

    # A vector of 64 dimensions cannot exceed its own rms 20 times, as real ones of thousands do: 8 is the most.
    assert 64**0.5 < 20
    assert interp.find_sinks(changed(trace, l1=massive, l0=massive)).decoder == (0,)
    wide = torch.nn.functional.pad(trace.states, (0, 2000))
    wide = dataclasses.replace(trace, states=wide)
    assert interp.find_sinks(changed(wide, l1=massive, l0=massive)).decoder == (0, 9)


def test_a_part_of_each_state_decides_as_the_whole_does():
    states = torch.randn(200, 4096, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 200)[:, None]
    states[:, 40] += torch.linspace(0, 60, 200) * states.square().mean(-1).sqrt()
    states[50] = 0
    states[150, :256] = 0  # nothing in the part that is read first
    phi = states[:, [40, 7]].abs().amax(-1) / (states.square().mean(-1) + 1e-6).sqrt()
    found = _massive(states, torch.tensor([40, 7]))
    assert found.equal(phi > 20)
    assert 0 < found.sum() < 200


def test_things_on_a_plain_background_are_no_registers():
    vlm = interp.load("emoji-llava")
    picture = Image.new("RGB", (96, 96), "lightblue")
    picture.paste((200, 40, 40), (20, 20, 60, 60))
    examples = sorted((ROOT / "assets" / "examples").glob("*.webp"))
    assert examples
    for each in (picture, *examples):
        assert interp.find_sinks(vlm.trace(each, "Describe the image.", max_new_tokens=1)).tower == (), each
