"""The attribution view in a real browser: its own file opened from disk, with a server made up by the tests, and the tab of the real page.

Expectations are computed here from the payload or given by the made-up server. Waits are on conditions, never on time.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.web.standalone import standalone_html
from tests.browser.view import Opened
from tests.web.attribution_payload import NAMELESS, OTHERS, TEXT_ONLY, feature_words, number, payload, without, word

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"

# Answers in the page for those of a server, by what was asked; a missing one is an error in words. What was asked is kept.
SERVER = """(given) => {
  window.said = [];
  const answers = (name) => given[name] === undefined ? null : async (run, asked) => {
    window.said.push([name, run, asked]);
    const { token, baseline } = asked;
    return given[name][name === "attributeWord" ? `${token} ${baseline}` : ""] ?? { error: `Nothing is known of ${JSON.stringify(asked)}.` };
  };
  const options = Object.fromEntries(["attributeWord", "featureWords", "withoutFeatures"].map((name) => [name, answers(name)]));
  options.followSystem = true;
  options.chose = (chosen) => { window.told = chosen; };
  options.steer = (feature) => { window.steered = feature; };
  Microscope.mountAttribution(document.body, options);
}"""


class Carried(Opened):
    """One opened view, and what it shows."""

    KIND = "attribution"

    def set(self, made, **server):
        return self.served(SERVER, made, **server)

    def line(self, key):
        return self.part("tableBody").locator(f"tr[data-key='{key}']")

    def order(self):
        return self.part("tableBody").locator("tr[data-key]").evaluate_all("(rows) => rows.map((row) => row.dataset.key)")

    def word(self, i):
        return self.part("words").locator("button").nth(i)

    def patch(self, pixels, index, side=8):
        """The mean colour of a patch."""
        size = pixels.shape[0] // side
        top, left = index // side * size, index % side * size
        return pixels[top + 4 : top + size - 4, left + 4 : left + size - 4].mean((0, 1))


def opened(page_of, tmp_path, **options):
    def load(page):
        file = tmp_path / "carried.html"
        file.write_text(standalone_html(payload()), encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_selector(".attribution[data-ready]")

    return Carried(page_of(load, **options))


@pytest.fixture
def view(page_of, tmp_path):
    return opened(page_of, tmp_path)


def at(made, item):
    """A score at every row of T."""
    out = np.zeros(len(made["tokens"]["kind"]) - 1)
    rows = np.frombuffer(base64.b64decode(item["rows"]), "<u2")
    out[rows] = np.frombuffer(base64.b64decode(item["values"]), "<f4")
    return out


def test_it_opens_with_the_word_its_lead_and_what_adds_up(view):
    view.set(payload())
    assert view.text("facts") == "emoji-llava · emoji-llava-sae · layer 5 · 4,096 features"
    assert view.text("headline") == "“dog” leads by 6.21 logits over “cat”"
    assert "of +5.60 logits" in view.text("sum")
    assert "from the SAE's error" in view.text("sum")
    assert view.text("trust").startswith(
        "Estimate and exact effect of the 8 listed features: correlation 0.97, 90 % of the largest are the same."
    )
    assert view.word(1).get_attribute("aria-pressed") == "true"
    assert view.part("limits").text_content() == view.made["limits"]


def test_the_list_has_signed_bars_exact_effects_and_a_line_for_what_the_sae_misses(view):
    made = payload()
    view.set(made)
    features = made["words"][0]["features"]
    assert view.order() == [*(str(item["feature"]) for item in features), "error"]
    assert [abs(item["score"]) for item in features] == sorted((abs(item["score"]) for item in features), reverse=True)
    for item in features:
        bar = view.line(item["feature"]).locator("span.attribution-bar i")
        assert ("attribution-down" in bar.get_attribute("class")) == (item["score"] < 0)
        cells = view.line(item["feature"]).locator("td").all_inner_texts()
        assert [float(cell.replace("\u2212", "-")) for cell in cells[2:]] == pytest.approx([item["score"], item["exact"]], abs=0.06)
    assert view.line("error").locator("u").count() == 1
    assert "113 other features" in view.text("tableBody")
    assert view.line(number(5)).get_by_text("dense").get_attribute("title") == "fires on 72 % of the reference tokens"
    assert view.line(number(NAMELESS)).inner_text().startswith(f"feature {number(NAMELESS)}")


def test_bars_share_one_zero(view):
    view.set(payload())
    zeros = view.part("tableBody").locator("span.attribution-bar b").evaluate_all("(nodes) => nodes.map((node) => node.style.left)")
    assert len(set(zeros)) == 1
    dog, pizza = (view.line(number(i)).locator("span.attribution-bar") for i in (0, 1))
    middle = dog.locator("b").bounding_box()["x"]
    assert dog.locator("i").bounding_box()["x"] == pytest.approx(middle, abs=1)
    down = pizza.locator("i").bounding_box()
    assert down["x"] + down["width"] == pytest.approx(middle, abs=1)


def test_pointing_shows_a_map_and_a_click_keeps_it(view):
    made = payload()
    view.set(made)
    items = {item["feature"]: item for item in made["words"][0]["features"]}
    raised = int(np.argmax(at(made, items[number(0)])[4:68]))
    lowered = int(np.argmin(at(made, items[number(1)])[4:68]))
    view.settle()
    red, _, blue = view.patch(view.pixels(), raised)
    assert blue > red + 60
    view.line(number(1)).hover()
    view.settle()
    assert view.text("title") == "pizza #48"
    red, _, blue = view.patch(view.pixels(), lowered)
    assert red > blue + 60
    view.part("headline").hover()
    view.settle()
    assert view.text("title") == "dog #17"
    view.line(number(1)).click()
    view.page.wait_for_selector(f"tr[data-key='{number(1)}'][aria-selected=true]")
    view.part("headline").hover()
    view.settle()
    assert view.text("title") == "pizza #48"


def test_a_feature_read_from_the_text_alone_says_so_and_tints_the_tokens(view):
    view.set(payload())
    view.line(number(TEXT_ONLY)).click()
    view.settle()
    assert "only from the text" in view.text("mapNote")
    tints = (
        view.part("strip").locator(".attribution-token").evaluate_all("(nodes) => nodes.map((node) => +node.style.getPropertyValue('--p'))")
    )
    assert max(tints) == 1
    assert view.part("strip").locator(".attribution-left-out").count() == 1


def test_the_keys_move_through_list_and_picture(view):
    made = payload()
    view.set(made)
    view.line(view.order()[0]).focus()
    view.page.keyboard.press("ArrowDown")
    view.settle()
    assert view.state("key") == view.order()[1]
    view.page.keyboard.press("End")
    view.settle()
    assert view.text("title") == "the SAE's error"
    view.part("stage").focus()
    view.page.keyboard.press("ArrowRight")
    view.page.keyboard.press("Enter")
    view.settle()
    assert view.text("where") == "Patch row 1, column 2"
    view.page.keyboard.press("Escape")
    assert view.state("locked") is None


def test_another_word_is_asked_for_once(view):
    made = payload()
    pizza = word(made, 4)
    view.set(made, attributeWord={"4 ": pizza})
    view.word(4).click()
    view.says("headline", "“pizza” leads")
    assert view.page.evaluate("window.told") == {"token": 4, "baseline": "", "top": 20}
    view.word(1).click()
    view.says("headline", "“dog” leads")
    view.word(4).click()
    view.says("headline", "“pizza” leads")
    assert view.asked() == [["attributeWord", "r1", {"token": 4, "baseline": "", "top": 20}]]


def test_the_word_to_compare_with_is_chosen_or_typed(view):
    made = payload()
    view.set(made, attributeWord={"1  bear": word(made, 1, "bear"), "1 whale": word(made, 1, "whale")})
    assert view.part("others").locator("button").all_inner_texts()[0].split() == ["␣cat", "8.0", "%"]
    view.part("others").get_by_text("bear").click()
    view.says("headline", "over “bear”")
    assert view.part("others").locator("[aria-pressed=true]").inner_text().split()[0] == "␣bear"
    view.part("other").fill("whale")
    view.part("other").press("Enter")
    view.says("headline", "over “whale”")
    assert view.part("others").locator("button").first.inner_text() == "␣whale"
    view.part("others").get_by_text(OTHERS[0].strip()).click()
    view.says("headline", "over “cat”")  # known already, asked for by no name
    assert [asked[2]["baseline"] for asked in view.asked()] == [" bear", "whale"]


def test_an_error_is_shown_and_what_was_there_stays(view):
    view.set(payload(), attributeWord={})
    view.word(2).click()
    view.says("said", "Nothing is known of")
    assert "“dog”" in view.text("headline")
    assert view.word(1).get_attribute("aria-pressed") == "true"
    assert view.state("spec")["token"] == 1


def test_a_feature_is_followed_over_all_words(view):
    made = payload()
    view.set(made, featureWords={"": feature_words(made, number(1))})
    view.line(number(1)).click()
    view.part("track").click()
    view.says("trackedSaid", "pizza in every word")
    heights = view.part("words").locator(".attribution-column i").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.height))")
    assert heights[1] == 50
    assert "attribution-down" in view.part("words").locator(".attribution-column i").nth(4).get_attribute("class")
    view.part("trackedOff").click()
    assert view.part("words").locator(".attribution-column").count() == 0


def test_a_feature_that_is_handed_over_comes_at_the_end_of_the_list(view):
    made = payload()
    view.set(made, featureWords={"": feature_words(made, 3000)})
    view.page.evaluate("document.dispatchEvent(new CustomEvent('llava:feature', { detail: { sae: 'emoji-llava-sae', feature: 3000 } }))")
    view.says("trackedSaid", "found elsewhere")
    assert view.order()[-2:] == ["3000", "error"]
    assert "not among the largest" in view.line(3000).inner_text()
    assert view.state("key") == "3000"


def test_a_feature_of_another_run_waits_for_its_payload(view):
    made = payload()
    view.set(made, featureWords={"": feature_words(made)})
    of = {"image": made["image"]["src"], "prompt": "another", "answer": made["answer"]}
    detail = {"sae": "emoji-llava-sae", "feature": 17, "of": of}
    view.page.evaluate("(detail) => document.dispatchEvent(new CustomEvent('llava:feature', { detail }))", detail)
    assert view.asked() == []
    view.page.evaluate("(made) => document.querySelector('.attribution').__view.set(made)", {**made, "prompt": "another"})
    view.says("trackedSaid", "dog in every word")
    assert view.page.evaluate("Microscope.waitingFeature") is None


def test_the_top_features_can_be_taken_away(view):
    made = payload()
    view.set(made, withoutFeatures={"": without([number(0), number(2)])})
    raising = sorted((item for item in made["words"][0]["features"] if item["score"] > 0), key=lambda item: -item["score"])
    view.part("slider").fill("2")
    view.part("ablate").click()
    view.says("after", "cat")
    assert view.asked() == [["withoutFeatures", "r1", {"token": 1, "features": [item["feature"] for item in raising[:2]]}]]
    assert view.part("before").locator("del").inner_text() == "dog"
    assert view.part("after").locator("ins").inner_text() == "cat"
    assert view.text("odds") == "Probability of ␣dog after the same words: 98.0 % → 1.2 %."


def test_a_feature_goes_to_steering_with_its_patches(view):
    made = payload()
    view.set(made)
    view.part("steer").click()
    steered = view.page.evaluate("window.steered")
    item = made["words"][0]["features"][0]
    rows = np.flatnonzero(at(made, item)[4:68])
    assert steered["feature"] == item["feature"]
    assert (steered["sae"], steered["layer"], steered["max"]) == ("emoji-llava-sae", 5, 4.0)
    assert steered["active"] == [[row // 8, row % 8] for row in rows]


def test_image_tokens_without_patches_are_told_by_the_part_they_read(view):
    made = payload()
    grid = made["grids"][0]
    made |= {"grids": [], "regions": [{"name": "whole picture", "box": [0, 0, 96, 96], "positions": grid["positions"]}]}
    view.set(made)
    view.settle()
    assert "have no patches of their own" in view.text("mapNote")
    assert view.part("here").is_hidden()
    assert view.part("view").is_hidden()
    view.part("steer").click()
    assert view.page.evaluate("window.steered.active") == []


def test_another_grid_shows_its_own_patches(view):
    made = payload(grids=2)
    view.set(made)
    view.part("grid").select_option("1")
    view.settle()
    view.part("stage").hover(position={"x": 5, "y": 5})
    view.settle()
    assert view.text("where") == "Patch grid 1, row 1, column 1"


def test_the_png_says_what_it_is(view):
    view.set(payload())
    with view.page.expect_download() as download:
        view.part("png").click()
    assert download.value.suggested_filename == "attribution-17.png"
    assert Image.open(download.value.path()).width >= 1024


def test_a_saved_page_keeps_its_words_and_says_that_it_has_no_model(view):
    made = payload()
    view.set({**made, "words": [word(made, 1), word(made, 4)]})
    view.word(4).click()
    view.says("headline", "“pizza”")
    view.word(2).click()
    view.says("said", "This file has no model")
    assert view.part("without").is_hidden()
    assert view.part("other").is_disabled()
    assert all(request.startswith(("file:", "data:", "blob:")) for request in view.page.requests)


def test_names_and_words_never_become_markup(view):
    made = payload()
    made["prompt"] = made["words"][0]["other"] = ATTACK
    made["words"][0]["features"][0] |= {"label": ATTACK, "source": ATTACK, "dense": ATTACK, "link": "javascript:window.pwned=1"}
    made["words"][0]["others"][0]["text"] = made["tokens"]["text"][-1] = ATTACK
    view.set(made, featureWords={"": feature_words(made) | {"label": ATTACK}})
    view.part("track").click()
    view.says("trackedSaid", "in every word")
    view.page.mouse.move(0, 0)
    view.settle()
    assert view.page.evaluate("window.pwned === undefined")
    assert view.part("links").locator("a").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_only_and_takes_taps(page_of, tmp_path, scheme):
    view = opened(page_of, tmp_path, viewport={"width": 375, "height": 812}, has_touch=True, color_scheme=scheme)
    made = payload()
    view.set(made, attributeWord={"4 ": word(made, 4)}, featureWords={"": feature_words(made)})
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 375
    assert view.root.get_attribute("data-theme") == scheme
    view.word(4).tap()
    view.says("headline", "“pizza”")
    view.line(number(2)).tap()
    view.settle()
    assert view.state("key") == str(number(2))
    view.part("track").tap()
    view.says("trackedSaid", "in every word")
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 375


# The tab of the real page, with the embedded model and its SAE behind it.


def look(page):
    page.get_by_role("tab", name="Attribution").click()
    page.wait_for_selector(".attribution[data-ready]", timeout=60_000)


def headline(page, text):
    page.locator(".attribution [data-part=headline]").filter(has_text=text).wait_for()


def test_the_tab_attributes_words_of_the_answer_on_the_page(app_page, tmp_path, monkeypatch, capsys):
    page = app_page
    look(page)
    headline(page, "“dog” leads by")
    assert page.locator(".attribution tr[data-key]").first.inner_text().startswith("dog")
    page.locator(".attribution [data-part=words] button").nth(4).click()
    headline(page, "“pizza” leads by")
    page.locator(".attribution [data-part=ablate]").click()
    page.locator(".attribution [data-part=odds]").filter(has_text="Probability of").wait_for()
    panel = page.get_by_role("tabpanel").filter(has=page.locator(".attribution"))
    files = {}
    for kind in ("html", "json", "csv", "filters"):
        with page.expect_download() as download:
            page.click(f"#make-attribution-{kind}")
        files[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    found = json.loads(files["json"])
    assert found["word"] == " pizza"
    rows = list(csv.DictReader(io.StringIO(files["csv"])))
    assert [int(row["feature"]) for row in rows] == [feature["feature"] for feature in found["features"]]
    (chosen,) = json.loads(files["filters"]).values()
    assert set(chosen) & {feature["feature"] for feature in found["features"]}
    assert "<title>Attribution: emoji-llava</title>" in files["html"]
    panel.get_by_text("Do this from Python").click()
    panel.locator(".cm-line").filter(has_text="token=4").wait_for()
    code = "\n".join(panel.locator(".cm-line").all_inner_texts())
    monkeypatch.chdir(EXAMPLES)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - it is ours, and running it is the test
    assert "pizza" in capsys.readouterr().out


def test_a_feature_of_the_features_tab_leads_to_the_words_it_mattered_in(app_page):
    page = app_page
    page.get_by_role("tab", name="SAE features").click()
    page.wait_for_selector(".features[data-ready]", timeout=60_000)
    row = page.locator(".features [data-part=tableBody] tr").filter(has_text="pizza").first
    row.locator(".features-feature").click()
    page.locator(".features [data-part=words]").click()
    page.locator(".attribution [data-part=trackedSaid]").filter(has_text="pizza in every word").wait_for(timeout=60_000)
    bars = page.locator(".attribution .attribution-column i").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.height))")
    assert bars.index(max(bars)) == 4


def test_a_feature_that_carried_a_word_can_be_steered(app_page):
    page = app_page
    look(page)
    page.locator(".attribution tr[data-key]").first.click()
    page.locator(".attribution [data-part=steer]").click()
    page.wait_for_function("document.querySelector('.edits')?.innerText.includes('dog')", timeout=60_000)


def test_a_link_opens_on_the_word_and_what_it_is_compared_with(app_page, open_page):
    page = app_page
    look(page)
    page.locator(".attribution [data-part=words] button").nth(7).click()
    headline(page, "“blue” leads by")
    page.locator(".attribution [data-part=other]").fill("green")
    page.locator(".attribution [data-part=other]").press("Enter")
    headline(page, "over “green”")
    code = page.locator(".tabitem:visible .cm-content")
    if not code.count():
        page.locator(".tabitem:visible").get_by_text("Do this from Python").click()
    code.filter(has_text="baseline='green'").wait_for(state="attached")
    page.locator("#attribution-share").click()
    link = page.locator("#attribution-link textarea, #attribution-link input")
    page.wait_for_function("(node) => node.value.includes('state=')", arg=link.element_handle())
    opened = open_page("/?" + link.input_value().split("?")[1], ready=".attribution[data-ready]")
    assert opened.locator(".attribution [data-part=headline]").inner_text().startswith("“blue” leads by")
    headline(opened, "over “green”")
