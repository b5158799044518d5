"""The study view in a real browser: by itself with a server made up by the tests, and as a tab of the real page. Waits are on conditions, never on time."""

from __future__ import annotations

import numpy as np
import pytest

from interp.web.bundle import bundle, static
from tests.browser.conftest import quiet
from tests.browser.view import Opened
from tests.study.made_index import DOG, EVIL, HOSTILE
from tests.web.study_payload import STUDY, feature, found, hand_over, part, payload

ATTACK = HOSTILE
PAGE = (
    "<!doctype html><meta charset=utf-8><style>{css}</style><body>{html}<script>{script}</script>"
    "<script>window.asked = []; const given = (name) => (...asked) => {{ window.asked.push([name, ...asked]); return window.answers[name]; }};"
    "window.options = {{ studyFeature: async (...asked) => given('studyFeature')(...asked), findInStudy: async (...asked) => given('findInStudy')(...asked),"
    "handOver: async (...asked) => given('handOver')(...asked), steer: given('steer'), locate: given('locate'), chose: given('chose') }};</script>"
)


class Seen(Opened):
    """One opened view, and what it shows."""

    KIND = "study"

    def set(self, made, *, alone=False, **answers):
        self.page.evaluate("(answers) => { window.answers = answers; window.asked = []; }", answers)
        self.page.evaluate("(alone) => Microscope.mountStudy(document.body, alone ? {} : window.options)", alone)
        super().set(made)
        if made:
            self.page.wait_for_selector(".study[data-ready]")
        return self

    def calls(self, name):
        return [asked for called, *asked in self.page.evaluate("window.asked") if called == name]

    def look_up(self, text):
        self.part("text").fill(text)
        self.page.keyboard.press("Enter")


@pytest.fixture
def view(page_of):
    css = static("shared/view.css") + static("study/view.css")
    html = PAGE.format(css=css, html=static("study/view.html"), script=bundle("study/view.js"))
    return Seen(page_of(lambda page: page.set_content(html)))


def test_it_shows_all_that_is_known_of_a_feature(view):
    view.set(payload())
    assert view.text("facts").startswith(
        "made-up · emoji-llava · emoji-llava-sae · layer 3 · 1,700 of 2,048 features active on some of 600 pictures"
    )
    assert view.text("name") == "dog #460"
    assert view.text("source") == "Label: explained by a model and refined"
    assert (view.text("explanation"), view.text("category")) == ("The heads of dogs.", "object")
    scores = view.part("scores").locator("li").all_inner_texts()
    assert scores == ["IoU 0.80 (random masks 0.10, random features \u2013)", "CLIP score 27.3", "not scored, consistency: not judged"]
    assert view.text("counts").startswith("Active on 30 of 600 pictures (5 %), on 400 image tokens; at most 12.5")
    assert view.part("histogram").locator("rect").count() == 4
    assert view.part("near").locator("button").all_inner_texts() == ["puppy #7 0.91", "no label #8 \u22120.20"]
    assert view.part("promotes").locator("span").all_inner_texts() == ["dog", "puppy"]
    assert view.part("pictures").locator("canvas").count() == 2
    assert view.part("link").get_attribute("href") == "?feature=460"
    assert view.part("studyBox").is_hidden()
    assert view.calls("chose") == [[{"study": "made-up", "feature": 460}]]


def test_maps_lie_on_their_patches_and_can_be_taken_off(view):
    view.set(payload())
    with_heat = view.pixels("pictures")
    view.part("heat").uncheck()
    half = with_heat.shape[0] // 2
    green = "document.querySelector('.study canvas').getContext('2d').getImageData(9, 9, 1, 1).data[1]"
    view.page.wait_for_function(f"(before) => {green} !== before", arg=int(with_heat[9, 9, 1]))
    plain = view.pixels("pictures")
    changed = np.abs(with_heat - plain).sum(-1) > 6
    assert changed[: half - 2].mean() > 0.95, "both upper patches are active"
    assert not changed[half + 2 :].any(), "and no lower one"
    left, right = with_heat[10 : half - 10, 10 : half - 10].mean((0, 1)), with_heat[10 : half - 10, half + 10 : -10].mean((0, 1))
    assert left[1] > right[1], "the stronger one is brighter"


