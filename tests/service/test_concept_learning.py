"""Learning from a visitor's pictures: what the package itself would learn, within limits, and what is refused."""

import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp
from interp import InterpError
from interp.concepts.concepts import Concepts
from interp.lens.lens import Lens
from interp.service import concept_learning, concept_shelf
from interp.service.concept_learning import figures
from interp.service.concepts_service import ConceptsService
from interp.service.requests import LearnRequest, TraceRequest
from interp.service.service import Service
from interp.steering.batch import StoppedError
from tests import tiny

MODEL, PROMPT = "emoji-llava", "Describe the image."
COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    for seed in range(COUNT):
        tiny.noise(96, 96, seed).save(place / f"{seed}.png")
    return place


@pytest.fixture(scope="module")
def file(folder):
    with zipfile.ZipFile(folder.parent / "pictures.zip", "w") as made:
        for path in sorted(folder.iterdir()):
            made.write(path, path.name)
    return str(folder.parent / "pictures.zip")


@pytest.fixture(scope="module")
def finding():
    return ConceptsService(Service())


def asked(**changes):
    return LearnRequest.of({"n": 3, "max_new_tokens": 4} | changes)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def learned(finding, file, told):
    return finding.learning.learn(asked(pictures=file), told.append)


def test_a_zip_gives_what_the_package_learns_of_its_pictures(learned, finding, folder):
    vlm = finding.service.vlm()
    own = interp.learn_concepts(interp.collect(vlm, folder, 3, "patches", max_new_tokens=4), 3, "k-means")
    made = learned.concepts
    assert torch.equal(made.atoms, own.atoms)
    assert torch.equal(made.activations, own.activations)
    assert (made.words, made.stability, made.fit) == (own.words, own.stability, own.fit)
    assert made.layer == 3, "that of the dictionary that ships"
    for mine, theirs in zip(made.examples, own.examples, strict=True):
        assert [(each.sample, each.webp) for each in mine] == [(each.sample, each.webp) for each in theirs]
        assert all(torch.equal(one.map, other.map) for one, other in zip(mine, theirs, strict=True))
        assert {each.path for each in mine} == {""}, "the unpacked pictures are gone"


def test_progress_is_told_step_by_step(learned, told):
    assert learned
    assert f"Looked through 0 of {COUNT} pictures …" in told[:2]
    assert f"Answered {COUNT} of {COUNT} pictures …" in told
    assert told[-1] == f"Splitting {64 * COUNT} states into 3 concepts, three times …"


def test_its_figures_stand_beside_it(learned, finding):
    about, fit = finding.shelf.about(learned.name, MODEL), learned.concepts.fit
    assert f"leave {100 * fit.fvu:.1f} % of their variance unexplained ({100 * fit.fvu_zero:.1f} % of their size" in about
    assert f"lowest {min(learned.concepts.stability):.2f}" in about
    assert f"from {COUNT} pictures of a zip" in about


def test_it_is_found_steered_by_and_described_like_any_other(learned, finding):
    service = finding.service
    trace = service.trace(TraceRequest(tiny.noise(96, 96, 9), PROMPT, max_new_tokens=4))
    key = service.remember(service.read(trace))
    made = finding.payload(key, learned.name)
    assert made["dictionary"]["name"] == learned.name
    assert torch.equal(finding.here(service.remembered(key, Lens).trace, learned.name).codes, learned.concepts.transform(trace))
    assert finding.concept_details(made["run"], 1)["sae"] == "emoji-llava-sae"
    assert finding.steer_concepts(made["run"], {"source": 0, "target": 1, "value": 1, "where": "image"})["fired"] == 64
    with pytest.raises(InterpError, match="have no model"):
        _ = learned.concepts.vlm


def test_a_folder_of_this_machine_gives_the_same_and_keeps_its_paths(learned, finding, folder):
    made = finding.learning.learn(asked(folder=str(folder)))
    assert torch.equal(made.concepts.atoms, learned.concepts.atoms)
    assert {Path(each.path).parent for row in made.concepts.examples for each in row} == {folder}
    assert made.name != learned.name


def test_it_can_be_saved_and_loaded(learned, finding, tmp_path):
    learned.concepts.save(tmp_path)
    assert torch.equal(finding.shelf.get(str(tmp_path), MODEL).atoms, Concepts.load(tmp_path).atoms)


