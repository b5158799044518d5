"""What an edit is, what it is measured by, where it acts, and the arithmetic of a push. Models come in test_steering."""

import math

import numpy as np
import pytest
import torch

from interp import EMBED, Contrast, Edit, InterpError
from interp.steering.edits import UNITS, Push, Scale, positions_of
from interp.tracing.trace import Prompt
from tests.steering_reference import D, activations, change, random_sae

SAE = random_sae()
VECTOR = torch.randn(D, generator=torch.Generator().manual_seed(7))
BOS, IMAGE, LAST = 0, [*range(4, 20)], 26
TEXT = [i for i in range(27) if i not in IMAGE]
CPU = torch.device("cpu")


def contrast(**fields):
    return Contrast(
        **{"vector": VECTOR, "layer": 2, "model_name": "tiny", "where": "image tokens", "auroc": 0.9, "examples": (3, 3)} | fields
    )


@pytest.fixture(scope="module")
def prompt(trace):
    """BOS, three tokens of text, sixteen of the picture, seven of text."""
    return Prompt(trace.tokens[:27], trace.grids)


def states_of_norms(norms):
    directions = torch.nn.functional.normalize(torch.randn(27, D, generator=torch.Generator().manual_seed(1)), dim=-1)
    return directions * torch.tensor([norms[i] for i in range(27)])[:, None]


# What is an edit


def test_what_an_edit_says_of_itself():
    by_feature = Edit(sae=SAE, feature=3, strength=-0.3)
    assert (by_feature.unit, by_feature.value, by_feature.at, by_feature.where) == ("strength", -0.3, 1, "all")
    assert torch.equal(by_feature.direction, SAE.W_dec[3])
    assert by_feature.name == "feature 3 of random"
    by_vector = Edit(vector=VECTOR, layer=0, target=0)
    assert (by_vector.unit, by_vector.value, by_vector.at, by_vector.model_name) == ("target", 0, 0, "")
    by_contrast = Edit(vector=contrast(), amount=2)
    assert (by_contrast.at, by_contrast.model_name, by_contrast.direction) == (2, "tiny", VECTOR)
    assert Edit(vector=contrast(), layer=2, amount=2).at == 2


def test_another_value_leaves_the_rest():
    edit = Edit(sae=SAE, feature=3, target=1.5, where={"patches": [[0, 0]]})
    other = edit.with_value(-2)
    assert (other.unit, other.value, other.strength, other.amount) == ("target", -2, None, None)
    assert (other.sae, other.feature, other.where) == (SAE, 3, edit.where)
    assert edit.value == 1.5
    with pytest.raises(InterpError, match="target is nan"):
        edit.with_value(math.nan)


@pytest.mark.parametrize("given", [{}, {"strength": 0.1, "amount": 1}, {"amount": 0, "target": 0}, dict.fromkeys(UNITS, 0)], ids=repr)
def test_exactly_one_unit(given):
    with pytest.raises(InterpError, match=f"exactly one of strength, amount and target; {' and '.join(given) or 'none'} was given"):
        Edit(sae=SAE, feature=3, **given)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, pytest.param(10**400, id="10**400"), True, False, "0.3", [0.3], torch.tensor([0.3])], ids=repr
)
def test_a_value_is_a_finite_number(unit, value):
    with pytest.raises(InterpError, match=rf"{unit} is .*; it must be a finite number"):
        Edit(sae=SAE, feature=3, **{unit: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs a direction"),
        ({"feature": 3}, "needs a direction"),
        ({"vector": VECTOR}, "needs a direction"),
        ({"layer": 1}, "needs a direction"),
        ({"vector": VECTOR, "layer": 1, "feature": 3}, "needs a direction"),
        ({"sae": SAE}, "takes `sae` and `feature`"),
        ({"sae": SAE, "feature": 3, "layer": 1}, "takes `sae` and `feature`"),
        ({"sae": SAE, "feature": 3, "vector": VECTOR}, "takes `sae` and `feature`"),
        ({"sae": "emoji-llava", "feature": 3}, "sae is 'emoji-llava'; it must be an SAE"),
        ({"sae": SAE, "feature": 48}, "Feature 48 does not exist: random has features 0 to 47"),
        ({"sae": SAE, "feature": -1}, "Feature -1 does not exist"),
        ({"sae": SAE, "feature": True}, "Feature True does not exist"),
        ({"sae": SAE, "feature": 3.5}, "Feature 3.5 does not exist"),
        ({"sae": random_sae(layer=EMBED), "feature": 3}, "can be inspected but not edited"),
        ({"vector": VECTOR, "layer": EMBED}, "can be inspected but not edited"),
        ({"vector": contrast(layer=EMBED)}, "can be inspected but not edited"),
        ({"vector": contrast(), "layer": 1}, "belongs to its own layer, 2"),
        ({"vector": contrast(), "feature": 1}, "belongs to its own layer, 2"),
        ({"vector": VECTOR, "layer": 1.5}, "layer is 1.5; it must be a whole number"),
        ({"vector": VECTOR, "layer": True}, "layer is True; it must be a whole number"),
        ({"vector": VECTOR.tolist(), "layer": 1}, r"vector is \[.*; it must be a tensor"),
        ({"vector": VECTOR.numpy(), "layer": 1}, r"vector is a ndarray of shape \[64\]; it must be a tensor"),
        ({"vector": VECTOR[None], "layer": 1}, r"no direction to push along.*\[1, 64\]"),
        ({"vector": torch.tensor(1.0), "layer": 1}, r"no direction to push along.*shape \[\]"),
        ({"vector": VECTOR[:0], "layer": 1}, "no direction to push along"),
        ({"vector": VECTOR.to("meta"), "layer": 1}, "no direction to push along"),
        ({"vector": VECTOR.to_sparse(), "layer": 1}, "no direction to push along"),
        ({"vector": VECTOR.to(torch.complex64), "layer": 1}, "no direction to push along.*complex64"),
        ({"vector": torch.ones(D, dtype=torch.int64), "layer": 1}, "no direction to push along.*int64"),
        ({"vector": 0 * VECTOR, "layer": 1}, "no direction to push along"),
        ({"vector": VECTOR.double() * 1e200, "layer": 1}, "no direction to push along"),
        ({"vector": VECTOR.index_fill(0, torch.tensor(5), math.nan), "layer": 1}, "no direction to push along"),
        ({"vector": contrast(vector=0 * VECTOR)}, "no direction to push along"),
    ],
)
def test_what_is_no_edit(fields, message):
    with pytest.raises(InterpError, match=message):
        Edit(**fields, strength=0.1)