def test_texts_are_never_markup(view):
    evil = feature(
        **dict.fromkeys(("source", "explanation", "category"), ATTACK),
        label=f"{ATTACK}!",
        promotes=[ATTACK],
        suppresses=[ATTACK],
        undefined=[ATTACK],
    )
    evil["neighbours"][0]["label"] = evil["scores"][0]["name"] = evil["scores"][0]["controls"][0]["name"] = evil["top"][0]["id"] = ATTACK
    study = {**STUDY, "name": ATTACK, "model": ATTACK, "sae": ATTACK}
    view.set(
        payload(feature=evil, study=study, studies=[ATTACK, "b"], limits=ATTACK),
        findInStudy=found((1, ATTACK), (2, ATTACK)),
        studyFeature=part(1),
    )
    assert view.text("near").startswith(ATTACK)
    assert view.text("explanation") == view.text("category") == ATTACK
    view.look_up(ATTACK[:20])
    view.says("found", "img src")
    assert view.root.locator("img, script").count() == 0
    assert view.page.evaluate("window.pwned") is None


def test_the_way_to_another_feature_and_back(view):
    view.set(payload(), studyFeature=part(7, label="puppy"))
    view.part("near").locator("button").first.click()
    view.says("name", "puppy #7")
    assert view.calls("studyFeature") == [["made-up", 7]]
    view.page.evaluate("(made) => { window.answers.studyFeature = made; }", part(12, label=""))
    view.look_up("#12")
    view.says("name", "no label #12")
    view.page.evaluate("(made) => { window.answers.studyFeature = made; }", part(7, label="puppy"))
    assert view.text("back") == "Back to #7"
    view.part("back").click()
    view.says("name", "puppy #7")
    assert view.text("back") == "Back to #460"
    view.part("any").click()
    view.page.wait_for_function("() => window.asked.some((asked) => asked[2] === 'any')")
    assert view.calls("studyFeature") == [["made-up", 7], ["made-up", 12], ["made-up", 7], ["made-up", "any"]]


def test_a_payload_that_is_delivered_again_leaves_the_reader_where_they_are(view):
    view.set(payload(), studyFeature=part(7, label="puppy"))
    view.part("near").locator("button").first.click()
    view.says("name", "puppy #7")
    view.page.evaluate("(made) => document.querySelector('.study').__view.set(made)", payload())
    assert view.text("name") == "puppy #7"
    view.page.evaluate("(made) => document.querySelector('.study').__view.set(made)", payload(limits="changed"))
    view.says("name", "dog #460")


def test_search_lists_what_it_finds_and_errors_leave_what_is_shown(view):
    view.set(payload(), findInStudy=found((7, "puppy"), (9, "dog")), studyFeature=part(7, label="puppy"))
    view.look_up("dog")
    view.says("name", "puppy #7")
    view.says("note", "2 of 1,342 labels match.")
    assert view.part("found").locator("button").all_inner_texts() == ["puppy #7", "dog #9"]
    view.look_up(" ")
    view.says("note", "Type a number")
    view.page.evaluate("() => { window.answers.studyFeature = { error: 'Feature 9999 does not exist.' }; }")
    view.look_up("9999")
    view.says("note", "Feature 9999 does not exist.")
    assert view.text("name") == "puppy #7"
    view.page.evaluate("() => { window.answers.findInStudy = null; }")
    view.look_up("cat")
    view.says("note", "could not look this up")


def test_several_studies_can_be_chosen_from(view):
    other = {**part(3), "study": {**STUDY, "name": "b & c"}}
    view.set(payload(studies=["made-up", "b & c"]), studyFeature=other)
    view.part("study").select_option("b & c")
    view.says("name", "#3")
    assert view.calls("studyFeature") == [["b & c", None]]
    assert view.part("link").get_attribute("href") == "?feature=3&study=b%20%26%20c"


