"""The tab of concepts without a browser: what its listeners say."""

import dataclasses
from types import SimpleNamespace

import gradio as gr
import pytest

from interp.presets import PRESETS
from interp.service.concept_shelf import Learned
from interp.service.concepts_service import ConceptsService
from interp.service.requests import ConceptsLook, TraceRequest
from interp.service.service import Service
from interp.ui.controls import EXAMPLES, lay_out
from interp.ui.tabs.concepts_tab import ConceptsStates, ConceptsTab
from tests import tiny

MODEL = "emoji-llava"
(KNOWN, *_) = PRESETS[MODEL].concepts
REQUEST = SimpleNamespace(session_hash="visitor", request=None)


class Page:
    """A page with this tab alone. `boxes`: its components by their ids."""

    def __init__(self, service):
        self.finding = ConceptsService(service)
        with gr.Blocks() as blocks:
            self.controls, self.states, self.run = lay_out(service), ConceptsStates(), gr.State()
            with gr.Tabs():
                self.tab = ConceptsTab(self.finding, self.controls, self.run, self.states)
        self.boxes = {box.elem_id: box for box in blocks.blocks.values() if getattr(box, "elem_id", None)}
        self.texts = " ".join(box.value for box in blocks.blocks.values() if isinstance(box, gr.Markdown))

    def looked(self, key, linked=None):
        """What the tab shows of a run, by the ids of its components; states as they are."""
        controls, states = self.controls, self.states
        values = {self.run: key, self.tab.dictionary: "", states.shown: None, states.linked: linked}
        *_, last = self.tab.look(values | {controls.image: "a.png", controls.max_new_tokens: 4}, REQUEST)
        return {getattr(box, "elem_id", None) or box: value for box, value in last.items()}

    def of_model(self, model, **chosen):
        values = {self.boxes[f"concepts-{name}"]: value for name, value in chosen.items()}
        made = self.tab.of_model({self.controls.model: model, self.states.mine: [["mine", "learned-x", MODEL]], **values})
        return {box.elem_id: update for box, update in made.items()}


@pytest.fixture(scope="module")
def page():
    return Page(Service())


@pytest.fixture(scope="module")
def key(page):
    service = page.finding.service
    return service.remember(service.read(service.trace(TraceRequest(tiny.noise(96, 96, 9), "Describe the image.", max_new_tokens=4))))


def test_a_model_without_a_dictionary_says_so_quietly_with_the_way_out(page, key, monkeypatch):
    monkeypatch.setitem(PRESETS, MODEL, dataclasses.replace(PRESETS[MODEL], concepts=()))
    last = page.looked(key)
    said = last["concepts-message"]
    assert "No dictionary of concepts is known for &#x27;emoji-llava&#x27;. Learn one from pictures of your own, below." in said
    assert 'role="status"' in said
    assert "error" not in said
    assert last[page.states.shown] is None


def test_a_link_to_a_dictionary_that_is_gone_shows_another_and_says_so(page, key):
    look = ConceptsLook("learned-gone", 3, 4, 2.0, "image")
    last = page.looked(key, look)
    assert "This link&#x27;s dictionary learned-gone is not known here" in last["concepts-message"]
    assert next(value for value in last.values() if isinstance(value, dict) and "codes" in value)["look"] is None
    assert last[page.states.linked] is None
    assert page.tab.opened(look, MODEL) == {page.states.linked: look}


def test_a_link_chooses_what_is_known_or_was_learned(page):
    tab = page.tab
    assert tab.opened(ConceptsLook(KNOWN.name), MODEL)[tab.dictionary].value == KNOWN.name
    own = Learned("learned-here", page.finding.shelf.get(KNOWN.name, MODEL), "")
    page.finding.shelf.keep(own)
    opened = tab.opened(ConceptsLook("learned-here"), MODEL)
    assert opened[tab.dictionary].value == "learned-here"
    assert opened[page.states.mine] == [[own.label, "learned-here", MODEL]]
    assert tab.dictionary not in tab.opened(ConceptsLook(KNOWN.source), MODEL), "a link must not make a server read a folder"


def test_another_model_brings_its_dictionaries_and_layer_and_what_it_has_stays(page):
    (tuned, *_) = PRESETS[MODEL].adapters
    made = page.of_model(MODEL, dictionary=KNOWN.name, adapter=tuned.name)
    assert (made["concepts-dictionary"].value, made["concepts-adapter"].value) == (KNOWN.name, tuned.name)
    assert made["concepts-layer"] == KNOWN.layer
    made = page.of_model("smol-llava", dictionary=KNOWN.name, adapter=tuned.name)
    assert made["concepts-dictionary"].value is None
    assert made["concepts-layer"] == PRESETS["smol-llava"].saes[0].layer


def test_the_page_says_whether_it_learns_and_within_which_limits(page):
    limits = "At most 500 pictures, a zip of 30 MB and 300 MB unpacked, 100 concepts"
    assert limits in page.texts
    off = Page(Service(shared=True))
    assert "off on this server" in off.texts
    assert limits not in off.texts
    on = Page(Service(shared=True, learn=True))
    assert limits in on.texts
    assert (page.boxes["concepts-folder"].visible, on.boxes["concepts-folder"].visible) == (True, False)


@pytest.fixture
def fields(page):
    """What a visitor filled in: the example pictures, as a folder of this machine."""
    filled = {
        "zip": None,
        "folder": str(EXAMPLES),
        "prompt": "Describe the image.",
        "where": "end",
        "layer": 3,
        "method": "k-means",
        "n": 2,
    }
    values = {page.boxes[f"concepts-{name}"]: value for name, value in filled.items()}
    return values | {page.controls.model: MODEL, page.controls.max_new_tokens: 4, page.states.mine: None}


def test_what_was_learned_is_chosen_and_kept_for_this_visitor(page, fields):
    *steps, last = page.tab.panel.learn(fields, REQUEST)
    said = [step[page.tab.panel.message] for step in steps]
    assert any("Answered" in text for text in said)
    assert "Learned, and shown above." in last[page.tab.panel.message]
    (entry,) = last[page.states.mine]
    assert entry[1:] == [last[page.tab.dictionary].value, MODEL]
    assert entry[:2] in [list(choice) for choice in last[page.tab.dictionary].choices]
    assert page.finding.shelf.learned(entry[1])


def test_stopping_and_what_is_wrong_are_said_and_change_nothing_else(page, fields):
    steps = page.tab.panel.learn(fields, REQUEST)
    next(steps)
    next(steps)
    page.tab.panel.stop(REQUEST)
    *_, last = steps
    assert list(last) == [page.tab.panel.message]
    assert "Stopped. Nothing was learned" in last[page.tab.panel.message]
    (last,) = page.tab.panel.learn(fields | {page.boxes["concepts-n"]: 1}, REQUEST)
    assert "n is 1" in last[page.tab.panel.message]
