"""The editor of steering edits in a real browser: the component in a gradio page, with a stand-in for the server function.

What Python receives is what counts: the listeners of the page keep every value they are given. Waits are on conditions, never on time.
"""

from __future__ import annotations

import base64
import io
import threading
import time

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from interp.errors import InterpError
from interp.ui.components.edits_view import EditsView
from interp.ui.components.feature_view import FeatureView
from tests.browser.conftest import LAUNCH, PHONE
from tests.browser.view import Opened
from tests.web.edits_payload import BLUE, DOG, PIZZA, blue, chip, drawn, payload, pizza, scene
from tests.web.feature_payload import Expected
from tests.web.feature_payload import payload as feature_payload

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
PATIENCE = 15.0  # seconds


class Python:
    """The other side of the page: what its listeners received, and what the server function answers."""

    def __init__(self):
        self.received, self.asked, self.answers, self.held = [], [], {}, {}
        self.next = None

    def steerable(self, run, text):
        self.asked.append((run, text))
        if (gate := self.held.get(text)) is not None:
            gate.wait(20)
        answer = self.answers.get(text, {"features": [chip(), pizza(), blue()], "note": "3 of 8192."})
        if isinstance(answer, Exception):
            raise answer
        return answer

    def until(self, fits):
        """Wait until the newest value that a change brought fits, and return it. What other events bring was read earlier and may come later."""

        def found():
            values = [value for event, value in self.received if event == "input"]
            return bool(values) and fits(values[-1])

        self.wait(found)
        return [value for event, value in self.received if event == "input"][-1]

    def heard(self, fits):
        """Wait until the events received so far, by name, fit."""
        self.wait(lambda: fits(self.events()))

    def wait(self, found):
        end = time.monotonic() + PATIENCE
        while not found():
            if time.monotonic() > end:
                raise AssertionError(f"Python never received it; the newest: {self.received[-2:]}")
            time.sleep(0.01)

    def edit(self, index, **fields):
        """Wait until edit `index` has these fields."""
        return self.until(lambda got: len(got["edits"]) > index and got["edits"][index] == {**got["edits"][index], **fields})["edits"][
            index
        ]

    def events(self):
        return [event for event, _ in self.received]


class Editor(Opened):
    """One opened view."""

    KIND = "edits"

    def __init__(self, page, python):
        super().__init__(page)
        self.python = python

    def state(self, name="edits"):
        return super().state(name)

    def card(self, index):
        return Card(self, self.root.locator(".edits-chip").nth(index))

    def cards(self):
        return self.root.locator(".edits-chip").evaluate_all("(cards) => cards.map((card) => Number(card.dataset.feature))")

    def search(self, text):
        self.part("text").fill(text)
        self.part("text").press("Enter")

    def options(self):
        return self.part("results").get_by_role("option")

    def focus(self):
        """The name of what has the focus."""
        return self.page.evaluate("() => document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()")


class Card:
    def __init__(self, editor, node):
        self.editor, self.node = editor, node

    @property
    def slider(self):
        return self.node.get_by_role("slider")

    @property
    def number(self):
        return self.node.locator(".edits-number")

    @property
    def where(self):
        return self.node.get_by_role("combobox").first

    def unit(self, name):
        return self.node.get_by_role("radio", name=name, exact=True)

    def button(self, name):
        return self.node.get_by_role("button", name=name)

    def wrong(self):
        return self.node.locator("[role=alert]").inner_text()

    def slide(self, value):
        """As a mouse does: many values, then the end."""
        self.slider.evaluate(
            """(node, value) => {
                for (const v of [node.min, 0, value]) { node.value = v; node.dispatchEvent(new Event('input', { bubbles: true })); }
                node.dispatchEvent(new Event('change', { bubbles: true }));
            }""",
            value,
        )


@pytest.fixture(scope="module")
def site():
    """One gradio page for all tests: a feature view and the editor in tabs, whose listeners and server function ask `site.python`."""

    class Site:
        python = Python()

    def steerable(run, text, sae):
        assert sae == (payload()["sae"] or {}).get("name")
        return Site.python.steerable(run, text)

    def kept(event):
        return lambda value: Site.python.received.append((event, value))

    def refresh(value):
        # A generator, whose last value gradio delivers twice.
        yield gr.skip()
        yield Site.python.next(value) if Site.python.next else gr.skip()

    with gr.Blocks() as demo:
        with gr.Tabs():
            with gr.Tab("SAE features", id="sae"):
                FeatureView(feature_payload(run="f1"))
            with gr.Tab("Steer", id="steer", elem_id="steer-tab") as tab:
                view = EditsView(payload(), server_functions=[steerable])
        # One request at a time: of several at once an older value could come last.
        view.input(kept("input"), view, None, trigger_mode="always_last", queue=False)
        view.run(kept("run"), view, None, trigger_mode="always_last", queue=False)
        gr.Button("another").click(lambda: Site.python.next(None), outputs=view)
        gr.Button("ask").click(kept("ask"), view, queue=False)
        settled = gr.Textbox(elem_id="settled")
        gr.Button("settle").click(lambda text: f"{text}.", settled, settled)
        tab.select(refresh, view, view)
    _, Site.url, _ = demo.launch(**LAUNCH)
    yield Site
    demo.close()


@pytest.fixture
def open_page(site, page_of):
    """A page of the site, at the editor's tab unless told otherwise; options as for `page_of`."""
    site.python = Python()

    def opened(tab="Steer", **options):
        def load(page):
            page.goto(site.url)
            page.wait_for_selector(".features[data-ready]")
            if tab:
                page.get_by_role("tab", name=tab).click()
                page.wait_for_selector(".edits[data-ready]")

        page = page_of(load, **options)
        if tab:
            # What the previous test changed last may still be on its way: wait for what is sent after it, which no test sends.
            page.evaluate(
                """(last) => {
                    const { __view: view } = document.querySelector(".edits");
                    view.set(null);
                    view.options.changed(last);
                    view.options.run();
                }""",
                payload(run="the last"),
            )
            site.python.wait(lambda: {event for event, value in site.python.received if value["run"] == "the last"} == {"input", "run"})
            while page.posts:
                page.wait_for_event("requestfinished")
            # Values that listeners gave the view come through gradio's queue, the last one twice: what is queued after them comes last.
            said = page.locator("#settled textarea").input_value()
            page.get_by_role("button", name="settle").evaluate("(button) => button.click()")
            page.wait_for_function("(said) => document.querySelector('#settled textarea').value === said", arg=f"{said}.")
            site.python = Python()
        return page

    yield opened
    for gate in site.python.held.values():
        gate.set()


