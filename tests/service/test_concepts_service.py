"""Concepts for the page and the API: the package's own figures, and questions about them answered or refused."""

import base64
import dataclasses

import numpy as np
import pytest
import torch

import interp
from interp import InterpError
from interp.concepts.concepts import Concepts
from interp.presets import PRESETS, KnownConcepts
from interp.service.concepts_service import ConceptsService
from interp.service.requests import ConceptsLook, ShiftRequest, TraceRequest
from interp.service.service import Service
from tests import adapters, tiny

PROMPT = "Describe the image."
MODEL = "emoji-llava"
COUNT = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dictionary of patches of noise."""
    vlm = interp.load(MODEL, device="cpu")
    states = interp.collect(vlm, [tiny.noise(96, 96, seed) for seed in range(6)], 3, "patches", max_new_tokens=4)
    place = tmp_path_factory.mktemp("concepts")
    interp.learn_concepts(states, COUNT, "k-means", seeds=1).save(place)
    return str(place)


@pytest.fixture(scope="module")
def finding():
    return ConceptsService(Service())


@pytest.fixture(scope="module")
def trace(finding):
    return finding.service.trace(TraceRequest(tiny.noise(96, 96, 9), PROMPT, max_new_tokens=4))


@pytest.fixture(scope="module")
def key(finding, trace):
    return finding.service.remember(finding.service.read(trace))


@pytest.fixture(scope="module")
def run(finding, key, folder):
    return finding.payload(key, folder)["run"]


def floats(text, *shape):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy()).view(*shape)


def request(**changes):
    return {"source": 0, "target": 1, "value": 1, "where": "image"} | changes


def test_it_is_the_package_s_own_transform(finding, trace, folder):
    here, concepts = finding.here(trace, folder), Concepts.load(folder)
    assert torch.equal(here.codes, concepts.transform(trace))
    assert torch.equal(here.map(2), concepts.map(trace, 2))
    made = here.to_dict()
    assert [each["words"] for each in made["concepts"]] == [list(words) for words in concepts.words]
    assert sum(len(each["places"]) for each in made["concepts"]) == len(trace.positions("image"))
    for k, each in enumerate(made["concepts"]):
        assert torch.equal(torch.tensor(each["map"][0]), concepts.map(trace, k))
        assert each["activation"] == pytest.approx(max(map(max, each["map"][0])))
    assert made["fit"]["fvu"] == concepts.fit_of(trace.residual(3)[trace.positions("image")]).fvu


def test_a_trace_is_coded_once(finding, trace, folder):
    assert finding.here(trace, folder) is finding.here(trace, folder)


def test_the_payload_carries_codes_places_pictures_and_maps(finding, key, trace, folder):
    made, concepts = finding.payload(key, folder), Concepts.load(folder)
    assert made["run"] == f"{key} {folder}"
    assert torch.equal(floats(made["codes"], COUNT, trace.length), concepts.transform(trace).T)
    for item, examples in zip(made["concepts"], concepts.examples, strict=True):
        assert len(item["examples"]) == len(examples)
        for shown, each in zip(item["examples"], examples, strict=True):
            assert shown["picture"]["src"] == f"data:image/webp;base64,{base64.b64encode(each.webp).decode()}"
            assert torch.equal(floats(shown["map"], shown["rows"], shown["cols"]), each.map)
    assert made["unit"] == "amount"
    assert made["shift"] is None


def test_a_link_opens_with_the_concepts_that_the_dictionary_has(finding, key, folder):
    assert finding.payload(key, folder)["look"] is None
    look = ConceptsLook(folder, concept=COUNT, target=1, value=0.5, where="image")
    assert finding.payload(key, folder, look=look)["look"] == {"concept": None, "target": 1, "value": 0.5, "where": "image"}


def test_the_nearest_features_are_those_of_the_sae_of_its_layer(finding, run, folder):
    found = finding.concept_details(run, 1)
    sae, concepts = interp.load_sae(MODEL), Concepts.load(folder)
    direction = concepts.atoms[1] - concepts.atoms.mean(0)
    cosines = torch.nn.functional.cosine_similarity(sae.W_dec.float(), direction, dim=1)
    assert found["sae"] == "emoji-llava-sae"
    assert [each["feature"] for each in found["features"]] == cosines.topk(6).indices.tolist()
    assert found["features"][0]["cosine"] == pytest.approx(float(cosines.max()), abs=1e-5)


def test_a_step_is_the_package_s_own_edit_beside_a_random_one(finding, run, trace, folder):
    made = finding.steer_concepts(run, request(source=0, target=2))
    edit = interp.Edit(vector=Concepts.load(folder).vector(0, 2), amount=1, where="image")
    own = interp.steer(trace.vlm, trace.image, PROMPT, [edit], max_new_tokens=4)
    assert made["plain"]["text"] == own.plain == trace.answer
    assert made["steered"]["text"] == own.steered
    assert made["relative"] == pytest.approx(own.applied[0].relative, rel=1e-3)
    assert finding.steer_concepts(run, request(source=0, target=2))["random"] == made["random"]


def test_a_step_acts_where_most_of_the_first_concept_is(finding, run, trace, folder):
    here = finding.here(trace, folder)
    (most, *_) = sorted(range(COUNT), key=lambda k: -len(here.places(k)))
    made = finding.steer_concepts(run, request(source=most, target=(most + 1) % COUNT, where="places"))
    assert made["fired"] == len(here.places(most))
    nothing = next((k for k in range(COUNT) if not here.places(k)), None)
    if nothing is not None:
        with pytest.raises(InterpError, match=f"Concept {nothing} is the strongest one on no patch"):
            finding.steer_concepts(run, request(source=nothing, target=most, where="places"))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f, _: f.concept_details("gone", 0), "no longer keeps"),
        (lambda f, run: f.concept_details(run, COUNT), f"Concept {COUNT} does not exist"),
        (lambda f, run: f.concept_details(run, "dog"), "'dog'"),
        (lambda f, run: f.steer_concepts(run, 3), "The request is 3"),
        (lambda f, run: f.steer_concepts(run, request(source=1)), "i and j are both 1"),
        (lambda f, run: f.steer_concepts(run, request(target=99)), "Concept 99"),
        (lambda f, run: f.steer_concepts(run, request(value=5)), "value is 5"),
        (lambda f, run: f.steer_concepts(run, request(value=float("nan"))), "value is nan"),
        (lambda f, run: f.steer_concepts(run, request(where="here")), "where is 'here'"),
        (
            lambda f, run: f.here(f.service.remembered(run.split(" ")[0], interp.lens.lens.Lens).trace, "nowhere"),
            "dictionary is 'nowhere'; for emoji-llava it must be one of emoji-llava-concepts, or empty for the first, or the folder of one of your own",
        ),
    ],
)
def test_wrong_questions_are_named(finding, run, ask, message):
    with pytest.raises(InterpError, match=message):
        ask(finding, run)


def test_a_dictionary_of_another_model_is_refused(finding, trace, folder, tmp_path):
    concepts = Concepts.load(folder)
    dataclasses.replace(concepts, layer=20).save(tmp_path / "deeper")
    with pytest.raises(InterpError, match="layer 20"):
        finding.here(trace, str(tmp_path / "deeper"))


def test_a_shared_server_takes_known_dictionaries_and_fine_tunes_only(folder, monkeypatch):
    shared = ConceptsService(Service(shared=True))
    with pytest.raises(InterpError, match=r"it must be one of emoji-llava-concepts, or empty for the first\.$"):
        shared.shelf.get(folder, MODEL)
    with pytest.raises(InterpError, match="on this server, adapter must be one of"):
        shared.shifts.shift(ShiftRequest(MODEL, adapter="somebody/adapter"))
    with pytest.raises(InterpError, match="on this server, adapter must be one of"):
        shared.shifts.shift(ShiftRequest(MODEL, other="somebody/model"))
    preset = dataclasses.replace(PRESETS[MODEL], concepts=(KnownConcepts("noise", folder, 3, "Noise."),))
    monkeypatch.setitem(PRESETS, MODEL, preset)
    assert len(shared.shelf.get("", MODEL)) == COUNT
    assert shared.shelf.about("noise", MODEL) == "Noise."


def test_a_model_without_a_dictionary_says_which_have_one(finding):
    with pytest.raises(InterpError, match="No dictionary of concepts is known for 'smol-llava'"):
        finding.shelf.get("", "smol-llava")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    place = tmp_path_factory.mktemp("adapter")
    adapters.save(place, PRESETS[MODEL].checkpoint)
    return str(place)


def test_a_fine_tune_is_compared_on_the_dictionary_s_pictures(finding, folder, adapter, key):
    told = []
    made = finding.shifts.shift(ShiftRequest(MODEL, adapter=adapter, dictionary=folder), told.append)
    assert made.shift.before == MODEL
    assert made.shift.after == f"{MODEL} + {adapter}"
    pictures = {(each.sample, each.prompt) for row in Concepts.load(folder).examples for each in row}
    assert made.shift.compared == 64 * len(pictures)
    assert set(made.answers) == pictures
    assert any("pictures" in line for line in told)
    assert finding.service.vlm().name == MODEL, "the model itself stays"
    with pytest.raises(InterpError, match="have no model"):
        _ = made.shift.concepts_after.vlm
    assert finding.shifts.shift(ShiftRequest(MODEL, adapter=adapter, dictionary=folder)) is made
    shift = finding.payload(key, folder, made)["shift"]
    assert [item["relative"] for item in shift["concepts"]] == sorted((one.relative for one in made.shift.each), reverse=True)
    assert all(pair is None or set(pair) == {"before", "after"} for item in shift["concepts"] for pair in item["answers"])
    assert made.to_dict()["concepts"][0]["answers"]


def test_a_model_compared_with_itself_has_not_moved(finding, folder):
    made = finding.shifts.shift(ShiftRequest(MODEL, other=PRESETS[MODEL].checkpoint, dictionary=folder))
    assert all(one.magnitude < 1e-4 for one in made.shift.each)
    assert all(before == after for before, after in made.answers.values())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "neither was given"),
        ({"adapter": "a", "other": "b"}, "both were given"),
        ({"adapter": "nowhere"}, "nowhere"),
    ],
)
def test_a_fine_tune_is_named_once_and_exists(finding, folder, asked, message):
    with pytest.raises(InterpError, match=message):
        finding.shifts.shift(ShiftRequest(MODEL, dictionary=folder, **asked))


def test_concepts_of_states_that_cannot_be_collected_again_are_refused(finding, folder, adapter, tmp_path):
    dataclasses.replace(Concepts.load(folder), where="the state that emits 'dog'").save(tmp_path / "dog")
    with pytest.raises(InterpError, match="cannot be collected again"):
        finding.shifts.shift(ShiftRequest(MODEL, adapter=adapter, dictionary=str(tmp_path / "dog")))
    bare = dataclasses.replace(Concepts.load(folder), examples=((),) * COUNT)
    bare.save(tmp_path / "bare")
    with pytest.raises(InterpError, match="no pictures"):
        finding.shifts.shift(ShiftRequest(MODEL, adapter=adapter, dictionary=str(tmp_path / "bare")))
