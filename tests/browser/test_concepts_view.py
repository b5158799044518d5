"""The concepts view in a real browser: its own file opened from disk, with a server made up by the tests, and the tab of the real page.

Expectations are computed here from the payload or given by the made-up server. Waits are on conditions, never on time.
"""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import pytest

from interp.web.standalone import standalone_html
from tests.browser.conftest import open_tab
from tests.browser.view import Opened
from tests.web.concepts_payload import WORDLESS, details, example, payload, shift, steered

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"

# Answers in the page for those of a server; a missing one is an error in words. What was asked is kept.
SERVER = """(given) => {
  window.said = [];
  window.told = [];
  const answers = (name) => given[name] === undefined ? null : async (run, asked) => {
    window.said.push([name, run, asked]);
    return given[name] ?? { error: `Nothing is known of ${JSON.stringify(asked)}.` };
  };
  Microscope.mountConcepts(document.body, { followSystem: true, conceptDetails: answers("conceptDetails"), steerConcepts: answers("steerConcepts"), chose: (look) => window.told.push(look) });
}"""


class Seen(Opened):
    """One opened view, and what it shows."""

    KIND = "concepts"

    def set(self, made, **server):
        return self.served(SERVER, made, **server)

    def card(self, concept):
        return self.part("cards").locator(f"[data-concept='{concept}']")

    def order(self):
        return [
            int(number) for number in self.part("cards").locator("button").evaluate_all("(cards) => cards.map((c) => c.dataset.concept)")
        ]