@pytest.fixture
def open_editor(open_page, site):
    def opened(made=None, **options):
        editor = Editor(open_page(**options), site.python)
        return editor.set(None).set(made or payload())

    return opened


@pytest.fixture
def editor(open_editor):
    """With a dog that is pushed down and a pizza that is switched off."""
    return open_editor(payload(edits=[chip(), pizza()]))


def test_the_empty_state_says_what_steering_is_and_how_to_begin(open_editor):
    editor = open_editor()
    assert "Steering turns a feature up or down while the model answers" in editor.root.inner_text()
    assert editor.text("facts") == "emoji-llava · emoji-llava-sae · layer 6 · 8,192 features"
    assert editor.part("presets").get_by_role("button").all_inner_texts() == [
        "No dog\nThe dog's feature is switched off everywhere.",
        "More pizza\nPizza up, dog down.",
    ]
    assert editor.part("text").is_visible()
    assert editor.part("undo").is_hidden()
    assert editor.state() == []
    assert editor.python.received == []  # opening changes nothing


def test_nothing_at_all_and_damaged_payloads_are_said_in_words(open_editor):
    editor = open_editor()
    for made, said in (
        (None, "No features to steer yet."),
        ({"schema": "other"}, "it was given other"),
        (payload(edits=[chip(layer="6")]), 'edit 1 has "6" as its layer'),
        (payload(scene={**scene(), "grids": [{**scene()["grids"][0], "boxes": "AAAA"}]}), "boxes has 3 bytes"),
    ):
        editor.set(made)
        editor.says("empty", said)
        assert editor.part("body").is_hidden()
        assert editor.page.locator(".edits[data-ready]").count() == 0
    editor.set(payload(edits=[chip()]))
    assert editor.part("body").is_visible()
    assert editor.part("empty").is_hidden()
    assert editor.cards() == [DOG]


def test_a_card_says_what_is_turned_and_how(editor):
    card = editor.card(0)
    assert card.node.locator("h3").inner_text() == "dog · feature 1428 · layer 6"
    assert card.unit("push").is_checked()
    assert card.number.input_value() == "-0.3"
    assert float(card.slider.input_value()) == -0.3
    assert "a fraction of the usual residual norm" in card.node.inner_text()
    assert card.where.evaluate("(node) => node.selectedOptions[0].textContent") == "everywhere"
    assert card.node.get_by_role("checkbox", name="apply").is_checked()
    other = editor.card(1)
    assert other.unit("set to").is_checked()
    assert "0 switches the feature off, below 0 pushes further; its largest here is 4.00" in other.node.inner_text()
    marks = editor.root.locator(".edits-mark").evaluate_all("(nodes) => nodes.map((node) => getComputedStyle(node).backgroundColor)")
    assert len(set(marks)) == 2


def test_an_edit_of_an_sae_that_is_not_loaded_has_no_layer_yet(open_editor):
    editor = open_editor(payload(edits=[chip(layer=None)]))
    assert editor.card(0).node.locator("h3").inner_text() == "dog · feature 1428"
    hand_over(editor.page)
    editor.says("said", "dog, feature 1428, is already in the list.")


def test_presets_replace_the_edits_and_ask_for_an_answer(open_editor):
    editor = open_editor()
    editor.part("presets").get_by_role("button", name="More pizza").click()
    got = editor.python.until(lambda got: len(got["edits"]) == 2)
    assert got["edits"] == [pizza(unit="strength", value=0.4), chip()]
    assert got["swept"] == 0
    assert got["schema"] == "llava-microscope/edits/1"
    assert got["presets"] == payload()["presets"]
    editor.card(1).slide(0.5)
    editor.python.edit(1, value=0.5)
    # with cards there, the presets stay within reach, without their notes
    editor.part("presets").get_by_role("button", name="No dog").click()
    editor.python.until(lambda got: got["edits"] == [chip(unit="target", value=0)])
    editor.python.heard(lambda events: events.count("run") == 2)
    editor.page.get_by_role("button", name="ask").click()
    editor.python.heard(lambda events: events[-1] == "ask")
    runs = [value["edits"] for event, value in editor.python.received if event == "run"]
    assert runs == [[pizza(unit="strength", value=0.4), chip()], [chip(unit="target", value=0)]]
    assert editor.cards() == [DOG]
    assert editor.card(0).number.input_value() == "0"
    editor.says("said", "“No dog”: 1 edit in the list.")
    editor.part("undo").click()
    editor.python.until(lambda got: got["edits"] == [pizza(unit="strength", value=0.4), chip(value=0.5)])
    assert editor.part("undo").is_hidden()
    # a preset is not changed by what was done to its edits
    editor.part("presets").get_by_role("button", name="More pizza").click()
    editor.python.until(lambda got: got["edits"] == [pizza(unit="strength", value=0.4), chip()])
    assert editor.python.received[-1][1]["presets"] == payload()["presets"]


def test_what_the_host_was_told_does_not_change_afterwards(open_editor):
    editor = open_editor(fresh=True)  # its own mount has no Python
    editor.page.evaluate(
        """() => { window.told = []; const root = document.querySelector('.edits');
            Microscope.mountEdits(root.parentNode, { changed: (payload) => told.push(payload) }); }"""
    )
    editor.set(payload(edits=[chip(), pizza()]))
    editor.card(0).slide(0.1)
    editor.card(0).slide(0.2)
    editor.card(1).button("Remove pizza").click()
    told = editor.page.evaluate("() => told.map((payload) => payload.edits.map((edit) => edit.value))")
    assert told == [[0.1, 0], [0.2, 0], [0.2]]