def test_one_of_the_word_of_the_answer(finding, file):
    with pytest.raises(InterpError, match="no sample had the state that was looked for"):
        finding.learning.learn(asked(pictures=file, where="zebra"))
    made = finding.learning.learn(asked(pictures=file, where="end", layer=7, method="pca", n=2))
    assert (made.concepts.layer, made.concepts.method, len(made.concepts.activations)) == (7, "pca", COUNT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "Learning needs a zip of pictures, or a folder: neither was given"),
        ({"pictures": "x.zip", "folder": "x"}, "both were given"),
        ({"folder": "/nowhere"}, "no such folder"),
        ({"pictures": "/nowhere.zip"}, "zip cannot be unpacked"),
        ({"n": 1}, "n is 1"),
        ({"n": 101}, "n is 101"),
        ({"method": "sae"}, "method is 'sae'"),
        ({"layer": 8}, "Layer 8 does not exist: emoji-llava has layers 0 to 7"),
        ({"layer": "x"}, "layer is 'x'"),
        ({"where": 3}, "where is 3"),
        ({"prompt": 3}, "prompt is 3"),
        ({"model": "nonesuch"}, "nonesuch"),
    ],
    ids=str,
)
def test_what_is_refused(finding, folder, changes, message):
    if "layer" in changes or "model" in changes:
        changes = changes | {"folder": str(folder)}
    with pytest.raises(InterpError, match=message):
        finding.learning.learn(asked(**changes))


def test_too_many_pictures_or_states_are_refused(finding, folder, file, monkeypatch):
    monkeypatch.setattr(concept_learning, "MAX_STATES", 64 * COUNT * 192 * 4 - 1)
    with pytest.raises(InterpError, match=f"The {64 * COUNT} states of {COUNT} pictures take .* Use about {COUNT - 1} pictures"):
        finding.learning.learn(asked(folder=str(folder)))
    monkeypatch.setattr(concept_learning, "MAX_PICTURES", COUNT - 1)
    for source in ({"folder": str(folder)}, {"pictures": file}):
        with pytest.raises(InterpError, match=f"{COUNT} pictures; the limit .* {COUNT - 1}"):
            finding.learning.learn(asked(**source))


def test_a_shared_server_learns_only_if_it_was_told_to_and_reads_no_folders(folder, file):
    shared = ConceptsService(Service(shared=True))
    with pytest.raises(InterpError, match=r"off on this server.*--learn"):
        shared.learning.learn(asked(pictures=file))
    shared = ConceptsService(Service(shared=True, learn=True))
    with pytest.raises(InterpError, match="folder is of the server"):
        shared.learning.learn(asked(folder=str(folder)))
    made = shared.learning.learn(asked(pictures=file, where="answer", n=2))
    assert shared.shelf.get(made.name, MODEL) is made.concepts, "a name that cannot be guessed may be used"
    with pytest.raises(InterpError, match="must be one of"):
        shared.shelf.get(str(folder), MODEL)


def test_on_zerogpu_there_is_no_learning(file, monkeypatch):
    monkeypatch.setattr("interp.service.service.remote", lambda: True)
    with pytest.raises(InterpError, match="ZeroGPU"):
        ConceptsService(Service(shared=True, learn=True)).learning.learn(asked(pictures=file))


def test_one_learning_at_a_time_and_stopping_ends_it(finding, file):
    stop, inside = threading.Event(), []

    def tell(doing):
        if doing.startswith("Answered") and not inside:
            inside.append(doing)
            with pytest.raises(InterpError, match="already learning"):
                finding.learning.learn(asked(pictures=file))
            stop.set()

    with pytest.raises(StoppedError):
        finding.learning.learn(asked(pictures=file), tell, stop)
    assert inside
    assert finding.learning.learn(asked(pictures=file, where="answer", n=2)), "the next one may"


def test_a_model_that_is_replaced_meanwhile_ends_it(finding, file, monkeypatch):
    monkeypatch.setattr(finding.service, "holds", lambda _vlm: False)
    with pytest.raises(InterpError, match="emoji-llava was replaced by another model"):
        finding.learning.learn(asked(pictures=file))


def test_those_learned_long_ago_are_named_as_gone(finding, learned):
    shelf = concept_shelf.ConceptShelf(fixed=True)
    shelf.keep(learned)
    assert shelf.get(learned.name, MODEL) is learned.concepts
    with pytest.raises(InterpError, match="no longer keeps the dictionary 'learned-x'"):
        shelf.get("learned-x", MODEL)


def test_figures_say_when_there_are_none(learned):
    none = replace(learned.concepts, fit=replace(learned.concepts.fit, fvu=None))
    assert "leave an unknown share of their variance" in figures(none)
