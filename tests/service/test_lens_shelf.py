"""Lenses that are not there for every model: trained maps and an index, given by folder or by a preset."""

import base64
import dataclasses

import numpy as np
import pytest
import torch

import interp
from interp import EMBED, InterpError
from interp.lens.translators import Affine, Translators
from interp.models.identity import fingerprint
from interp.presets import PRESETS, KnownLens
from interp.service import lens_shelf
from interp.service.questions import Questions
from interp.service.requests import LensRequest
from interp.service.service import Service
from interp.ui.api.lens import summary
from interp.web.payloads.lens import lens_payload
from tests import tiny

ASKED = LensRequest(tiny.noise(96, 96), "Describe the image.", max_new_tokens=3)
LINES = ["a dog and a pizza on a blue background .", "an owl and a cat on a red background ."] * 4


@pytest.fixture(scope="module")
def vlm():
    return Service().vlm()


def token_lens(vlm, layers):
    """The identity, with a bias that makes a difference."""
    nothing = torch.zeros(vlm.d_model, vlm.d_model)
    bias = torch.randn(vlm.d_model, generator=torch.Generator().manual_seed(0))
    return Translators(
        "token", {layer: Affine(nothing, bias) for layer in layers}, vlm.name, vlm.d_model, vlm.n_layers, "Ten lines.", {}, fingerprint(vlm)
    )


@pytest.fixture(scope="module")
def folders(vlm, tmp_path_factory):
    place = tmp_path_factory.mktemp("lenses")
    token_lens(vlm, [EMBED, 0, 3]).save(place / "token")
    interp.build_index(vlm, LINES, layers=[EMBED, 2], size=80).save(place / "index")
    return [str(place / "token"), str(place / "index")]


@pytest.fixture(scope="module")
def service(folders):
    return Service(lenses=folders)


def test_lenses_given_by_folder_are_offered_with_their_text_and_the_rest_with_its_command(service, monkeypatch):
    monkeypatch.setitem(PRESETS, "emoji-llava", dataclasses.replace(PRESETS["emoji-llava"], lenses=()))
    view = Questions(service).lens_view(service.lens(ASKED))
    assert [method["key"] for method in view["methods"]] == ["logit", "token", "contextual", "embedding"]
    assert "Trained on: Ten lines. Not measured on this model." in view["methods"][1]["about"]
    assert "Not made for this model: tuned lens." in view["missing"]
    assert "python -m interp.lens.train tuned --model emoji-llava" in view["missing"]
    assert "interp.lens.index" not in view["missing"]


def test_a_trained_lens_reads_the_layers_that_it_has(service, monkeypatch):
    questions = Questions(service)
    run = service.remember(service.lens(ASKED))
    reading = questions.read_lens(run, "token")
    assert (reading["layers"], reading["reads"], reading["score"]) == ([-1, 0, 3], "here", "probability")
    found = questions.find_word(run, "dog", "token")
    lens = service.read_again(service.remembered(run, interp.Lens), "token")
    assert len(base64.b64decode(found["values"])) == lens.probability("dog").numel()
    assert summary(lens)["default_layer"] == 3  # the model's own is 7
    monkeypatch.setattr(lens_shelf, "on_gpu", lambda *_args, **_more: pytest.fail("read again"))
    assert questions.read_lens(run, "token") == reading


def test_neighbours_reach_the_view_with_their_contexts(service):
    lens = service.read(service.trace(ASKED), method="contextual")
    view = lens_payload(lens)
    assert view["layers"] == list(range(-1, 8))
    at = np.frombuffer(base64.b64decode(view["neighbours"]), np.uint32).reshape(lens.ids.shape)
    for layer, position, rank in ((-1, 5, 0), (3, 20, 2), (7, 30, 4)):
        shown, found = view["contexts"][at[layer + 1, position, rank]], lens.context(layer, position, rank)
        assert (shown["before"], shown["word"], shown["after"]) == found.context[:3]
        assert shown["layer"] == found.layer
        assert view["vocab"][
            np.frombuffer(base64.b64decode(view["ids"]), np.uint16).reshape(at.shape)[layer + 1, position, rank]
        ].strip() == (shown["word"].casefold())
    cell = summary(lens)["patch_words"][0][0][0]
    assert f"[{cell['word'].strip()}]" in cell["context"].casefold()
    assert cell["context_layer"] in (-1, 2)


def test_a_presets_lens_is_loaded_once_and_dropped_with_its_model(folders, monkeypatch):
    known = KnownLens("token", folders[0], "ten lines", "own noun on 64 % of patches", layer=0)
    monkeypatch.setitem(PRESETS, "emoji-llava", dataclasses.replace(PRESETS["emoji-llava"], lenses=(known,), opens_with="token"))
    loaded = []
    real = lens_shelf.load_translators
    monkeypatch.setattr(lens_shelf, "load_translators", lambda source: loaded.append(source) or real(source))
    service = Service()
    lens = service.lens(ASKED)
    assert (lens.method, summary(lens)["default_layer"]) == ("token", 0)
    service.read(service.trace(ASKED), top_k=3, method="token")
    assert loaded == [folders[0]]
    service.lens_shelf.clear()
    service.read(service.trace(ASKED), top_k=4, method="token")
    assert len(loaded) == 2


def test_a_folder_without_a_lens_is_refused_at_the_start(tmp_path):
    with pytest.raises(InterpError, match="holds no trained lens"):
        Service(lenses=[str(tmp_path)])