def test_a_slider_that_is_dragged_reaches_python_with_its_last_value(editor):
    card = editor.card(0)
    box = card.slider.bounding_box()
    mouse = editor.page.mouse
    mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] / 2)
    mouse.down()
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    value = float(card.slider.input_value())
    assert value > 0.7
    assert float(card.number.input_value()) == value  # at once, not when it is sent
    assert editor.state()[0]["value"] == value
    mouse.up()
    assert editor.python.edit(0, value=value) == chip(value=value)
    editor.page.get_by_role("button", name="ask").click()
    editor.python.heard(lambda events: events[-1] == "ask")
    assert editor.python.received[-1][1]["edits"][0]["value"] == value
    assert editor.python.events().count("input") <= 5  # of seven movements or more


def test_a_drag_that_pauses_is_sent_before_it_ends(editor):
    editor.card(0).slider.evaluate("(node) => { node.value = 0.25; node.dispatchEvent(new Event('input', { bubbles: true })); }")
    assert editor.python.received == []
    editor.python.edit(0, value=0.25)


def test_the_slider_by_keyboard(editor):
    editor.card(0).slider.focus()
    editor.page.keyboard.press("ArrowRight")
    editor.python.edit(0, value=-0.25)
    editor.page.keyboard.press("End")
    editor.python.edit(0, value=1)
    assert editor.card(0).number.input_value() == "1"


def test_the_slider_reaches_as_far_as_makes_sense_for_the_unit(editor):
    slider = editor.card(0).slider
    for unit, low, high in (("push", -1, 1), ("add", -12.6, 12.6), ("set to", -12.6, 18.9)):
        editor.card(0).unit(unit).check()
        least, most, step = (float(slider.get_attribute(name)) for name in ("min", "max", "step"))
        assert (least, most) == (pytest.approx(low, abs=step), pytest.approx(high, abs=step))
        assert least / step == pytest.approx(round(least / step), abs=1e-6)  # so that 0 can be hit


def test_each_unit_keeps_its_own_value(editor):
    card = editor.card(0)
    card.unit("add").check()
    assert editor.python.edit(0, unit="amount")["value"] == 6.3  # its largest activation here
    card.slide(-2)
    editor.python.edit(0, unit="amount", value=-2)
    card.unit("set to").check()
    editor.python.edit(0, unit="target", value=0)
    card.unit("push").check()
    assert editor.python.edit(0, unit="strength") == chip()
    card.unit("add").check()
    editor.python.edit(0, unit="amount", value=-2)
    assert card.number.input_value() == "-2"
    assert "adds that much activation; its largest here is 6.30" in card.node.inner_text()


@pytest.mark.parametrize(("typed", "value"), [("\N{MINUS SIGN}0.5", -0.5), ("1e3", 1000)])
def test_the_number_box_takes_any_finite_number(editor, typed, value):
    card = editor.card(0)
    card.number.fill(typed)
    editor.python.edit(0, value=value)
    card.number.blur()
    assert card.number.get_attribute("aria-invalid") == "false"
    assert float(card.slider.input_value()) == pytest.approx(max(-1, min(1, value)), abs=0.03)
    assert editor.python.events() == ["input"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("abc", "“abc” is not a number."),
        ("1e999", "too large"),
    ],
)
def test_the_number_box_says_what_is_wrong_and_the_edit_keeps_its_value(editor, typed, said):
    card = editor.card(0)
    card.number.fill(typed)
    assert said in card.wrong()
    assert "The edit keeps -0.3." in card.wrong()
    assert card.number.get_attribute("aria-invalid") == "true"
    card.number.press("Enter")
    assert editor.state()[0] == chip()
    card.number.press("Escape")
    assert (card.wrong(), card.number.input_value()) == ("", "-0.3")
    card.number.fill(typed)
    card.slide(0.2)
    assert (card.wrong(), card.number.input_value()) == ("", "0.2")
    editor.python.edit(0, value=0.2)
    assert "run" not in editor.python.events()


def test_what_can_still_become_a_number_is_complained_about_only_when_one_leaves_it(editor):
    card = editor.card(0)
    card.number.fill("1e")
    assert card.wrong() == ""
    card.number.blur()
    assert "The edit keeps -0.3." in card.wrong()
    assert editor.state()[0] == chip()


def test_enter_in_a_number_box_asks_for_an_answer_after_python_has_the_number(editor):
    card = editor.card(0)
    card.number.fill("0.45")
    card.number.press("Enter")
    editor.python.heard(lambda events: set(events) == {"input", "run"})
    assert all(value["edits"][0]["value"] == 0.45 for event, value in editor.python.received if event == "run")
    card.number.press("Enter")  # once more, with nothing changed
    editor.python.heard(lambda events: events.count("run") == 2)
    assert editor.python.events().count("input") == 1


def test_a_value_from_elsewhere_is_shown_rounded_and_not_changed_by_that(open_editor):
    editor = open_editor(payload(edits=[chip(value=0.30000001192092896)]))
    card = editor.card(0)
    assert card.number.input_value() == "0.3"
    card.number.focus()
    card.number.press("Enter")
    editor.python.heard(lambda events: events == ["run"])  # nothing was changed, so no value was sent
    assert editor.state()[0]["value"] == 0.30000001192092896


def test_quick_ways_off_and_up(editor):
    editor.card(0).button("switch off").click()
    editor.python.edit(0, unit="target", value=0)
    editor.card(1).button("turn up").click()
    editor.python.edit(1, unit="strength", value=0.5)
    editor.card(0).unit("push").check()
    editor.python.edit(0, unit="strength", value=-0.3)


def test_an_edit_can_be_switched_off_and_kept(editor):
    editor.card(0).node.get_by_role("checkbox", name="apply").uncheck()
    editor.python.edit(0, on=False)
    assert editor.cards() == [DOG, PIZZA]
    assert "edits-off" in editor.card(0).node.get_attribute("class")
    editor.card(0).node.get_by_role("checkbox", name="apply").check()
    editor.python.edit(0, on=True)


