"""Ablation: figures and the new answer agree with each other, and with runs on the other picture."""

import json

import pytest
import torch

import interp
from interp import InterpError
from interp.attention.ablate import ablate
from interp.attention.replaced import Blank, with_replaced
from interp.presets import ASSETS
from interp.tracing.replay import Replay
from tests import families, tiny

PROMPT = "Describe the image."
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def test_the_figures_are_those_of_the_replaced_tokens(trace):
    found = ablate(trace, {"box": [0, 0, 1, 3]}, "zero")
    tokens = list(range(trace.answer_start, len(trace.tokens)))
    with trace.vlm.lock:
        replay = Replay.of(trace)
    plain, changed = with_replaced(replay, [[], trace.positions("image")[:8]], Blank.zero(replay), tokens).exp()
    assert found.tokens == tuple(tokens)
    torch.testing.assert_close(found.probability[0], plain, **CLOSE)
    torch.testing.assert_close(found.probability[1], changed, **CLOSE)
    assert found.kl.max() > 1e-3


def test_the_same_picture_in_its_own_place_changes_nothing(trace):
    found = ablate(trace, "image", trace.image)
    torch.testing.assert_close(found.log_odds[1], found.log_odds[0], **CLOSE)
    assert found.kl.max() < 1e-4
    assert found.answer.ids == found.plain_answer.ids
    assert [piece["op"] for piece in found.diff] == ["equal"]


@pytest.mark.parametrize("name", ["llava_next", "gemma3", "paligemma", "qwen2_vl", "qwen3_vl", "qwen3_5", "molmo2", "idefics2"])
def test_all_of_another_picture_gives_that_pictures_answer(name):
    vlm = families.vlm(name)
    trace = vlm.trace(tiny.noise(90, 60), PROMPT, max_new_tokens=4)
    other = vlm.trace(tiny.noise(90, 60, 1), PROMPT, max_new_tokens=4)
    found = ablate(trace, "image", other.image)
    assert found.answer.ids == tuple(token.id for token in other.tokens[other.answer_start :])
    first = vlm.unembed.logits(other.residual(vlm.n_layers - 1)[other.answer_start - 1 :][:1]).softmax(-1)[0]
    torch.testing.assert_close(found.probability[1][0], first[trace.tokens[trace.answer_start].id].cpu(), atol=1e-4, rtol=1e-2)


def test_without_the_object_the_noun_is_gone(emoji_vlm):
    trace = emoji_vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", PROMPT)
    found = ablate(trace, {"box": [1, 0, 4, 3]})
    assert "dog" not in found.answer.text
    assert found.probability[0][1] > 0.9
    assert found.probability[1][1] < 0.5
    corner = ablate(trace, {"box": [6, 0, 7, 3]})
    assert corner.answer.text == trace.answer


def test_it_can_be_written_as_json(trace):
    written = json.loads(json.dumps(ablate(trace, {"patches": [[1, 2]]}).to_dict()))
    assert written["schema"] == "llava-microscope/ablation/1"
    assert written["by"] == "mean"
    assert written["patches"] == "patch row 1, column 2"


@pytest.mark.parametrize(
    ("patches", "by", "message"),
    [
        ("prompt", "mean", "other tokens than the image's"),
        ({"positions": [0]}, "mean", "Choose image tokens only"),
        ({"patches": [[9, 9]]}, "mean", "patches: Patch row 9"),
        ("image", "blur", 'by is \'blur\'; it must be "mean", "zero" or a picture'),
        ("image", 3, "by is 3"),
    ],
)
def test_what_cannot_be_replaced_is_refused(trace, patches, by, message):
    with pytest.raises(InterpError, match=message):
        ablate(trace, patches, by)


def test_a_picture_of_another_grid_is_refused():
    trace = families.vlm("qwen2_vl").trace(tiny.noise(168, 56), PROMPT, max_new_tokens=1)
    with pytest.raises(InterpError, match=r"patches and this one .* same size, 168 x 56 pixels"):
        ablate(trace, "image", tiny.noise(56, 168))  # as many tokens, in another order


def test_a_trace_without_its_model_is_refused(trace, tmp_path):
    trace.save(tmp_path / "trace")
    with pytest.raises(InterpError, match="without its model"):
        ablate(interp.Trace.load(tmp_path / "trace"), "image")
