"""Information flow: every figure equal to a knockout by itself, with windows clipped at the ends."""

import json

import pytest
import torch

from interp import InterpError
from interp.attention.flow import information_flow
from interp.attention.knockout import knockout
from interp.presets import ASSETS
from tests import families, tiny

PROMPT = "Describe the image."
CLOSE = {"atol": 1e-3, "rtol": 1e-3}
OBJECT = {"box": [1, 1, 2, 2]}


def alone(trace, number, rows, sources, layers):
    """Change of probability in percent and of log-odds, from one knockout."""
    found = knockout(trace, {"positions": sources}, {"positions": rows}, layers, token=number, answer=False)
    plain, without = (each.item() for each in found.probability)
    return 100 * (without - plain) / plain, (found.log_odds[1] - found.log_odds[0]).item()


def test_every_figure_is_that_of_one_knockout(trace):
    found = information_flow(trace, 3, window=2, object=OBJECT)
    start, last, image = trace.answer_start, trace.answer_start + 2, trace.positions("image")
    chosen = [image[4 * row + col] for row in (1, 2) for col in (1, 2)]
    rest = sorted(set(image) - set(chosen))
    prompt, answer = list(range(20, start)), list(range(start, last))
    paths = {
        "image→prompt": (prompt, image), "image→answer so far": (answer, image), "image→last": ([last], image),
        "object→prompt": (prompt, chosen), "object→answer so far": (answer, chosen), "object→last": ([last], chosen),
        "rest→prompt": (prompt, rest), "rest→answer so far": (answer, rest), "rest→last": ([last], rest),
        "prompt→answer so far": (answer, prompt), "prompt→last": ([last], prompt), "answer so far→last": ([last], answer),
    }  # fmt: skip
    assert found.blocks == tuple(paths)
    assert found.change.shape == found.log_odds.shape == (12, 3)
    assert found.forwards < 36
    for number, (rows, sources) in enumerate(paths.values()):
        for centre, layers in enumerate(([0], [0, 1], [1, 2])):
            change, log_odds = alone(trace, 3, rows, sources, layers)
            assert found.change[number, centre].item() == pytest.approx(change, abs=1e-2, rel=1e-3)
            assert found.log_odds[number, centre].item() == pytest.approx(log_odds, abs=1e-3, rel=1e-3)
    assert found.probability == pytest.approx(knockout(trace, "image", token=3, answer=False).probability[0].item(), rel=1e-4)


def test_a_window_of_all_layers_is_clipped_at_both_ends(trace):
    found = information_flow(trace, 0, window=3)
    assert found.blocks == ("image→prompt", "image→last", "prompt→last")
    rows, image = [trace.answer_start - 1], trace.positions("image")
    for centre, layers in enumerate(([0, 1], [0, 1, 2], [1, 2])):
        assert found.change[1, centre].item() == pytest.approx(alone(trace, 0, rows, image, layers)[0], abs=1e-2, rel=1e-3)


def test_what_is_said_later_does_not_matter(trace):
    shorter = trace.vlm.trace(trace.image, trace.prompt, max_new_tokens=2)
    long, short = information_flow(trace, 1), information_flow(shorter, 1)
    assert long.window == 1
    torch.testing.assert_close(long.change, short.change, **CLOSE)


@pytest.mark.parametrize("name", ["gemma3", "paligemma", "qwen2_vl", "qwen3_vl", "qwen3_5", "idefics2"])
def test_other_families_agree_with_their_knockouts(name):
    vlm = families.vlm(name)
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    found = information_flow(trace, 1, window=vlm.n_layers)
    centre = vlm.n_layers // 2
    assert found.change.isfinite().all()
    change, _ = alone(trace, 1, [trace.answer_start], trace.positions("image"), None)
    assert found.change[found.blocks.index("image→last"), centre].item() == pytest.approx(change, abs=1e-2, rel=1e-2)


def test_a_window_without_attention_changes_nothing():
    vlm = families.vlm("qwen3_5")
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=2)
    linear = [layer for layer, kind in enumerate(vlm.decoder.config.layer_types) if kind == "linear_attention"]
    assert information_flow(trace, 0, window=1).change[:, linear].count_nonzero() == 0


def test_the_noun_needs_its_object_and_not_the_rest(emoji_vlm):
    trace = emoji_vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", PROMPT)
    found = information_flow(trace, "dog", window=8, object={"box": [1, 0, 4, 3]})
    lowest = dict(zip(found.blocks, found.change.amin(1).tolist(), strict=True))
    assert lowest["object→prompt"] < -80  # the row before the answer already knows the noun
    assert lowest["rest→prompt"] > -20
    assert found.object == "patches of rows 1 to 4, columns 0 to 3"


def test_it_can_be_written_as_json(trace):
    written = json.loads(json.dumps(information_flow(trace, 1).to_dict()))
    assert written["schema"] == "llava-microscope/flow/1"
    assert len(written["blocks"]["image→last"]["change"]) == len(written["centres"]) == trace.n_layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": 99}, "Answer token 99"),
        ({"window": 0}, "window is 0"),
        ({"window": 4}, "window is 4.*1 to 3"),
        ({"object": "image"}, "not all of them"),
        ({"object": "prompt"}, "some of the image's tokens"),
        ({"object": {"patches": [[9, 9]]}}, "object: Patch row 9"),
    ],
)
def test_what_cannot_be_followed_is_refused(trace, change, message):
    with pytest.raises(InterpError, match=message):
        information_flow(**{"trace": trace, "token": 1} | change)