def test_removing_keeps_the_focus_near_and_can_be_undone(open_editor):
    editor = open_editor(payload(edits=[chip(), pizza(), blue()], swept=2))
    editor.card(1).button("Remove pizza, feature 77").press("Enter")
    got = editor.python.until(lambda got: len(got["edits"]) == 2)
    assert got["edits"] == [chip(), blue()]
    assert got["swept"] == 1  # the same edit as before
    assert editor.focus() == "Remove feature 5002, feature 5002"
    editor.says("said", "Removed pizza, feature 77.")
    editor.page.keyboard.press("Enter")
    got = editor.python.until(lambda got: len(got["edits"]) == 1)
    assert got["swept"] == 0
    assert editor.focus() == "Remove dog, feature 1428"
    editor.page.keyboard.press("Enter")
    editor.python.until(lambda got: got["edits"] == [])
    assert editor.focus() == "Undo"
    assert "Steering turns a feature up or down" in editor.root.inner_text()
    editor.page.keyboard.press("Enter")
    editor.python.until(lambda got: got["edits"] == [chip()])


def test_the_swept_edit_is_chosen_among_several(open_editor):
    editor = open_editor(payload(edits=[chip()]))
    sweep = editor.root.get_by_role("radio", name="sweep this")
    assert sweep.count() == 0
    editor.set(payload(edits=[chip(), pizza(), blue()]))
    assert [sweep.nth(i).is_checked() for i in range(3)] == [True, False, False]
    sweep.nth(2).check()
    assert editor.python.until(lambda got: got["swept"] == 2)["edits"] == [chip(), pizza(), blue()]
    editor.card(0).button("Remove dog").click()
    editor.python.until(lambda got: got["swept"] == 1)
    assert [sweep.nth(i).is_checked() for i in range(2)] == [False, True]
    editor.card(1).button("Remove feature 5002").click()
    editor.python.until(lambda got: got["swept"] == 0)
    assert sweep.count() == 0


def test_places(editor):
    card = editor.card(0)
    options = card.where.locator("option").all_inner_texts()
    assert options == [
        "everywhere",
        "image tokens",
        "prompt tokens",
        "the answer",
        "where active here (10 patches)",
        "chosen patches …",
    ]
    for name, key in (("image tokens", "image"), ("prompt tokens", "prompt"), ("the answer", "answer"), ("everywhere", "all")):
        card.where.select_option(label=name)
        editor.python.edit(0, where=key)
    card.where.select_option("active")
    editor.python.edit(0, where={"patches": drawn(0), "grid": 0})
    assert card.where.input_value() == "active"
    assert editor.part("picker").is_hidden()


def test_without_activity_or_picture_places_are_fewer(open_editor):
    editor = open_editor(payload(edits=[blue()], scene=None, run=None))
    where = editor.card(0).where
    assert [option.get_attribute("value") for option in where.locator("option").all()] == ["all", "image", "prompt", "answer", "chosen"]
    assert where.locator("option").last.is_disabled()
    assert "run a picture first" in where.inner_text()
    where.select_option("image")
    assert editor.python.edit(0, where="image")["feature"] == BLUE
    assert editor.python.received[-1][1]["run"] is None


class Picker:
    """The open picker of patches."""

    def __init__(self, editor, made):
        self.editor, self.made = editor, made
        editor.part("pickNote").filter(has_text="patch").wait_for()
        editor.part("stage").scroll_into_view_if_needed()

    def at(self, row, col, grid=0):
        """The middle of a patch in pixels of the stage."""
        info = self.made["scene"]["grids"][grid]
        left, top, right, bottom = memoryview(base64.b64decode(info["boxes"])).cast("f")[(row * info["cols"] + col) * 4 :][:4]
        size = self.editor.part("base").bounding_box()
        image = self.made["scene"]["image"]
        return {"x": (left + right) / 2 / image["width"] * size["width"], "y": (top + bottom) / 2 / image["height"] * size["height"]}

    def click(self, row, col, grid=0):
        self.editor.part("stage").click(position=self.at(row, col, grid))

    def on_page(self, row, col):
        box, at = self.editor.part("base").bounding_box(), self.at(row, col)
        return box["x"] + at["x"], box["y"] + at["y"]

    def drag(self, *places):
        mouse = self.editor.page.mouse
        mouse.move(*self.on_page(*places[0]))
        mouse.down()
        for place in places[1:]:
            mouse.move(*self.on_page(*place))  # in one step, as a fast hand does
        mouse.up()

    def pixels(self):
        url = self.editor.part("base").evaluate("(canvas) => canvas.toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")).astype(int)


@pytest.fixture
def picker(open_editor):
    """The picker of a feature that is active nowhere here."""
    made = payload(edits=[blue(), chip()])
    editor = open_editor(made)
    editor.card(0).where.select_option("chosen")
    return Picker(editor, made)


def test_until_a_patch_is_chosen_the_edit_keeps_its_place(picker):
    editor = picker.editor
    assert editor.text("pickNote") == "No patch chosen: click one or draw over several. Until then the edit acts everywhere."
    assert editor.python.received == []
    assert editor.card(0).where.input_value() == "chosen"
    editor.part("pickDone").click()
    assert editor.card(0).where.input_value() == "all"
    assert editor.part("picker").is_hidden()
    assert editor.state()[0]["where"] == "all"


def test_patches_are_chosen_by_click(picker):
    editor, python = picker.editor, picker.editor.python
    picker.click(2, 5)
    python.edit(0, where={"patches": [[2, 5]], "grid": 0})
    picker.click(0, 1)
    python.edit(0, where={"patches": [[0, 1], [2, 5]], "grid": 0})  # in reading order
    assert editor.text("pickNote") == "2 patches chosen."
    # what is not chosen is dark
    pixels, light, dark = picker.pixels(), picker.at(2, 5), picker.at(2, 6)
    assert pixels[int(light["y"]), int(light["x"])].sum() > 2 * pixels[int(dark["y"]), int(dark["x"])].sum()
    picker.click(2, 5)
    python.edit(0, where={"patches": [[0, 1]], "grid": 0})
    # the last one cannot go: an edit of no patch would be none
    picker.click(0, 1)
    editor.says("pickNote", "Until then the edit keeps the patches it had.")
    assert editor.state()[0]["where"] == {"patches": [[0, 1]], "grid": 0}
    editor.part("pickDone").click()
    card = editor.card(0)
    assert card.where.evaluate("(node) => node.selectedOptions[0].textContent") == "chosen patches (1)"
    # and they can be chosen anew
    card.button("Choose patches").click()
    picker.click(7, 7)
    python.edit(0, where={"patches": [[0, 1], [7, 7]], "grid": 0})