def test_an_edit_holds_plain_numbers_whichever_it_was_given():
    """Edits are written as JSON."""
    edit = Edit(sae=SAE, feature=np.int64(3), strength=torch.tensor(0.5), where={"positions": np.array([4, 5])})
    assert (edit.feature, edit.strength, edit.where) == (3, 0.5, {"positions": [4, 5]})
    assert [type(value) for value in (edit.feature, edit.strength, edit.where["positions"][0])] == [int, float, int]
    assert type(Edit(vector=VECTOR, layer=1.0, amount=1).layer) is int


# How large residuals are, and where an edit acts


def test_the_usual_norm_is_the_median_of_its_kind_without_sinks(prompt):
    norms = {i: 10.0 + i / 100 for i in IMAGE} | {i: 2.0 + i / 100 for i in TEXT}
    norms |= {BOS: 90.0, 5: 80.0, 6: 70.0, 22: 50.0}
    scale = Scale.of(prompt, states_of_norms(norms))
    assert scale.left_out == (0, 5, 6, 22)
    image = sorted(norms[i] for i in IMAGE if i not in {5, 6})[6]  # the lower of the two in the middle
    text = sorted(norms[i] for i in TEXT if i not in {0, 22})[4]
    assert scale.text == pytest.approx(text)
    assert scale.norms.tolist() == pytest.approx([image if i in IMAGE else text for i in range(27)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_are_taken_in_float32(prompt, dtype):
    states = states_of_norms(dict.fromkeys(range(27), 100_000.0)).to(dtype)  # numbers of float16 end at 65504
    assert Scale.of(prompt, states).text == pytest.approx(100_000, rel=0.01)


@pytest.mark.parametrize(
    ("where", "positions", "on_answer"),
    [
        ("all", [1, 2, 3, *range(4, 20), *range(20, 27)], True),
        ("image", IMAGE, False),
        ("prompt", [1, 2, 3, *range(20, 27)], False),
        ("answer", [LAST], True),
        ({"patches": [[0, 1], [3, 3]]}, [5, 19], False),
        ({"box": [0, 0, 1, 1]}, [4, 5, 8, 9], False),
        ({"positions": [0, 22]}, [0, 22], False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("sinks", [(0,), (0, 5, 22, 26)])
def test_places(prompt, where, positions, on_answer, sinks):
    """Sinks are kept where they are named, and the last position of the prompt where the answer is edited."""
    scale = Scale(torch.ones(27), 1.0, sinks)
    kept = positions if isinstance(where, dict) else [i for i in positions if i not in sinks or (on_answer and i == LAST)]
    assert positions_of(Edit(sae=SAE, feature=3, amount=1, where=where), prompt, scale) == (kept, on_answer)


def test_a_place_with_nothing_but_sinks(prompt):
    scale = Scale(torch.ones(27), 1.0, (0, *IMAGE))
    with pytest.raises(
        InterpError, match="feature 3 of random would never act: there are no image tokens other than BOS and attention sinks"
    ):
        positions_of(Edit(sae=SAE, feature=3, amount=1, where="image"), prompt, scale)


@pytest.mark.parametrize(
    "where", ["Image", "", None, 3, ["image"], {"positions": [27]}, {"positions": []}, {"patches": [[4, 0]]}], ids=repr
)
def test_what_is_no_place(prompt, where):
    with pytest.raises(InterpError, match=r"where is|does not exist|positions is"):
        positions_of(Edit(sae=SAE, feature=3, amount=1, where=where), prompt, Scale(torch.ones(27), 1.0, (0,)))


# The arithmetic of a push


@pytest.mark.parametrize("normalisation", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_push_along_a_feature(unit, activation, normalisation):
    sae = random_sae(activation, normalisation)
    states = 3 * torch.randn(2, 5, D, generator=torch.Generator().manual_seed(2)) + 0.5
    values, norms = [1.7, -0.4], [8.0, 8.0, 8.0, 3.0, 3.0]
    active = 0
    for feature in range(12):
        edits = [Edit(sae=sae, feature=feature, **{unit: value}) for value in values]
        delta = Push(Edit(sae=sae, feature=feature, **{unit: 0}), CPU).delta(states, torch.tensor(values), torch.tensor(norms))
        expected = torch.stack(
            [torch.stack([change(edit, *pair) for pair in zip(row, norms, strict=True)]) for edit, row in zip(edits, states, strict=True)]
        )
        torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-5)
        active += sum(int(activations(sae, state)[0][feature] > 0) for state in states.flatten(0, 1))
    assert 10 < active < 110, "features that are on, and features that are off"


def test_a_set_activation_is_read_back():
    """Where the decoder writes what the encoder reads, h + (target - z) W_dec has the activation `target`."""
    unit = torch.nn.functional.normalize(random_sae().W_dec, dim=1)
    sae = random_sae(W_enc=unit.T.contiguous(), W_dec=unit)
    states = 3 * torch.randn(1, 9, D, generator=torch.Generator().manual_seed(2))
    states = states[:, [i for i in range(9) if activations(sae, states[0, i])[0][3] > 0]]
    delta = Push(Edit(sae=sae, feature=3, target=2.5), CPU).delta(states, torch.tensor([2.5]), torch.ones(states.shape[1]))
    assert states.shape[1] > 2
    for state in (states + delta)[0]:
        assert float(activations(sae, state)[0][3]) == pytest.approx(2.5, rel=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1e-30, 1e30], ids=["", "a vector whose squares vanish", "a vector whose squares overflow"])
@pytest.mark.parametrize("unit", ["strength", "target"])
def test_a_push_along_a_vector_does_not_depend_on_its_length(unit, factor):
    states = torch.randn(1, 4, D, generator=torch.Generator().manual_seed(2))
    delta = Push(Edit(vector=VECTOR * factor, layer=1, **{unit: 0.5}), CPU).delta(states, torch.tensor([0.5]), torch.full((4,), 6.0))
    edit = Edit(vector=VECTOR, layer=1, **{unit: 0.5})
    torch.testing.assert_close(delta[0], torch.stack([change(edit, state, 6.0) for state in states[0]]), rtol=1e-4, atol=1e-5)
    along = VECTOR / VECTOR.norm()
    if unit == "target":
        torch.testing.assert_close((states + delta) @ along, torch.full((1, 4), 0.5), rtol=0, atol=1e-5)
    else:
        torch.testing.assert_close(delta.norm(dim=-1), torch.full((1, 4), 3.0))


def test_an_amount_of_a_vector_is_that_many_vectors():
    states = torch.randn(2, 3, D)
    delta = Push(Edit(vector=VECTOR, layer=1, amount=0), CPU).delta(states, torch.tensor([2.0, -3.0]), torch.ones(3))
    torch.testing.assert_close(delta, torch.stack([2 * VECTOR.expand(3, D), -3 * VECTOR.expand(3, D)]))


@pytest.mark.parametrize("unit", UNITS)
def test_weights_in_bfloat16_are_computed_with_in_float32(unit):
    exact = random_sae()
    weights = ("W_enc", "b_enc", "W_dec", "b_dec")
    rounded = random_sae(**{name: getattr(exact, name).bfloat16() for name in weights})
    widened = random_sae(**{name: getattr(rounded, name).float() for name in weights})
    states = torch.randn(1, 4, D, generator=torch.Generator().manual_seed(2))
    deltas = [
        Push(Edit(sae=sae, feature=3, **{unit: 2.0}), CPU).delta(states, torch.tensor([2.0]), torch.ones(4)) for sae in (rounded, widened)
    ]
    assert deltas[0].dtype == torch.float32
    assert torch.equal(*deltas)
