"""Token activation maps: the last layer of the lens, less what earlier words explain; compared with loops as in the paper's code."""

import numpy as np
import pytest
import torch

import interp
from interp import InterpError
from interp.attention.activation_map import activation_map, activations, smoothed, without
from tests import families, tiny

PROMPT = "Describe the image."


def naive_filter(values):
    """One window at a time."""
    padded = np.pad(values, 1, mode="reflect")
    out = np.zeros_like(values)
    for row in range(values.shape[0]):
        for col in range(values.shape[1]):
            window = np.sort(padded[row : row + 3, col : col + 3].ravel())
            if window.mean() > 0 and window.std() > 0:
                width = window.std() / window.mean()
                weights = np.exp(-((np.arange(9) - 4) ** 2) / (2 * width**2))
                out[row, col] = (window * weights).sum() / weights.sum()
            else:
                out[row, col] = window[4]
    return out


def test_before_anything_is_subtracted_it_is_the_lens_at_the_last_layer(trace):
    image, token = trace.positions("image"), trace.answer_start + 1
    lens = interp.logit_lens(trace, top_k=287, layers=[trace.n_layers - 1], positions=image)
    place = (lens.ids[0] == trace.tokens[token].id).int().argmax(-1, keepdim=True)
    logits = lens.probs[0].gather(-1, place)[:, 0].log() + lens.log_z[0]
    torch.testing.assert_close(activations(trace, image, [token])[:, 0], logits.clamp(min=0), atol=1e-4, rtol=1e-4)


def test_the_first_word_has_nothing_subtracted(trace):
    image = trace.positions("image")
    expected = activations(trace, image, [trace.answer_start])[:, 0].view(4, 4)
    assert expected.max() > 0
    torch.testing.assert_close(activation_map(trace, 0).map(), smoothed(expected))


def test_a_later_word_equals_the_papers_loop(vlm, picture):
    trace = vlm.trace(picture, PROMPT, answer="dog and cat on dog")
    start, image = trace.answer_start, trace.positions("image")
    logits = tiny.naive_logits(vlm, trace)[-1].clamp(min=0).numpy()
    ids = [token.id for token in trace.tokens]
    last = start + 4
    assert ids[last] == ids[start]
    earlier = [start + 1, start + 2, start + 3]  # not the first, which is the same word
    weights = np.array([logits[token - 1, ids[last]] for token in earlier])
    background = sum(weight * logits[image, ids[token]] for weight, token in zip(weights / (weights.sum() + 1e-8), earlier, strict=True))
    own = logits[image, ids[last]]
    scales = np.linspace(0, 10, 20_001)
    best = scales[np.argmin([((own - scale * background) ** 2).sum() for scale in scales])]
    expected = naive_filter(np.clip(own - best * background, 0, None).reshape(4, 4))
    assert 0 < best < 10
    np.testing.assert_allclose(activation_map(trace, 4).map().numpy(), expected, atol=2e-3)


def test_repeated_words_keep_two_maps(vlm, picture):
    trace = vlm.trace(picture, PROMPT, answer="dog and cat on dog")
    first, second = activation_map(trace, 0), activation_map(trace, 4)
    assert (first.token, second.token) == (trace.answer_start, trace.answer_start + 4)
    assert not first.values.allclose(second.values)
    with pytest.raises(InterpError, match="several tokens of the answer: 0, 4"):
        activation_map(trace, "dog")
    assert activation_map(trace, "cat").token == trace.answer_start + 2


def test_what_the_background_explains_is_gone():
    background = torch.tensor([1.0, 2.0, 0.0])
    assert without(3 * background, background).abs().max() < 1e-6
    torch.testing.assert_close(without(background, torch.zeros(3)), background)
    assert without(torch.tensor([0.0, 1.0, 5.0]), background)[2] == 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (4, 7)])
def test_the_filter_equals_one_window_at_a_time(shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) ** 4
    values[0, 0] = 0
    np.testing.assert_allclose(smoothed(values).numpy(), naive_filter(values.numpy()), atol=1e-6)
    assert smoothed(torch.zeros(shape)).count_nonzero() == 0
    torch.testing.assert_close(smoothed(torch.full(shape, 2.0)), torch.full(shape, 2.0))


@pytest.mark.parametrize("name", ["onevision", "idefics2", "qwen3_vl", "molmo2 odd"])
def test_other_families_have_finite_maps_of_their_image_tokens_only(name):
    trace = families.vlm(name).trace(tiny.noise(90, 60), PROMPT, max_new_tokens=3)
    found = activation_map(trace, 1)
    elsewhere = sorted(set(range(trace.length)) - set(trace.positions("image")))
    assert found.values.isfinite().all()
    assert found.values.min() >= 0
    assert found.values[elsewhere].count_nonzero() == 0
    assert found.on_image().max() > 0


def test_it_needs_a_word_of_the_answer_and_a_model(trace, tmp_path):
    with pytest.raises(InterpError, match="Answer token 6 does not exist"):
        activation_map(trace, 6)
    with pytest.raises(InterpError, match="'nothing' is not a single token of the answer"):
        activation_map(trace, "nothing")
    trace.save(tmp_path / "trace")
    with pytest.raises(InterpError, match="without its model"):
        activation_map(interp.Trace.load(tmp_path / "trace"), 0)