def test_patches_are_drawn_and_erased_in_one_go(picker):
    python = picker.editor.python
    picker.drag((1, 1), (1, 6), (4, 6))
    line = [[1, c] for c in range(1, 7)]
    python.edit(0, where={"patches": [*line, [2, 6], [3, 6], [4, 6]], "grid": 0})
    assert python.events() == ["input"]  # when the hand is lifted, once
    picker.drag((4, 6), (2, 6))
    python.edit(0, where={"patches": line, "grid": 0})


def test_patches_by_keyboard(picker):
    editor, python = picker.editor, picker.editor.python
    editor.part("stage").focus()
    press = editor.page.keyboard.press
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        press(key)
    python.edit(0, where={"patches": [[1, 1]], "grid": 0})
    editor.says("live", "row 2, column 2: chosen; 1 in all")
    press("Shift+ArrowRight")
    press("Shift+ArrowDown")
    python.edit(0, where={"patches": [[1, 1], [1, 2], [2, 2]], "grid": 0})
    press("ArrowUp")
    press(" ")
    python.edit(0, where={"patches": [[1, 1], [2, 2]], "grid": 0})
    for _ in range(12):
        press("ArrowLeft")  # the edge holds
    editor.says("live", "row 2, column 1: not chosen; 2 in all")
    press("Escape")
    assert editor.part("picker").is_hidden()
    assert editor.card(0).where.evaluate("(node) => node === document.activeElement")


def test_patches_by_touch_and_the_page_does_not_scroll_away(open_editor):
    made = payload(edits=[blue()])
    editor = open_editor(made, **PHONE)
    editor.card(0).where.select_option("chosen")
    picker = Picker(editor, made)
    editor.part("stage").tap(position=picker.at(3, 3))
    editor.python.edit(0, where={"patches": [[3, 3]], "grid": 0})
    cdp = editor.page.context.new_cdp_session(editor.page)
    top = editor.page.evaluate("window.scrollY")
    for kind, place in (("touchStart", (5, 0)), ("touchMove", (5, 2)), ("touchMove", (2, 2)), ("touchEnd", None)):
        points = [dict(zip("xy", picker.on_page(*place), strict=True))] if place else []
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    editor.python.edit(0, where={"patches": [[2, 2], [3, 2], [3, 3], [4, 2], [5, 0], [5, 1], [5, 2]], "grid": 0})
    assert editor.page.evaluate("window.scrollY") == top


def test_a_scene_that_does_not_say_what_was_seen_is_shown_whole(open_editor):
    made = payload(edits=[blue(where={"patches": [[2, 5]], "grid": 0})], scene={part: scene()[part] for part in ("image", "grids")})
    editor = open_editor(made)
    editor.card(0).button("Choose patches").click()
    picker = Picker(editor, made)
    picker.click(2, 6)
    editor.python.edit(0, where={"patches": [[2, 5], [2, 6]], "grid": 0})


def test_the_picker_starts_from_where_the_feature_is_active(open_editor):
    made = payload(edits=[chip(), pizza()])
    editor = open_editor(made)
    editor.card(0).where.select_option("chosen")
    Picker(editor, made)
    editor.python.edit(0, where={"patches": drawn(0), "grid": 0})
    assert editor.text("pickNote") == "10 patches chosen. Dots: where the feature is active."
    editor.part("pickNone").click()
    editor.says("pickNote", "No patch chosen")
    editor.part("pickActive").click()
    editor.says("pickNote", "10 patches chosen")
    # another edit's picker takes its place
    editor.card(1).where.select_option("chosen")
    editor.says("pickNote", "6 patches chosen")
    assert editor.card(1).node.locator("[data-part=stage]").count() == 1
    assert editor.state("picking") == 1
    editor.card(1).button("Remove pizza").click()
    assert editor.part("picker").is_hidden()
    assert editor.state("picking") is None
    editor.card(0).button("Choose patches").click()
    editor.says("pickNote", "10 patches chosen")


def test_several_grids(open_editor):
    made = payload(
        edits=[blue(where={"patches": [[1, 1]], "grid": 1})], scene=scene(grids=2, width=320, height=200, seen=[60, 0, 260, 200])
    )
    editor = open_editor(made)
    editor.card(0).button("Choose patches").click()
    picker = Picker(editor, made)
    assert editor.part("grid").input_value() == "1"
    picker.click(2, 2, grid=1)
    editor.python.edit(0, where={"patches": [[1, 1], [2, 2]], "grid": 1})
    editor.part("grid").select_option("0")
    editor.says("pickNote", "No patch chosen")
    assert editor.state()[0]["where"]["grid"] == 1  # until there is one in the other grid
    picker.click(0, 0)
    editor.python.edit(0, where={"patches": [[0, 0]], "grid": 0})


def test_patches_that_the_picture_does_not_have_are_pointed_out(open_editor):
    editor = open_editor(
        payload(edits=[chip(where={"patches": [[1, 1], [9, 2]], "grid": 0}), blue(where={"patches": [[0, 0]], "grid": 3})])
    )
    assert "Row 10, column 3 is not on this picture of 8\N{MULTIPLICATION SIGN}8 patches." in editor.card(0).node.inner_text()
    assert "These patches are of grid 4; this picture has 1 grid." in editor.card(1).node.inner_text()
    editor.card(0).where.select_option("all")
    editor.python.edit(0, where="all")
    assert "is not on this picture" not in editor.card(0).node.inner_text()


def test_search_lists_what_is_found_and_adds_what_is_picked(open_editor):
    editor = open_editor()
    editor.search("dog")
    editor.says("searchNote", "3 features found; pick one to add it. 3 of 8192.")
    assert editor.python.asked == [("r1", "dog")]
    assert [" ".join(text.split()) for text in editor.options().all_inner_texts()] == [
        "dog feature 1428 active on 10 patches here, up to 6.30",
        "pizza feature 77 active on 6 patches here, up to 4.00",
        "no name feature 5002",
    ]
    editor.options().nth(1).click()
    # active here: set as far below 0
    editor.python.until(lambda got: got["edits"] == [pizza(unit="target", value=-4, where="image")])
    assert editor.focus() == "Target of pizza, feature 77"
    assert editor.part("results").is_hidden()
    assert editor.part("text").input_value() == ""
    editor.says("said", "Added pizza, feature 77.")
    editor.search("5002")
    editor.options().nth(2).click()
    # not active, as far as is known: turned up
    editor.python.edit(1, feature=BLUE, unit="strength", value=0.5, where="image", on=True)