def test_a_feature_is_handed_over_or_the_view_says_why_not(view):
    view.set(payload(), handOver=hand_over())
    view.part("steer").click()
    view.page.wait_for_function("() => window.asked.some(([name]) => name === 'steer')")
    assert view.calls("steer") == [[{"sae": "emoji-llava-sae", "layer": 3, "feature": 460, "label": "dog", "max": 12.5, "active": []}]]
    view.part("locate").click()
    view.page.wait_for_function("() => window.asked.some(([name]) => name === 'locate')")
    assert view.calls("locate") == [[{"sae": "emoji-llava-sae", "feature": 460}]]
    view.set(payload(), handOver={"error": "This page runs another SAE."})
    view.part("steer").click()
    view.says("refused", "This page runs another SAE.")
    assert view.calls("steer") == []


def test_without_a_server_and_without_activations(view):
    bare = feature(
        3,
        label="",
        source="",
        category="",
        pictures=0,
        tokens=0,
        peak=0.0,
        top=[],
        neighbours=[],
        promotes=[],
        suppresses=[],
        scores=[],
        undefined=[],
    )
    bare["histogram"] = {"edges": [], "on_pictures": [], "on_text": []}
    view.set(payload(feature=bare), alone=True)
    assert view.text("counts") == "Active on none of the study's 600 pictures."
    assert view.text("source") == "It has no label in this study."
    for name in ("steer", "locate", "scoreBox", "histogramBox", "nearBox", "wordBox", "category"):
        assert view.part(name).is_hidden()
    view.look_up("5")
    view.says("note", "no server")
    view.set(None)
    assert view.text("empty") == "No study to look into yet."
    view.page.evaluate("() => document.querySelector('.study').__view.set({ schema: 'other' })")
    assert "it was given other" in view.text("empty")


def test_a_feature_handed_over_before_there_is_a_view_waits_for_it(view):
    view.page.evaluate("() => { Microscope.waitingStudy = { study: 'made-up', feature: 7 }; }")
    view.set(payload(), studyFeature=part(7, label="puppy"))
    view.says("name", "puppy #7")
    assert view.page.evaluate("Microscope.waitingStudy") is None


def test_the_tab_and_the_ways_between_it_and_the_others(app_page):
    page = app_page
    page.get_by_role("tab", name="Study").click()
    page.wait_for_selector(".study[data-ready]")
    study = Seen(page)
    assert study.text("name") == f"dog #{DOG}"
    study.part("locate").click()
    features = page.locator(".features").first
    features.locator("[data-part=name]").filter(has_text=f"#{DOG}").wait_for()
    other = features.locator("[data-part=tableBody] tr").nth(1)
    other.click()
    features.locator("[data-part=study]").click()
    number = features.locator("[data-part=name] small").inner_text()
    study.says("name", number)
    page.get_by_role("tab", name="Attribution").click()
    page.wait_for_selector(".attribution[data-ready]")
    carried = page.locator(".attribution").first
    number = carried.locator("[data-part=name] small").inner_text()
    carried.locator("[data-part=study]").click()
    study.says("name", number)
    study.part("steer").click()
    page.locator(".edits").get_by_text(f"feature {number[1:]}").first.wait_for()


def test_the_tab_may_be_opened_before_anything_else_is_there(open_page):
    at_once = """
      new MutationObserver((_, observer) => {
        const tab = document.querySelector("#study-tab-button");
        if (tab) observer.disconnect();
        tab?.click();
      }).observe(document, { childList: true, subtree: true });
    """
    page = open_page(ready=".study[data-ready]", script=at_once)
    page.wait_for_function("document.querySelector('#answer textarea').value.endsWith('.')", timeout=60_000)
    quiet(page)
    assert Seen(page).part("body").is_visible()
    assert Seen(page).text("name") == f"dog #{DOG}"
    page.close()


def test_a_link_opens_the_tab_on_its_feature(open_page):
    page = open_page(f"/?feature={EVIL}", ready=".study[data-ready]")
    quiet(page)
    assert Seen(page).part("body").is_visible()
    assert Seen(page).text("name") == f"{HOSTILE} #{EVIL}"
    assert page.evaluate("window.pwned") is None
    assert page.faults == []
    page.close()
