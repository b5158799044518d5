"""The fewest patches: each step equal to a naive search through the model's own mask; honest where nothing flips."""

import json
import sys

import pytest
import torch

import interp
from interp import InterpError
from interp.attention.evidence import smallest_evidence
from interp.presets import ASSETS
from tests import families, tiny

PROMPT = "Describe the image."


@pytest.fixture(scope="module")
def flipping(vlm):
    """A trace whose first word hangs on two patches."""
    return vlm.trace(tiny.noise(120, 90, 3), PROMPT, max_new_tokens=4)


def naive(vlm, trace, removed):
    """Probabilities of the first answer token with positions masked in the model's own way, one forward."""
    tensors = dict(vlm.prepare(trace.image, trace.prompt).tensors)
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    tensors["attention_mask"][0, removed] = 0
    with torch.no_grad():
        length = tensors["input_ids"].shape[1]
        return vlm.model(**tensors, position_ids=torch.arange(length)[None]).logits[0, -1].softmax(-1)


def test_it_removes_what_a_naive_greedy_search_removes(vlm, flipping):
    found = smallest_evidence(flipping, 0)
    word = flipping.tokens[found.token].id
    removed, after = [], []
    while not removed or naive(vlm, flipping, removed).argmax() == word:
        candidates = [each for each in flipping.positions("image") if each not in removed]
        removed.append(min(candidates, key=lambda each: naive(vlm, flipping, [*removed, each])[word].item()))
        after.append(naive(vlm, flipping, removed)[word].item())
    assert found.patches == tuple(removed)
    assert found.probabilities == pytest.approx(after, rel=1e-3)
    assert found.probability == pytest.approx(naive(vlm, flipping, [])[word].item(), rel=1e-3)
    assert found.flipped
    assert found.instead == vlm.vocabulary.texts[naive(vlm, flipping, removed).argmax()]
    assert found.forwards == 1 + 16 + 15


def test_a_word_that_is_said_without_the_picture_has_no_evidence(flipping):
    found = smallest_evidence(flipping, 1)
    assert (found.flipped, found.patches, found.instead, found.forwards) == (False, (), None, 1)


def test_an_end_of_patience_is_told(flipping, monkeypatch):
    monkeypatch.setattr(sys.modules[smallest_evidence.__module__], "_MOST", 1)
    found = smallest_evidence(flipping, 0)
    assert (found.flipped, len(found.patches), found.instead) == (False, 1, None)


@pytest.mark.parametrize("name", ["gemma3", "paligemma", "qwen3_5", "idefics2"])
def test_other_families_can_be_searched(name):
    trace = families.vlm(name).trace(tiny.noise(90, 60), PROMPT, max_new_tokens=2)
    found = smallest_evidence(trace, 1)
    assert set(found.patches) <= set(trace.positions("image"))
    assert len(found.patches) == len(found.probabilities)
    assert found.flipped == (found.instead is not None)


def test_the_evidence_for_a_noun_lies_on_its_object(emoji_vlm, monkeypatch):
    monkeypatch.setattr(sys.modules[smallest_evidence.__module__], "_MOST", 2)  # of the seven it takes
    trace = emoji_vlm.trace(ASSETS / "examples" / "dog-and-pizza.webp", PROMPT)
    found = smallest_evidence(trace, "pizza")
    image = trace.positions("image")
    pizza = {image[8 * row + col] for row in range(3, 7) for col in range(4, 8)}
    assert set(found.patches) <= pizza
    assert found.probability > found.probabilities[0] > found.probabilities[1]


def test_it_can_be_written_as_json(flipping):
    written = json.loads(json.dumps(smallest_evidence(flipping, 0).to_dict()))
    assert written["schema"] == "llava-microscope/evidence/1"
    assert len(written["patches"]) == len(written["probabilities"])


def test_a_word_that_the_model_would_not_say_is_refused(vlm, picture, trace, tmp_path):
    given = vlm.trace(picture, PROMPT, answer="house on boat")
    with pytest.raises(InterpError, match="is not the most probable in its place"):
        smallest_evidence(given, "boat")
    trace.save(tmp_path / "trace")
    with pytest.raises(InterpError, match="without its model"):
        smallest_evidence(interp.Trace.load(tmp_path / "trace"), 0)