def test_all_features_of_a_name_are_switched_off_by_one_click(open_editor):
    editor = open_editor()
    off = [{**made, "unit": "target", "value": 0.0, "where": "image"} for made in (pizza(), blue())]
    editor.python.answers["pizza"] = {"features": [pizza(), blue()], "all": off, "note": ""}
    editor.search("pizza")
    assert editor.options().first.inner_text().startswith("All 2 features named pizza")
    assert editor.options().nth(1).get_attribute("aria-selected") == "true"
    editor.options().first.click()
    editor.python.until(
        lambda got: [(e["feature"], e["unit"], e["value"]) for e in got["edits"]] == [(77, "target", 0), (BLUE, "target", 0)]
    )
    editor.says("said", "Added 2 features named pizza, switched off on the image tokens.")


def test_search_by_keyboard(open_editor):
    editor = open_editor()
    text = editor.part("text")
    editor.search("dog")
    editor.options().first.wait_for()
    selected = "() => document.querySelector('.edits [role=option][aria-selected=true]').id"
    assert text.get_attribute("aria-expanded") == "true"
    for key, at in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowDown", 0), ("ArrowUp", 2)):
        text.press(key)
        assert text.get_attribute("aria-activedescendant") == editor.page.evaluate(selected) == editor.options().nth(at).get_attribute("id")
    text.press("Enter")
    editor.python.edit(0, feature=BLUE)
    editor.search("dog")
    editor.options().first.wait_for()
    text.press("Escape")
    assert editor.part("results").is_hidden()
    assert text.input_value() == "dog"
    assert text.get_attribute("aria-expanded") == "false"
    text.press("Escape")
    assert text.input_value() == ""
    assert editor.cards() == [BLUE]


def test_what_is_in_the_list_is_pointed_at_and_not_added_twice(editor):
    editor.search("pizza")
    assert "in the list" in editor.options().nth(1).inner_text()
    assert "in the list" not in editor.options().nth(2).inner_text()
    editor.options().nth(1).click()
    editor.says("said", "pizza, feature 77, is already in the list.")
    assert editor.focus() == "Target of pizza, feature 77"
    assert editor.cards() == [DOG, PIZZA]
    assert editor.python.received == []


def test_the_same_feature_twice_at_two_places(editor):
    editor.card(0).where.select_option("image")
    editor.card(0).button("duplicate").click()
    got = editor.python.until(lambda got: len(got["edits"]) == 3)
    assert got["edits"] == [chip(where="image"), chip(where="all"), pizza()]
    editor.card(1).slide(0.8)
    got = editor.python.until(lambda got: got["edits"][1]["value"] == 0.8)
    assert got["edits"][0]["value"] == -0.3
    editor.card(0).button("Remove dog").click()
    editor.python.until(lambda got: got["edits"] == [chip(value=0.8), pizza()])
    assert editor.card(0).number.input_value() == "0.8"
    for count in (3, 4, 5):
        editor.card(0).button("duplicate").click()
        editor.python.until(lambda got, count=count: len(got["edits"]) == count)
    editor.card(0).button("duplicate").click()
    editor.says("said", "dog already has an edit for every place")
    assert len(editor.cards()) == 5


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"error": "Feature 9999 does not exist; there are 8192."}, "Feature 9999 does not exist; there are 8192."),
        (InterpError("The run is gone. Run the picture again."), "The run is gone."),
        (RuntimeError("/secret/path"), "The server could not search."),
        (None, "The server could not search."),
        ({"features": [], "note": ""}, "No feature found for “x”."),
        ({"features": [], "note": "Labels are in English."}, "No feature found for “x”. Labels are in English."),
        ({"features": [{"feature": 3}], "note": ""}, "The server's answer could not be read."),
        ({"features": 3}, "The server's answer could not be read."),
    ],
)
def test_what_the_search_cannot_answer_is_said_and_the_next_one_works(open_editor, answer, said):
    editor = open_editor()
    editor.python.answers["x"] = answer
    editor.search("x")
    editor.says("searchNote", said)
    assert "secret" not in editor.root.inner_text()
    assert editor.part("results").is_hidden()
    editor.search("dog")
    editor.says("searchNote", "3 features found")
    assert editor.part("text").get_attribute("aria-invalid") == "false"


def test_an_empty_search_asks_nothing(open_editor):
    editor = open_editor()
    editor.search("  ")
    editor.says("searchNote", "Type a word or a number first.")
    assert editor.python.asked == []


def test_an_answer_to_an_older_search_is_dropped(open_editor):
    editor = open_editor()
    gates = {text: threading.Event() for text in ("slow", "typed", "other run")}
    editor.python.held.update(gates)
    for text in gates:
        editor.python.answers[text] = {"features": [chip(666, "stale")], "note": ""}

    def release(gate):
        with editor.page.expect_response(lambda response: "component_server" in response.url) as answered:
            gate.set()
        answered.value.finished()
        editor.settle()

    editor.search("slow")
    editor.says("searchNote", "Searching …")
    editor.search("dog")
    editor.says("searchNote", "3 features found")
    release(gates["slow"])
    assert "stale" not in editor.part("results").inner_text()
    editor.search("typed")
    editor.part("text").fill("typed on")
    release(gates["typed"])
    assert editor.part("results").is_hidden()
    editor.search("other run")
    editor.set(payload(run="r2"))
    release(gates["other run"])
    assert editor.part("results").is_hidden()
    assert editor.text("searchNote") == ""
    editor.search("dog")
    editor.says("searchNote", "3 features found")
    assert editor.python.asked[-1] == ("r2", "dog")
    assert "stale" not in editor.root.inner_text()


def test_a_model_without_an_sae_offers_no_search(open_editor):
    editor = open_editor(payload(sae=None, presets=[]))
    assert (
        editor.text("facts")
        == "No sparse autoencoder (SAE) is known for emoji-llava, so it has no features to search. From Python you can steer with contrast vectors instead."
    )
    assert editor.part("search").is_hidden()
    assert editor.part("presetBox").is_hidden()
    editor.set(payload())
    assert editor.part("search").is_visible()