def opened(page_of, tmp_path, **options):
    def load(page):
        file = tmp_path / "concepts.html"
        file.write_text(standalone_html(payload()), encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_selector(".concepts[data-ready]")

    return Seen(page_of(load, **options))


@pytest.fixture
def view(page_of, tmp_path):
    return opened(page_of, tmp_path)


def test_it_opens_with_the_dictionary_and_the_concept_that_most_of_the_picture_is(view):
    view.set(payload())
    assert view.text("facts") == "emoji-llava · 4 concepts by semi-nmf · layer 3 · each patch, 400 states"
    largest = max(range(WORDLESS), key=lambda k: len(base64.b64decode(view.made["concepts"][k]["places"])))
    assert view.state("concept") == view.order()[0] == largest
    assert view.card(0).inner_text().split("\n")[0] == "dog, puppy, wolf"
    assert "concept 3" in view.card(WORDLESS).inner_text()
    assert view.part("about").text_content() == view.made["dictionary"]["about"]
    assert "10 % of the variance" in view.part("fit").text_content()
    assert view.part("shift").is_hidden()
    assert view.part("steerBox").is_hidden(), "a file has no model"
    assert view.part("nearBox").is_hidden()


def test_a_card_puts_its_concept_on_the_picture_with_words_and_pictures(view):
    view.set(payload())
    view.card(0).click()
    view.says("name", "dog, puppy, wolf concept 0")
    dog = view.pixels()
    assert view.card(0).get_attribute("aria-pressed") == "true"
    assert view.part("words").locator(".concepts-word").all_inner_texts() == ["dog", "puppy", "wolf"]
    assert "100 states of 400 have most of it. Stability 0.95: stable" in view.text("figures")
    assert view.part("pictures").locator("canvas").count() == 3
    view.card(1).click()
    view.says("name", "pizza")
    side = dog.shape[0] // 8
    upper, lower = dog[2 * side : 4 * side, 2 * side : 4 * side], dog[5 * side : 7 * side, 5 * side : 7 * side]
    other = view.pixels()
    assert abs(other[2 * side : 4 * side, 2 * side : 4 * side] - upper).mean() > 10, "the dog's patches are tinted for the dog alone"
    assert abs(other[5 * side : 7 * side, 5 * side : 7 * side] - lower).mean() > 10
    view.card(WORDLESS).click()
    view.says("words", "No real word")
    assert "strongest on no patch" in view.text("figures")


def test_cards_are_one_stop_and_are_ordered_by_size_or_by_the_picture(view):
    view.set(payload())
    view.root.get_by_role("radio", name="size", exact=True).check()
    assert view.order() == [0, 1, 2, 3]
    view.card(view.state("concept")).focus()
    view.page.keyboard.press("Home")
    view.page.keyboard.press("ArrowRight")
    view.page.keyboard.press("Enter")
    assert view.state("concept") == 1
    assert view.part("cards").locator("button[tabindex='0']").count() == 1


def test_a_patch_tells_what_its_state_is_made_of(view):
    view.set(payload())
    box = view.part("stage").bounding_box()
    view.part("stage").click(position={"x": box["width"] * 0.3, "y": box["height"] * 0.4})
    view.says("where", "Patch row 4, column 3")
    assert view.part("top").locator("li").first.inner_text().startswith("dog")
    view.page.keyboard.press("Escape")
    assert view.state("locked") is None
    view.part("stage").focus()
    view.page.keyboard.press("ArrowRight")
    view.says("live", "row 4, column 4")


def test_the_nearest_features_are_asked_for_once(view):
    view.set(payload(), conceptDetails=details())
    view.says("near", "dog #460 0.91")
    assert "unnamed #3 \u22120.20" in view.text("near")
    first = view.state("concept")
    other = (first + 1) % WORDLESS
    view.card(other).click()
    view.card(first).click()
    view.says("near", "dog #460")
    assert [asked for name, _, asked in view.asked() if name == "conceptDetails"].count(first) == 1


def test_a_step_shows_both_answers_and_that_of_a_random_step(view):
    view.set(payload(), steerConcepts=steered())
    view.card(0).click()
    view.part("target").select_option("1")
    view.part("value").fill("1.5")
    assert view.text("valueSaid") == "1.50 of the usual state's length"
    view.part("go").click()
    view.says("effect", "The step changed 9 positions, by 80 % of the states' length")
    assert view.asked() == [["steerConcepts", "r1", {"source": 0, "target": 1, "value": 1.5, "where": "places"}]]
    assert view.text("plain") == "a dog and a pizza."
    assert view.part("after").locator("ins").inner_text() == "pizza"
    assert view.text("random") == "a dog and a pizza."
    view.card(WORDLESS).click()
    assert view.part("steered").is_hidden()
    assert view.part("place").input_value() == "image", "it is on no patch"


def test_what_is_looked_at_is_told_and_opens_again(view):
    view.set(payload(), steerConcepts=steered())
    view.card(1).click()
    view.part("target").select_option("2")
    view.part("value").fill("0.5")
    view.part("place").select_option("all")
    look = {"concept": 1, "target": 2, "value": 0.5, "where": "all"}
    assert view.page.evaluate("window.told.at(-1)") == look
    view.set(payload(look=look | {"value": 2.5}), steerConcepts=steered())
    assert view.state("concept") == 1
    assert [view.part(name).input_value() for name in ("target", "value", "place")] == ["2", "2.5", "all"]
    assert view.text("valueSaid").startswith("2.50")
    assert view.page.evaluate("window.told") == [], "the reader did nothing"


def test_what_the_server_refuses_is_said_and_nothing_is_lost(view):
    view.set(payload(), steerConcepts=None)
    view.part("go").click()
    view.says("steerNote", "Nothing is known of")
    assert view.part("go").is_enabled()


def test_a_fine_tune_shows_the_concepts_that_moved_most_with_words_and_answers(view):
    view.set(payload(shift=shift()))
    assert view.state("concept") == 0
    assert view.order()[0] == 0
    assert view.text("shiftHead") == "emoji-llava → emoji-llava + places-first"
    assert "correlate at 0.93 over 3 concepts" in view.text("shiftNote")
    assert view.part("scatter").locator("circle").count() == 3
    assert view.text("movedWords") == "gained object lost dog"
    assert view.part("movedBefore").locator("figcaption").first.inner_text() == "a dog. → an object."
    assert view.part("movedAfter").locator("figcaption").inner_text() == "an object."
    view.part("moved").locator("[data-concept='1']").click()
    view.says("movedName", "pizza, cheese")
    assert view.state("concept") == 1
    view.part("scatter").locator("circle[data-concept='2']").click()
    assert view.state("concept") == 2


def test_text_of_models_and_pictures_never_becomes_markup(view):
    made = payload(shift=shift(), prompt=ATTACK, answer=ATTACK, notes=[ATTACK])
    made["dictionary"] |= {"name": ATTACK, "where": ATTACK, "objective": ATTACK, "about": ATTACK, "notes": [ATTACK]}
    made["concepts"][0] |= {"words": [ATTACK], "examples": [example(ATTACK)]}
    made["shift"] |= {"before": ATTACK, "after": ATTACK}
    made["shift"]["concepts"][0] |= {"words": [ATTACK], "gained": [ATTACK], "lost": [ATTACK], "after": [example(ATTACK)]}
    made["shift"]["concepts"][0]["answers"] = [{"before": ATTACK, "after": ATTACK + "!"}]
    found = details(features=[{"feature": 1, "cosine": 0.5, "label": ATTACK}], sae=ATTACK)
    text = steered(plain={"text": ATTACK, "finished": True}, diff=[{"op": "equal", "plain": ATTACK, "steered": ATTACK}])
    view.set(made, conceptDetails=found, steerConcepts=text)
    view.says("near", ATTACK)
    view.part("go").click()
    view.says("plain", ATTACK)
    assert view.page.evaluate("window.pwned") is None


def test_damaged_data_is_said_in_words(view):
    view.page.evaluate("(made) => document.querySelector('.concepts').__view.set(made)", payload() | {"codes": ""})
    view.says("empty", "damaged: codes has 0 bytes")
    view.set(payload())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_only(page_of, tmp_path, scheme):
    view = opened(page_of, tmp_path, viewport={"width": 375, "height": 812}, has_touch=True, color_scheme=scheme)
    view.set(payload(shift=shift()), conceptDetails=details(), steerConcepts=steered())
    view.part("go").click()
    view.says("effect", "The step changed")
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert view.root.get_attribute("data-theme") == scheme


# The tab of the real page, with the embedded model and its dictionary behind it.


def look(page):
    open_tab(page, "Concepts")
    page.wait_for_selector(".concepts[data-ready]", timeout=60_000)


def test_the_tab_shows_the_dictionary_on_the_last_run_and_steers(app_page, monkeypatch, capsys):
    page = app_page
    look(page)
    root = page.locator(".concepts")
    assert "a dog and a pizza on a blue background." in root.locator("[data-part=answer]").inner_text()
    assert root.locator("[data-part=cards] button").count() >= 20
    root.locator("[data-part=near] li").first.wait_for(timeout=60_000)
    root.locator("[data-part=go]").click()
    root.locator("[data-part=effect]").filter(has_text="The step changed").wait_for(timeout=60_000)
    panel = page.get_by_role("tabpanel").filter(has=root)
    files = {}
    for kind in ("html", "json"):
        with page.expect_download() as download:
            page.click(f"#make-concepts-{kind}")
        files[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    assert "<title>Concepts: emoji-llava</title>" in files["html"]
    found = json.loads(files["json"])
    assert len(found["concepts"]) == len(found["dictionary"]["concepts"]) == root.locator("[data-part=cards] button").count()
    panel.get_by_text("Do this from Python").click()
    panel.locator(".cm-line").filter(has_text="/concepts").wait_for()
    code = "\n".join(panel.locator(".cm-line").all_inner_texts())
    monkeypatch.chdir(EXAMPLES)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - it is ours, and running it is the test
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said if line[0].isdigit()] == [str(k) for k in range(len(found["concepts"]))]


def test_a_link_opens_on_the_concept_and_the_step(app_page, open_page):
    page = app_page
    look(page)
    page.locator(".concepts [data-part=cards] button").nth(3).click()
    concept = page.evaluate("document.querySelector('.concepts').__concepts.concept")
    page.locator(".concepts [data-part=place]").select_option("answer")
    page.click("#concepts-share")
    link = page.locator("#concepts-link textarea, #concepts-link input")
    page.wait_for_function("(node) => node.value.includes('state=')", arg=link.element_handle())
    opened = open_page("/?" + link.input_value().split("?")[1], ready=".concepts[data-ready]")
    assert opened.evaluate("document.querySelector('.concepts').__concepts.concept") == concept
    assert opened.locator(".concepts [data-part=place]").input_value() == "answer"
    assert opened.locator("#concepts-dictionary input").input_value() == "emoji-llava-concepts"


def test_a_fine_tune_that_cannot_be_had_is_said_and_what_is_shown_stays(app_page):
    page = app_page
    look(page)
    page.locator("#concepts-compare").get_by_text("Compare with a fine-tune").click()
    field = page.locator("#concepts-adapter input")
    field.fill("no-such-adapter")
    field.press("Enter")
    page.click("#concepts-compare-run")
    page.locator("#concepts-compared .error").filter(has_text="no-such-adapter").wait_for(timeout=60_000)
    assert page.locator(".concepts [data-part=cards] button").count() >= 20


def learn(page, **fields):
    if not page.locator("#concepts-learn-run").is_visible():
        page.locator("#concepts-learn").get_by_text("Learn from your own pictures").click()
    for name, value in fields.items():
        page.locator(f"#concepts-{name}").locator("input, textarea").fill(value)
    page.click("#concepts-learn-run")


def test_a_dictionary_is_learned_from_a_zip_and_shown_and_chosen(app_page, tmp_path):
    page = app_page
    look(page)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as made:
        for picture in sorted(EXAMPLES.glob("*.webp")):
            made.write(picture, picture.name)
    page.locator("#concepts-learn").get_by_text("Learn from your own pictures").click()
    page.locator("#concepts-learn").get_by_text("At most 500 pictures, a zip of 30 MB").wait_for()
    page.locator("#concepts-zip input[type=file]").set_input_files(tmp_path / "pictures.zip")
    page.locator("#concepts-zip").get_by_text("pictures.zip").first.wait_for()
    learn(page, n="4")
    page.locator("#concepts-learned .message").filter(has_text="4 concepts by k-means of").wait_for(timeout=120_000)
    page.wait_for_function("document.querySelectorAll('.concepts [data-part=cards] button').length === 4", timeout=60_000)
    assert page.locator("#concepts-dictionary input").input_value().startswith("yours: 4 by k-means, layer 3")
    root = page.locator(".concepts")
    assert "of their size, the mean included" in root.locator("[data-part=fit]").text_content()
    root.locator("[data-part=go]").click()
    root.locator("[data-part=effect]").filter(has_text="The step changed").wait_for(timeout=60_000)
    with page.expect_download() as download:
        page.click("#make-concepts-zip")
    with zipfile.ZipFile(download.value.path()) as packed:
        assert sorted(name.split("/")[1] for name in packed.namelist()) == ["concepts.json", "concepts.safetensors"]
    page.click("#concepts-share")
    link = page.locator("#concepts-link textarea, #concepts-link input")
    page.wait_for_function("(node) => node.value.includes('state=')", arg=link.element_handle())
    learn(page, n="1")
    page.locator("#concepts-learned .error").filter(has_text="n is 1").wait_for(timeout=60_000)
    assert root.locator("[data-part=cards] button").count() == 4, "what is shown stays"
    page.locator("#concepts-dictionary input").click()
    page.get_by_role("option", name="emoji-llava-concepts").click()
    page.wait_for_function("document.querySelectorAll('.concepts [data-part=cards] button').length > 20", timeout=60_000)
    address = "/?" + link.input_value().split("?")[1]
    page.goto(page.url.split("?")[0].rstrip("/") + address)
    page.wait_for_function("document.querySelectorAll('.concepts [data-part=cards] button').length === 4", timeout=120_000)
    page.goto(page.url.split("?")[0])
    page.wait_for_selector(".lens[data-ready]", timeout=60_000)