def test_what_others_published_can_be_read(open_editor):
    editor = open_editor()
    details = editor.part("published")
    assert details.get_attribute("open") is None
    details.locator("summary").click()
    assert editor.part("publishedList").locator("li").all_inner_texts() == [
        "llava-gemma-2b feature 4501 at amount -3: the dog goes",
        "llava-1.5-7b feature 12 at strength 0.5: all is red",
    ]
    editor.set(payload(published=[]))
    assert details.is_hidden()


def another(editor, made):
    """A new value from Python."""
    editor.python.next = lambda _: made
    editor.page.get_by_role("button", name="another").evaluate("(button) => button.click()")  # which does not take the focus


def test_a_payload_from_python_replaces_what_is_shown(editor):
    another(editor, payload(run="r2", edits=[blue(value=7.5), chip(value=0.5, on=False)], swept=1, presets=[]))
    editor.root.locator(".edits-chip[data-feature='5002']").wait_for()
    assert editor.cards() == [BLUE, DOG]
    assert [editor.state(name) for name in ("run", "swept", "edits")] == ["r2", 1, [blue(value=7.5), chip(value=0.5, on=False)]]
    assert editor.card(1).number.input_value() == "0.5"
    assert editor.part("presetBox").is_hidden()
    editor.card(0).slide(3)
    got = editor.python.until(lambda got: got["edits"][0]["value"] == 3)
    assert got["run"] == "r2"
    another(editor, None)
    editor.part("empty").wait_for()


def test_the_same_edits_from_python_disturb_nothing(editor):
    card = editor.card(0)
    card.number.fill("0.6")
    editor.python.edit(0, value=0.6)
    card.number.fill("0.")  # on the way to another number
    editor.root.evaluate("(root) => { window.before = [...root.querySelectorAll('.edits-chip, .edits-presets button')]; }")
    another(editor, payload(run="r2", edits=[chip(value=0, max=8.0, active=[[0, 0]]), pizza()]))
    card.node.filter(has_text="where active here (1 patch)").wait_for()
    same = "(root) => [...root.querySelectorAll('.edits-chip, .edits-presets button')].every((node, i) => node === window.before[i])"
    assert editor.root.evaluate(same)
    assert card.number.input_value() == "0."  # it means the same
    editor.page.keyboard.type("4")
    editor.python.edit(0, value=0.4, max=8)


def test_an_empty_payload_forgets_the_edits(editor):
    card = editor.card(0)
    card.unit("add").check()
    card.slide(-2)
    card.where.select_option("active")
    card.where.select_option("chosen")
    editor.set(None)
    assert editor.root.locator(".edits-chip").count() == 0
    editor.set(payload(edits=[chip(), pizza()]))
    assert card.where.input_value() == "all"
    card.unit("add").check()
    assert editor.python.edit(0, unit="amount", where="all")["value"] == 6.3  # its largest activation here, not what it was before


def test_the_focus_stays_in_a_card_whose_edit_changes(editor):
    editor.card(1).number.click()
    editor.page.evaluate("() => { window.focused = document.activeElement; }")
    editor.root.evaluate("(root, made) => root.__view.set(made)", payload(run="r2", edits=[pizza(value=2)]))
    assert editor.page.evaluate("() => window.focused === document.activeElement && window.focused.isConnected")
    assert editor.card(0).number.input_value() == "2"
    assert editor.cards() == [PIZZA]


def hand_over(page, **detail):
    usual = {"run": "f1", "sae": "emoji-llava-sae", "layer": 6, "feature": DOG, "label": "dog", "max": 6.3, "active": drawn(0)}
    page.evaluate("(detail) => document.dispatchEvent(new CustomEvent('llava:steer', { detail }))", usual | detail)


def test_a_feature_is_handed_over_by_an_event(open_editor):
    editor = open_editor()
    hand_over(editor.page)
    editor.python.until(lambda got: got["edits"] == [chip(unit="target", value=-6.3, where="image")])
    assert editor.focus() == "Target of dog, feature 1428"
    hand_over(editor.page, feature=3, label="", max=0, active=[], layer=None)
    editor.python.edit(1, feature=3, layer=6, unit="strength", value=0.5)
    hand_over(editor.page)
    editor.says("said", "dog, feature 1428, is already in the list.")
    assert editor.focus() == "Target of dog, feature 1428"
    assert editor.cards() == [DOG, 3]
    hand_over(editor.page, feature="4")
    editor.says("said", 'what was handed over has "4" as its feature')
    assert editor.cards() == [DOG, 3]


def test_a_feature_handed_over_before_there_is_a_payload_waits_for_it(open_editor):
    editor = open_editor()
    editor.set(None)
    editor.part("empty").wait_for()
    hand_over(editor.page)
    hand_over(editor.page, feature=PIZZA, label="pizza")
    editor.set(payload(edits=[blue()]))
    assert editor.cards() == [BLUE, DOG, PIZZA]
    editor.python.until(lambda got: len(got["edits"]) == 3)


def test_a_payload_that_was_on_its_way_does_not_take_back_newer_changes(open_editor):
    editor = open_editor(payload(edits=[blue()]))
    hand_over(editor.page)
    editor.card(1).slide(4)
    # asked for before the dog came: the other run's activations count, the list does not
    editor.set(payload(run="r2", edits=[blue(max=3.5, active=[[0, 1]])]))
    got = editor.python.until(lambda got: got["run"] == "r2")
    assert got["edits"] == [blue(max=3.5, active=[[0, 1]]), chip(unit="target", value=4, where="image")]
    assert editor.cards() == [BLUE, DOG]
    # also when the newest change was not told yet
    editor.card(1).slider.evaluate("(node) => { node.value = 5; node.dispatchEvent(new Event('input', { bubbles: true })); }")
    editor.set(payload(run="r3", edits=[blue(), chip(unit="target", value=4, where="image")]))
    assert editor.python.until(lambda got: got["run"] == "r3")["edits"][1]["value"] == 5
    # with edits that were not there since the last payload, it is no older: it counts
    editor.set(payload(run="r4", edits=[blue()]))
    assert editor.cards() == [BLUE]
    # and so does what comes for the same run, such as an emptied list
    hand_over(editor.page)
    editor.set(payload(run="r4", edits=[]))
    assert editor.cards() == []


def test_the_same_payload_at_once_again_is_no_news(open_editor):
    made = payload(edits=[chip()])
    editor = open_editor(made)
    change = "(node) => { node.value = 0.5; node.dispatchEvent(new Event('input', { bubbles: true })); }"
    editor.root.evaluate(  # in one go: a slow machine must not make it late
        f"(root, made) => {{ root.__view.set({{ ...made, run: 'r9' }}); ({change})(root.querySelector('input[type=range]')); root.__view.set({{ ...made, run: 'r9' }}); }}",
        made,
    )
    got = editor.python.until(lambda got: got["run"] == "r9")
    assert got["edits"] == [chip(value=0.5)]
    assert editor.card(0).number.input_value() == "0.5"


def expected_hand_over(number):
    expected = Expected(feature_payload())
    at = expected.at(number)
    active = [[i // 8, i % 8] for i, row in enumerate(expected.rows()) if at[row] > 0]
    return {
        "sae": "emoji-llava-sae",
        "layer": 5,
        "feature": number,
        "label": "dog",
        "max": pytest.approx(expected.top(number)),
        "active": active,
    }


def below(number):
    return -float(f"{Expected(feature_payload()).top(number):.2g}")


def test_the_feature_view_leads_to_a_tab_that_was_never_open(open_page, site):
    page = open_page(tab=None, fresh=True)
    number = Expected(feature_payload()).number("dog")
    gate = threading.Event()

    def late(_):
        gate.wait(20)
        return payload(run="r2")

    site.python.next = late
    page.locator(f".features tr[data-feature='{number}'] .features-feature").click()
    page.locator(".features").get_by_role("button", name="Steer this").click()
    page.wait_for_selector(".edits[data-ready]")
    assert page.get_by_role("tab", name="Steer").get_attribute("aria-selected") == "true"
    editor = Editor(page, site.python)
    editor.python.edit(0, **expected_hand_over(number), unit="target", value=below(number), where="image", on=True)
    # The tab's listener was asked before there was an edit; its answer does not take it away.
    gate.set()
    editor.python.until(lambda got: got["run"] == "r2")
    assert editor.cards() == [number]
    assert editor.focus() == f"Target of dog, feature {number}"
    # and with the view in place
    site.python.next = None
    page.get_by_role("tab", name="SAE features").click()
    page.locator(f".features tr[data-feature='{number + 31}'] .features-feature").click()
    page.locator(".features").get_by_role("button", name="Steer this").click()
    editor.python.until(lambda got: [edit["feature"] for edit in got["edits"]] == [number, number + 31])
    page.wait_for_function("() => document.activeElement.matches('.edits-chip:nth-child(2) input[type=range]')")
    page.get_by_role("tab", name="SAE features").click()
    page.locator(".features").get_by_role("button", name="Steer this").click()
    editor.says("said", "is already in the list.")
    assert editor.cards() == [number, number + 31]


def test_hostile_texts_stay_texts(open_editor):
    bad = chip(label=ATTACK, sae=ATTACK)
    presets = [{"name": ATTACK, "note": ATTACK, "edits": [bad, pizza()]}]
    editor = open_editor(payload(model=ATTACK, edits=[bad, blue()], presets=presets, published=[{"model": ATTACK, "text": ATTACK}]))
    editor.python.answers[ATTACK[:80]] = {"features": [chip(8, ATTACK)], "note": ATTACK}
    editor.python.answers["error"] = {"error": ATTACK}
    editor.search("error")
    editor.says("searchNote", "onerror")
    editor.search(ATTACK)
    editor.says("results", "onerror")
    editor.options().first.click()
    editor.says("said", "onerror")
    editor.card(0).number.fill(ATTACK[:40])
    editor.card(0).where.select_option("chosen")
    editor.says("pickNote", "10 patches chosen")
    editor.part("presets").get_by_role("button").click()
    editor.says("said", "onerror")
    editor.card(0).button("duplicate").click()
    editor.card(0).button("Remove").first.click()
    hand_over(editor.page, feature=9, label=ATTACK)
    editor.says("said", "onerror")
    editor.set(payload(edits=[chip(unit=ATTACK)]))
    editor.says("empty", "onerror")
    assert editor.root.locator("img, script, iframe").count() == 0
    assert editor.page.evaluate("() => window.pwned") is None


@pytest.mark.parametrize("dark", [False, True])
def test_theme_follows_gradio(editor, dark):
    editor.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    editor.page.locator(f".edits[data-theme={'dark' if dark else 'light'}]").wait_for()
    ink, paper = editor.root.evaluate(
        """(root) => [getComputedStyle(root).color, getComputedStyle(root.querySelector('.edits-number')).backgroundColor]
            .map((text) => text.match(/\\d+/g).slice(0, 3).reduce((sum, v) => sum + Number(v), 0))"""
    )
    assert (paper < ink) == dark
    assert abs(paper - ink) > 450


def test_phone_width_stacks_and_nothing_overflows(open_editor):
    long = "a label without spaces: " + "x" * 120
    made = payload(edits=[chip(label=long, value=-123456.789), pizza(label=long, where={"patches": drawn(1), "grid": 0}), blue()])
    editor = open_editor(made, **PHONE)
    editor.python.answers["x"] = {"features": [chip(8, long)], "note": long}
    editor.search("x")
    editor.options().first.wait_for()
    editor.card(0).number.fill("abc")
    editor.card(1).where.select_option("chosen")
    editor.says("pickNote", "6 patches chosen")
    assert editor.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    boxes = [editor.root.locator(".edits-chip").nth(i).bounding_box() for i in range(3)]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    assert boxes[1]["y"] + boxes[1]["height"] <= boxes[2]["y"]
    clipped = """(root) => [...root.querySelectorAll('button, input, select, h3, p, li, canvas')].filter((node) => node.offsetParent
        && (node.getBoundingClientRect().right > 391 || node.getBoundingClientRect().left < 0)).map((node) => node.outerHTML.slice(0, 80))"""
    assert editor.root.evaluate(clipped) == []
