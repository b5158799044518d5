"""The feature view in a real browser: the component in a gradio page, with stand-ins for the server functions.

Every expectation is computed here from the payload, by `Expected`, not by the view. Waits are on conditions, never on time.
"""

from __future__ import annotations

import json
import threading

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from interp.errors import InterpError
from interp.ui.components.feature_view import FeatureView
from interp.ui.components.lens_view import LensView
from tests.browser.conftest import LAUNCH, PHONE
from tests.browser.view import Opened
from tests.web.feature_payload import DENSE, Expected, feature, payload
from tests.web.lens_payload import payload as lens_payload

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'


class Server:
    """Stand-ins for the server functions; `answers` replaces what one of them says, `asked` keeps the calls."""

    def __init__(self):
        self.asked, self.answers, self.held = [], {}, {}

    def call(self, name, run, argument, usual):
        self.asked.append((name, run, argument))
        answer = self.answers.get((name, json.dumps(argument)), self.answers.get(name, usual))
        if (gate := self.held.get(json.dumps(argument))) is not None:
            gate.wait(20)
        if isinstance(answer, Exception):
            raise answer
        return answer(argument) if callable(answer) else answer

    def features_at(self, run, where):
        found = [feature(900, {9: 4.0, 10: 2.0}, [9], label="only there"), feature(901, {9: 1.0}, [9], label="weak there")]
        return self.call("features_at", run, where, {"where": "there", "looked_at": 1, "active": 33, "features": found})

    def find_features(self, run, text):
        found = [feature(2000, {}, [9], label="found by search", source="top words")]
        return self.call("find_features", run, text, {"features": found, "note": "1 of 4096 features."})

    def feature_details(self, run, number):
        near = [{"feature": 48, "cosine": 0.81, "label": "pizza"}, {"feature": 2000, "cosine": 0.5, "label": "far away"}]
        return self.call("feature_details", run, number, {"neighbours": near})

    def calls(self, name):
        return [argument for called, _, argument in self.asked if called == name]

    def newest(self, name):
        """(run, argument) of the newest call. Calls of others may come later: what a page asks at once arrives in any order."""
        return [(run, argument) for called, run, argument in self.asked if called == name][-1]


class Features(Opened):
    """One opened view: where its patches are, and what it shows."""

    KIND = "features"

    def __init__(self, page, made, server):
        super().__init__(page)
        self.made, self.server, self.expected = made, server, Expected(made)

    def set(self, made):
        super().set(made)
        self.expected = made and Expected(made)
        return self

    def ready(self):
        self.page.wait_for_selector(".features[data-ready]")
        self.settle()
        return self

    def drag(self, start, end):
        box = self.part("base").bounding_box()
        mouse = self.page.mouse
        for index, then in ((start, mouse.down), (end, mouse.up)):
            place = self.at(index)
            mouse.move(box["x"] + place["x"], box["y"] + place["y"], steps=4)
            then()
        self.settle()

    def line(self, number):
        return self.part("tableBody").locator(f"tr[data-feature='{number}']")

    def order(self):
        self.settle()
        return self.part("tableBody").locator("tr[data-feature]").evaluate_all("(rows) => rows.map((row) => Number(row.dataset.feature))")

    def select(self, number):
        self.line(number).locator(".features-feature").click()
        self.settle()

    def plain(self):
        """The pixels of the picture with no map: what a payload without features shows."""
        made = self.made
        self.set({**made, "features": []}).ready()
        pixels = self.pixels()
        self.set(made).ready()
        return pixels

    def patches(self, pixels):
        """The colour of every patch, a little off its middle."""
        places = self.places(fx=0.3, fy=0.3)
        return np.array([pixels[int(place["y"]), int(place["x"])] for place in places])


@pytest.fixture(scope="module")
def site():
    """One gradio page for all tests: a lens and a feature view in tabs, and a feature view's server functions that ask `site.server`."""

    class Site:
        server = Server()

    def features_at(run, where):
        return Site.server.features_at(run, where)

    def find_features(run, text):
        return Site.server.find_features(run, text)

    def feature_details(run, number):
        return Site.server.feature_details(run, number)

    with gr.Blocks() as demo:
        with gr.Tabs():
            with gr.Tab("Lens", id="lens"):
                lens = LensView()
                gr.Button("show lens").click(lambda: lens_payload(run="l1", prompt="first", answer=payload()["answer"]), outputs=lens)
            with gr.Tab("SAE features", id="sae"):
                view = FeatureView(server_functions=[features_at, find_features, feature_details])
        gr.Button("first").click(lambda: payload(run="r1", prompt="first"), outputs=view)
        gr.Button("second").click(lambda: payload(run="r2", prompt="second", side=6), outputs=view)
        gr.Button("nothing").click(lambda: None, outputs=view)
    _, Site.url, _ = demo.launch(**LAUNCH)
    yield Site
    demo.close()


@pytest.fixture
def open_page(site, page_of):
    """A page of the site, at the features' tab unless told otherwise; options as for `page_of`."""

    def open_view(tab="SAE features", **options):
        def load(page):
            page.goto(site.url)
            page.wait_for_function("() => document.querySelector('.lens')?.__view")
            if tab:
                page.get_by_role("tab", name=tab).click()
                page.wait_for_function("() => document.querySelector('.features')?.__view")

        page = page_of(load, **options)
        site.server = Server()  # only now: what the test before asked last has come to its end
        return page

    yield open_view
    for gate in site.server.held.values():
        gate.set()


@pytest.fixture
def open_features(open_page, site):
    def open_payload(made, **options):
        return Features(open_page(**options), made, site.server).set(made).ready()

    return open_payload


@pytest.fixture
def features(open_features):
    return open_features(payload(run="r1"))


@pytest.fixture
def own_features(open_features):
    """On a page of the tests that mount the view anew, which it is no longer Python that fills."""
    return open_features(payload(run="r1"), kind="mounted")


def near(colours, wanted, by):
    return np.abs(np.asarray(colours) - np.asarray(wanted)).max() <= by


def test_opens_with_the_head_the_fit_and_the_first_feature(features):
    made = features.made
    assert features.text("prompt") == made["prompt"]
    assert features.text("answer") == made["answer"]
    assert features.text("facts") == "emoji-llava · emoji-llava-sae · layer 5 · 4,096 features"
    assert features.text("notes") == "trained on another model: gemma-2b"
    assert features.text("labels") == made["sae"]["labels"]
    image, text = features.part("quality").locator("tr").all_inner_texts()[1:]
    assert " ".join(image.split()) == "on image 64 0.41 own data 0.78 88.2 own data 42.0 3.1 %"
    assert " ".join(text.split()) == "on text 16 \u2013 40.6 < 0.01 %"
    assert features.text("verdicts") == made["quality"][0]["verdict"]
    assert features.part("quality").locator("abbr[title]").count() == 4
    assert features.state("feature") == features.expected.numbers[0]
    assert features.text("listTitle") == "Features of image tokens"
    assert features.text("listSub") == "12 listed of 181 active · ranked by mean activation over 64 tokens"
    features.says("near", "pizza")
    assert features.server.asked == [("feature_details", "r1", features.expected.numbers[0])]


def test_table_shows_every_figure_in_the_order_of_the_ranking(features):
    assert features.order() == features.expected.numbers
    raw = features.made["features"][features.expected.numbers.index(features.expected.number("dog"))]
    cells = features.line(raw["feature"]).locator("td").all_inner_texts()
    assert cells[1:3] == ["17", "dog"]
    assert [float(cell) for cell in cells[3:6]] == pytest.approx([raw["score"], raw["mean"], raw["max"]], abs=0.006)
    assert float(cells[6].strip(" %")) == pytest.approx(100 * raw["frequency"], abs=0.6)
    assert cells[7] == "0.40 %"
    widths = (
        features.part("tableBody").locator(".features-score i").evaluate_all("(bars) => bars.map((bar) => parseFloat(bar.style.width))")
    )
    scores = [raw["score"] for raw in features.made["features"]]
    assert widths == pytest.approx([100 * score / max(scores) for score in scores], abs=0.1)


@pytest.mark.parametrize(("key", "down"), [("max", True), ("density", True), ("frequency", True), ("feature", False), ("label", False)])
def test_headers_sort_and_say_so(features, key, down):
    header = features.part("tableHead").locator(f"th[data-key={key}]")

    def wanted(reverse):
        def missing(raw):
            return raw[key] in (None, "")

        known = [raw for raw in features.made["features"] if not missing(raw)]
        rest = [raw for raw in features.made["features"] if missing(raw)]
        known.sort(key=lambda raw: raw["feature"])
        known.sort(key=lambda raw: raw[key].lower() if key == "label" else raw[key], reverse=reverse)
        return [raw["feature"] for raw in [*known, *sorted(rest, key=lambda raw: raw["feature"])]]

    header.get_by_role("button").focus()
    features.page.keyboard.press("Enter")
    assert features.order() == wanted(down)
    assert header.get_attribute("aria-sort") == ("descending" if down else "ascending")
    features.page.keyboard.press("Enter")
    assert features.order() == wanted(not down)
    assert header.get_attribute("aria-sort") == ("ascending" if down else "descending")
    features.page.keyboard.press("Enter")
    assert features.order() == features.expected.numbers
    assert features.part("tableHead").locator("th:not([aria-sort=none])[data-key]").count() == 0


def test_filter_by_label_and_number_as_one_types(features):
    features.part("filter").press_sequentially("TEX")
    wanted = [raw["feature"] for raw in features.made["features"] if "tex" in raw["label"]]
    assert features.order() == wanted
    assert f"{len(wanted)} of 12 shown" in features.text("count")
    features.part("filter").fill("#17")
    assert features.order() == [number for number in features.expected.numbers if "17" in str(number)]
    features.part("filter").fill("zebra")
    assert features.order() == []
    assert "No listed feature matches “zebra”. Press Enter to search the whole SAE." in features.text("tableBody")
    features.part("findClear").click()
    assert features.order() == features.expected.numbers
    assert features.server.calls("find_features") == []


def test_search_over_the_whole_dictionary_and_back(features):
    features.part("filter").fill("found")
    features.part("filter").press("Enter")
    features.says("listTitle", "1 feature of this SAE for “found”")
    assert features.order() == [2000]
    assert features.text("listNote") == "1 of 4096 features."
    assert features.server.newest("find_features") == ("r1", "found")
    features.select(2000)
    assert features.text("mapNote") == "Not active on this picture or its text."
    features.part("findClear").click()
    assert features.order() == features.expected.numbers
    assert features.text("listTitle") == "Features of image tokens"
    assert features.part("filter").input_value() == ""
    features.part("findGo").click()
    assert features.text("listNote") == "Type a word or a number first."
    assert features.part("filter").get_attribute("aria-invalid") == "true"


def test_dense_features_are_marked_and_hidden_only_on_demand_and_never_silently(features):
    dense = 17 + 31 * DENSE
    reason = features.expected.features[dense]["dense"]
    assert features.line(dense).locator(".view-chip").get_attribute("title") == reason
    assert features.part("tableBody").locator(".view-chip").count() == 1
    assert not features.part("hideDense").is_checked()
    features.select(dense)
    assert features.text("nameChips") == f"dense: {reason}"
    features.part("hideDense").check()
    assert features.order() == [number for number in features.expected.numbers if number != dense]
    assert features.text("count") == "11 of 12 shown; 1 hidden because they fire on nearly everything."
    features.part("hideDense").uncheck()
    assert dense in features.order()
    assert features.text("count") == ""


def test_the_map_tints_by_activation_and_leaves_zero_alone(features):
    plain = features.patches(features.plain())
    number = features.expected.number("dog")
    features.select(number)
    at, rows, top = features.expected.at(number), features.expected.rows(), features.expected.top(number)
    shown = features.patches(features.pixels())
    stops = [[68, 1, 84], [70, 50, 126], [54, 92, 141], [39, 127, 142], [31, 161, 135], [74, 193, 109], [160, 218, 57], [253, 231, 37]]
    for i, row in enumerate(rows):
        # a little less colour at the same brightness, which is all that happens to a patch without activation
        faded = plain[i] + (plain[i] @ (0.3, 0.59, 0.11) - plain[i]) * 0.4
        if at[row] == 0:
            assert near(shown[i], faded, 4), i
            continue
        x = at[row] / top * 7
        j = min(6, int(x))
        ramp = np.array(stops[j]) + (np.array(stops[j + 1]) - np.array(stops[j])) * (x - j)
        assert near(shown[i], ramp * 0.66 + faded * 0.34, 4), i
    assert features.text("scaleHigh") == f"{top:.2f}, highest on the picture"
    assert features.text("title") == "dog #17"


def test_a_feature_on_no_patch_says_so(features):
    plain = features.plain()
    number = features.expected.number("words of an answer")
    features.select(number)
    assert features.text("mapNote") == "Not active on this picture, only on 6 tokens of the text."
    assert np.array_equal(features.pixels(), plain)
    assert "view-off" in features.part("scale").get_attribute("class")


def test_no_features_at_all(features):
    features.set({**features.made, "features": [], "active": 0}).ready()
    assert features.text("tableBody") == "No feature is active here."
    assert features.text("listSub").startswith("0 listed of 0 active")
    assert not features.part("card").is_visible()
    assert features.text("title") == "No feature is shown"
    features.hover(9)
    assert "none of the listed features active" in features.text("whereSub")
    features.click(9)
    features.says("tableBody", "only there")


def test_card_has_words_and_tokens_and_leads_to_steering_only_where_there_is_such_a_tab(features):
    number = features.expected.number("dog")
    features.select(number)
    assert features.text("name") == "dog #17"
    assert features.text("source") == "Name from: detects the noun, AUROC 0.99"
    assert features.text("up") == "␣dog ␣puppy Dog"
    assert features.text("down") == "␣the ↵"
    assert features.part("steer").is_hidden()
    link = features.part("links").locator("a")
    assert link.get_attribute("href") == "https://www.neuronpedia.org/made-up/17"
    assert "noopener" in link.get_attribute("rel")


@pytest.mark.parametrize(
    "link", ["javascript:window.pwned=1", "http://www.neuronpedia.org/x", "data:text/html,x", "//x.org", " JavaScript:1", "", None]
)
def test_other_links_are_refused(features, link):
    features.set({**features.made, "features": [{**features.made["features"][0], "link": link}]}).ready()
    assert features.root.locator("a").count() == 0


def test_token_strip_shows_activations_and_what_is_left_out(features):
    number = features.expected.number("words of an answer")
    features.select(number)
    at, kinds = features.expected.at(number), features.made["tokens"]["kind"]
    shown = (
        features.part("strip")
        .locator("button")
        .evaluate_all("(nodes) => nodes.map((node) => [Number(node.dataset.row), Number(node.style.getPropertyValue('--p'))])")
    )
    assert [row for row, _ in shown] == [row for row in range(features.expected.steps) if kinds[row] != "i"]
    highest = max(at)
    assert [p for _, p in shown] == pytest.approx([at[row] / highest for row, _ in shown], abs=0.001)
    assert "[64 image patches: active on none]" in features.text("strip")
    left = features.part("strip").locator(".features-left-out")
    assert left.count() == 1
    assert left.get_attribute("data-row") == "0"
    assert "<s>" in features.text("leftOut")
    assert features.part("strip").locator(".features-last").inner_text() == "</s>"


def test_a_left_out_token_does_not_set_the_scale_of_the_strip(open_features):
    made = payload(run="r1")
    made["features"] = [feature(5, {0: 500.0, 70: 2.0, 71: 1.0}, list(range(4, 68)), label="sink")]
    features = open_features(made)
    tints = {
        row: features.part("strip").locator(f"button[data-row='{row}']").evaluate("(n) => Number(n.style.getPropertyValue('--p'))")
        for row in (0, 70, 71)
    }
    assert tints == {0: 1, 70: 1, 71: 0.5}
    assert "2.00" in features.text("stripNote")


def test_a_click_on_a_token_lists_the_features_there(features):
    row = features.made["tokens"]["text"].index(" pizza")
    features.part("strip").locator(f"button[data-row='{row}']").click()
    features.says("tableBody", "only there")
    assert features.server.calls("features_at") == [{"positions": [row]}]
    assert features.text("listTitle") == "Features of answer token “pizza”"
    assert features.state("locked") == row
    features.part("strip").locator(f"button[data-row='{row}']").press("ArrowRight")
    features.page.keyboard.press("Enter")
    features.settle()
    assert features.state("locked") == row + 1


def test_layers_have_colours_a_legend_and_a_limit(features):
    plain = features.patches(features.plain())
    dog, pizza = features.expected.number("dog"), features.expected.number("pizza")
    features.select(dog)
    features.line(dog).get_by_role("checkbox").check()
    assert features.state("layers") == [dog]
    assert not features.root.evaluate("(root) => root.querySelector('[data-part=scale]').hidden")  # one feature keeps the ramp
    features.line(pizza).get_by_role("checkbox").check()
    features.settle()
    assert features.part("scale").is_hidden()
    assert features.text("title") == "2 features as layers"
    swatches = (
        features.part("layers")
        .locator("li")
        .evaluate_all(
            "(items) => items.map((item) => getComputedStyle(item.querySelector('i')).backgroundColor.match(/\\d+/g).map(Number))"
        )
    )
    assert len({tuple(colour) for colour in swatches}) == 2
    shown = features.patches(features.pixels())
    for number, colour in zip((dog, pizza), swatches, strict=True):
        other = features.expected.at(pizza if number == dog else dog)
        at, top = features.expected.at(number), features.expected.top(number)
        for i, row in enumerate(features.expected.rows()):
            if at[row] > 0 and other[row] == 0:
                faded = plain[i] + (plain[i] @ (0.3, 0.59, 0.11) - plain[i]) * 0.4
                alpha = 0.85 * at[row] / top
                assert near(shown[i], np.array(colour[:3]) * alpha + faded * (1 - alpha), 4), (number, i)
    features.part("layers").get_by_role("button", name="Take pizza off the picture").click()
    features.settle()
    assert features.state("layers") == [dog]
    for number in [number for number in features.expected.numbers if number != dog][:5]:
        features.line(number).get_by_role("checkbox").check()
    features.settle()
    assert len(features.state("layers")) == 6
    boxes = features.part("tableBody").get_by_role("checkbox")
    assert [boxes.nth(i).is_disabled() for i in range(12)].count(True) == 6
    assert features.part("layers").locator("li").count() == 6


def test_a_layer_keeps_its_colour_when_another_goes(features):
    first, second, third = features.expected.numbers[:3]
    for number in (first, second, third):
        features.line(number).get_by_role("checkbox").check()
    colour = "(item) => getComputedStyle(item.querySelector('i')).backgroundColor"
    before = features.part("layers").locator("li").nth(2).evaluate(colour)
    features.line(second).get_by_role("checkbox").uncheck()
    features.settle()
    assert features.part("layers").locator("li").nth(1).evaluate(colour) == before


def test_hover_reads_the_listed_features_without_a_request(features):
    features.says("near", "pizza")  # what opening it asks
    asked = len(features.server.asked)
    requests = []
    features.page.on("request", lambda request: requests.append(request.url))
    rows = features.expected.rows()
    for index in (0, 9, 44, 63):
        features.hover(index)
        wanted = sorted(
            (number for number in features.expected.numbers if features.expected.at(number)[rows[index]] > 0),
            key=lambda number: -features.expected.at(number)[rows[index]],
        )
        assert features.text("where") == f"Patch row {index // 8 + 1}, column {index % 8 + 1}"
        shown = features.part("top").locator("li")
        assert [int(text.split("#")[1]) for text in shown.locator(".view-word").all_inner_texts()] == wanted[:6]
        figures = [float(text) for text in shown.locator(".view-percent").all_inner_texts()]
        assert figures == pytest.approx([features.expected.at(number)[rows[index]] for number in wanted[:6]], abs=0.006)
        assert f"{len(wanted)} of 12 listed features" in features.text("whereSub")
    assert [url for url in requests if "heartbeat" not in url] == []
    assert len(features.server.asked) == asked


def test_click_lists_the_features_of_a_patch_and_unlocks(features):
    rows = features.expected.rows()
    features.click(19)
    features.says("tableBody", "only there")
    assert features.server.newest("features_at") == ("r1", {"patches": [[2, 3]], "grid": 0})
    assert features.state("where") == {"patches": [[2, 3]], "grid": 0}
    assert features.text("listTitle") == "Features of patch row 3, column 4"
    assert features.text("listSub") == "2 listed of 33 active · ranked by mean activation over 1 token"
    assert features.state("locked") == rows[19]
    assert features.order() == [900, 901]
    assert features.text("back") == "Back to image tokens"
    features.click(19)
    assert features.state("locked") is None
    assert features.order() == features.expected.numbers
    features.click(20)
    features.page.keyboard.press("Escape")
    features.settle()
    assert features.state("locked") is None
    features.click(21)
    features.part("back").click()
    assert features.order() == features.expected.numbers
    assert features.part("back").is_hidden()
    assert features.state("where") is None


def test_drag_draws_a_box(features):
    features.drag(44, 17)  # backwards: the corners are put in order
    features.says("tableBody", "only there")
    assert features.server.calls("features_at") == [{"box": [2, 1, 5, 4], "grid": 0}]
    assert features.text("listTitle") == "Features of patches rows 3\u20136, columns 2\u20135"
    assert features.state("box") == {"grid": 0, "r0": 2, "c0": 1, "r1": 5, "c1": 4}
    features.page.keyboard.press("Escape")
    features.settle()
    assert features.state("box") is None


def test_keyboard_moves_locks_and_draws(features):
    rows = features.expected.rows()
    press = features.page.keyboard.press
    features.hover(0)
    features.part("stage").focus()
    for key, index in [("ArrowRight", 1), ("ArrowDown", 9), ("ArrowLeft", 8), ("ArrowLeft", 8), ("ArrowUp", 0), ("ArrowDown", 8)]:
        press(key)
        assert features.state("hover") == rows[index], key
    assert features.text("live").startswith("row 2, column 1: ")
    press("Enter")
    features.says("tableBody", "only there")
    features.page.keyboard.down("Shift")
    press("ArrowRight")
    press("ArrowRight")
    press("ArrowDown")
    assert features.state("drawing") == {"grid": 0, "r0": 1, "c0": 0, "r1": 2, "c1": 2}
    features.page.keyboard.up("Shift")
    features.says("listTitle", "rows 2\u20133, columns 1\u20133")
    features.settle()
    features.page.wait_for_function("() => !document.querySelector('.features').__features.busy")
    assert features.server.calls("features_at") == [{"patches": [[1, 0]], "grid": 0}, {"box": [1, 0, 2, 2], "grid": 0}]


def test_rows_are_reached_by_keyboard(features):
    numbers = features.expected.numbers
    features.line(numbers[0]).focus()
    features.page.keyboard.press("ArrowDown")
    features.page.keyboard.press("ArrowDown")
    features.page.keyboard.press("Enter")
    assert features.state("feature") == numbers[2]
    features.settle()
    assert features.line(numbers[2]).get_attribute("aria-selected") == "true"
    features.page.keyboard.press("Tab")
    features.page.keyboard.press(" ")
    assert features.state("layers") == [numbers[2]]
    features.line(numbers[2]).focus()
    features.page.keyboard.press("End")
    features.page.keyboard.press(" ")
    assert features.state("feature") == numbers[-1]
    assert features.part("tableBody").locator("tr[tabindex='0']").count() == 1


def test_neighbours_are_selected_known_or_not(features):
    features.says("near", "far away")
    features.part("near").get_by_role("button", name="pizza").click()
    assert features.state("feature") == 48
    assert features.server.calls("find_features") == []
    features.says("near", "far away")
    features.part("near").get_by_role("button", name="far away").click()
    features.says("name", "found by search")
    assert features.state("feature") == 2000
    assert features.server.calls("find_features") == ["2000"]
    assert features.order() == features.expected.numbers


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (InterpError("That run is gone."), "That run is gone."),
        (RuntimeError("/secret"), "The server could not"),
        ({"error": "No SAE."}, "No SAE."),
    ],
)
def test_errors_of_the_server_are_said_and_nothing_sticks(features, answer, said):
    for name in ("features_at", "find_features", "feature_details"):
        features.server.answers[name] = answer
    features.click(9)
    features.says("listNote", said)
    row = features.expected.rows()[9]
    assert features.order() == features.expected.active([row])  # of those listed, and the note says so
    assert "Shown instead" in features.text("listNote")
    features.part("filter").fill("dog")
    features.part("findGo").click()
    features.says("listNote", said)
    features.select(features.order()[0])
    features.part("back").click()
    features.part("filter").fill("")
    features.select(features.expected.numbers[3])
    features.says("nearNote", said)
    assert "secret" not in features.root.inner_text()
    assert not features.state("busy")
    features.server.answers.clear()
    features.click(10)
    features.says("tableBody", "only there")
    assert features.text("listNote") == ""


def test_damaged_answers_are_errors_too(features):
    features.server.answers["features_at"] = {
        "where": "x",
        "looked_at": 1,
        "active": 1,
        "features": [{**features.made["features"][0], "rows": "AAAA"}],
    }
    features.click(9)
    features.says("listNote", "damaged")
    features.server.answers["find_features"] = {"features": [feature(3, {5000: 1.0}, [4])], "note": ""}
    features.part("filter").fill("x")
    features.part("findGo").click()
    features.says("listNote", "active at row 5000")


def test_an_answer_to_an_older_question_is_dropped(features):
    slow, fast = {"patches": [[0, 0]], "grid": 0}, {"patches": [[1, 1]], "grid": 0}
    features.server.held[json.dumps(slow)] = gate = threading.Event()
    features.server.answers["features_at", json.dumps(slow)] = {
        "where": "",
        "looked_at": 1,
        "active": 1,
        "features": [feature(1, {}, [4], label="too late")],
    }
    features.click(0)
    features.says("listSub", "Looking up")
    assert features.part("scroller").get_attribute("aria-busy") == "true"
    assert features.state("busy")
    features.click(9)
    features.says("tableBody", "only there")
    assert features.server.calls("features_at") == [slow, fast]
    with features.page.expect_response(lambda response: "too late" in response.text()):
        gate.set()
    features.settle()
    assert features.order() == [900, 901]
    assert features.text("listTitle") == "Features of patch row 2, column 2"
    # and going back while one is under way
    gate.clear()
    features.click(0)
    features.says("listSub", "Looking up")
    features.part("back").click()
    with features.page.expect_response(lambda response: "too late" in response.text()):
        gate.set()
    features.settle()
    assert features.order() == features.expected.numbers


def test_without_server_functions_the_listed_features_are_used_and_the_view_says_so(own_features):
    features = own_features
    features.page.evaluate("() => { const root = document.querySelector('.features'); Microscope.mountFeatures(root.parentNode, {}); }")
    features.set(features.made).ready()
    features.click(9)
    row = features.expected.rows()[9]
    assert features.order() == features.expected.active([row])
    assert "only the 12 features listed for image tokens" in features.text("listNote")
    features.drag(0, 18)
    rows = [features.expected.rows()[r * 8 + c] for r in range(3) for c in range(3)]
    assert features.order() == features.expected.active(rows)
    assert features.part("findGo").is_hidden()
    assert "no model to ask" in features.text("nearNote")


def test_a_host_that_steers_gets_the_feature(own_features):
    features = own_features
    features.page.evaluate(
        "() => { const root = document.querySelector('.features'); Microscope.mountFeatures(root.parentNode, { steer: (what) => { window.steered = what; } }); }"
    )
    features.set(features.made).ready()
    rows = features.expected.rows()
    for label in ("dog", "words of an answer"):
        number = features.expected.number(label)
        at = features.expected.at(number)
        features.select(number)
        features.part("steer").click()
        assert features.page.evaluate("() => window.steered") == {
            "run": "r1",
            "sae": "emoji-llava-sae",
            "layer": 5,
            "feature": number,
            "label": label,
            "max": pytest.approx(features.expected.top(number)),
            "active": [[i // 8, i % 8] for i, row in enumerate(rows) if at[row] > 0],
        }


@pytest.fixture
def with_steer_tab(features):
    features.page.evaluate("""() => {
        const tab = document.createElement('button');
        Object.assign(tab, { id: 'made-up', role: 'tab', textContent: ' Steer ', onclick: () => { window.opened = true; } });
        document.body.append(tab);
    }""")
    yield features
    features.page.evaluate("() => { document.querySelector('#made-up').remove(); Microscope.waitingEdit = null; }")


def test_the_way_to_steering_appears_with_its_tab(with_steer_tab):
    features = with_steer_tab
    features.select(features.expected.number("pizza"))
    assert features.part("steer").is_visible()
    features.part("steer").click()
    # Nobody took it: it waits for a view that is made when the tab is opened.
    assert features.page.evaluate("() => [window.opened, Microscope.waitingEdit.feature]") == [True, features.expected.number("pizza")]


def test_several_grids_and_the_encoder_s_view(open_features):
    features = open_features(payload(run="r1", grids=2, width=320, height=200, seen=[60, 0, 260, 200]))
    features.part("grid").select_option("1")
    features.settle()
    features.click(20, grid=1)
    features.says("listTitle", "Features of patch grid 1, row 3, column 5")
    features.says("tableBody", "only there")
    assert features.server.calls("features_at") == [{"patches": [[2, 4]], "grid": 1}]
    features.root.get_by_role("radio", name="As the encoder saw it").check()
    features.settle()
    box = features.part("base").bounding_box()
    assert box["width"] == box["height"]
    features.part("stage").hover(position={"x": box["width"] * 2.5 / 8, "y": box["height"] * 5.5 / 8})
    features.settle()
    assert features.state("hover") == features.expected.rows(1)[5 * 8 + 2]


def test_the_map_is_saved_with_a_caption(features, tmp_path):
    features.select(features.expected.number("dog"))
    with features.page.expect_download() as saving:
        features.part("png").click()
    assert saving.value.suggested_filename == "features-17.png"
    saving.value.save_as(tmp_path / "map.png")
    saved = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    height, width = saved.shape[:2]
    assert width >= 1024
    assert height > width + 60  # the picture is square; below it stands the caption
    assert near(saved[int(width / 8 * 1.3), int(width / 8 * 1.3)], features.patches(features.pixels())[9], 6)
    caption = saved[width + 4 :]
    assert caption.max() == 255
    assert caption.min() < 80


def test_hostile_texts_stay_texts(open_features):
    made = payload(run="r1", prompt=ATTACK, answer=ATTACK, model=ATTACK, notes=[ATTACK], limits=ATTACK, where=ATTACK)
    made["sae"] = {**made["sae"], "name": ATTACK, "notes": [ATTACK], "labels": ATTACK}
    made["quality"][0]["verdict"] = ATTACK
    made["grids"][0]["name"] = ATTACK
    made["tokens"]["text"] = [ATTACK if i % 2 else text for i, text in enumerate(made["tokens"]["text"])]
    hostile = {"label": ATTACK, "source": ATTACK, "dense": ATTACK, "top": [ATTACK], "bottom": [ATTACK], "link": "https://x.org/" + ATTACK}
    made["features"] = [{**raw, **hostile} for raw in made["features"]]
    features = open_features(made)
    features.server.answers["features_at"] = {"error": ATTACK}
    features.server.answers["find_features"] = {"features": [{**made["features"][0], **hostile}], "note": ATTACK}
    features.server.answers["feature_details"] = {"neighbours": [{"feature": 7, "cosine": 0.5, "label": ATTACK}]}
    features.select(features.expected.numbers[1])
    features.says("near", "onerror")
    for number in features.expected.numbers[:2]:
        features.line(number).get_by_role("checkbox").check()
    features.click(9)
    features.says("listNote", "onerror")
    features.part("filter").fill(ATTACK)
    features.part("findGo").click()
    features.says("listTitle", "onerror")
    assert features.text("prompt") == ATTACK
    assert features.root.locator("img, script, iframe").count() == 0
    assert features.page.evaluate("() => window.pwned") is None


@pytest.mark.parametrize("dark", [False, True])
def test_theme_follows_gradio(features, dark):
    features.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    features.page.locator(f".features[data-theme={'dark' if dark else 'light'}]").wait_for()
    ink, paper = features.root.evaluate(
        """(root) => [getComputedStyle(root).color, getComputedStyle(root.querySelector('.features-table')).backgroundColor]
            .map((text) => text.match(/\\d+/g).slice(0, 3).reduce((sum, v) => sum + Number(v), 0))"""
    )
    assert (paper < ink) == dark
    assert abs(paper - ink) > 450


def test_phone_width_has_one_column_and_no_sideways_scroll(open_features):
    features = open_features(payload(run="r1", side=24, width=640, height=400, count=50), **PHONE)
    assert features.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    stage, table = features.part("stage").bounding_box(), features.part("scroller").bounding_box()
    assert table["y"] > stage["y"] + stage["height"]
    assert table["x"] + table["width"] <= 390
    features.part("stage").tap(position=features.at(300))
    features.says("tableBody", "only there")
    assert features.server.calls("features_at") == [{"patches": [[12, 12]], "grid": 0}]


def test_the_page_does_not_move_under_the_pointer(features):
    features.page.set_viewport_size({"width": 640, "height": 900})
    features.settle()
    tops = set()
    for row in (4, 12, 30, 44, 66, 70):
        features.root.evaluate("(root, row) => root.__view.point(row)", row)
        features.settle()
        tops.add(features.part("scroller").evaluate("(node) => node.offsetTop"))
    assert len(tops) == 1


def test_a_narrow_table_leaves_out_the_column_that_repeats_the_score(features):
    shown = "() => [...document.querySelectorAll('.features th[data-key]')].filter((th) => th.offsetWidth).map((th) => th.dataset.key)"
    everything = ["feature", "label", "score", "mean", "max", "frequency", "density"]
    features.page.set_viewport_size({"width": 1500, "height": 800})
    features.settle()
    assert features.page.evaluate(shown) == everything
    features.page.set_viewport_size({"width": 900, "height": 800})
    features.settle()
    assert features.page.evaluate(shown) == [key for key in everything if key != "mean"]
    assert features.part("scroller").evaluate("(node) => node.scrollWidth <= node.clientWidth")
    features.set({**features.made, "rank_by": "max"}).ready()
    assert features.page.evaluate(shown) == [key for key in everything if key != "max"]


def test_a_feature_of_a_study_is_looked_for_once_its_sae_is_shown(features):
    def locate(feature, sae):
        detail = {"feature": feature, "sae": sae}
        assert not features.page.evaluate(
            "(detail) => document.dispatchEvent(new CustomEvent('llava:locate', { detail, cancelable: true }))", detail
        )

    sae, known = features.made["sae"]["name"], features.made["features"][2]["feature"]
    locate(known, sae)
    features.says("name", f"#{known}")
    locate(2000, sae)
    features.says("name", "found by search #2000")
    assert features.server.calls("find_features") == ["2000"]
    locate(known, "another-sae")
    features.says("listNote", f"Feature {known} is one of another-sae. Choose that SAE above.")
    assert features.state("feature") == 2000
    features.set({**features.made, "sae": {**features.made["sae"], "name": "another-sae"}}).ready()
    features.says("name", f"#{known}")


def test_a_study_of_this_sae_has_the_feature_s_top_pictures(features):
    assert features.part("study").is_hidden()
    features.page.evaluate("""() => {
        const tab = document.createElement('button');
        Object.assign(tab, { id: 'study-tab-button', onclick: () => { window.opened = true; } });
        document.body.append(tab);
    }""")
    features.set({**features.made, "sae": {**features.made["sae"], "study": "my-study"}}).ready()
    features.part("study").click()
    assert features.page.evaluate("[window.opened, Microscope.waitingStudy]") == [
        True,
        {"study": "my-study", "feature": features.state("feature")},
    ]
    features.page.evaluate("() => { document.querySelector('#study-tab-button').remove(); Microscope.waitingStudy = null; }")


def hand_over(page, position, of=None):
    page.evaluate("(detail) => document.dispatchEvent(new CustomEvent('llava:patch', { detail }))", {"position": position, "of": of})


def test_a_place_is_handed_over_by_an_event(features):
    rows = features.expected.rows()
    hand_over(features.page, rows[33])
    features.says("listTitle", "Features of patch row 5, column 2")
    assert features.state("locked") == rows[33]
    hand_over(features.page, rows[33])  # handing over is no click: it does not unlock
    assert features.state("locked") == rows[33]
    for wrong in (9999, -1, "5", None):
        hand_over(features.page, wrong)
    assert features.state("locked") == rows[33]
    # without a payload it waits for the next one, once
    features.set(None)
    features.part("empty").wait_for()
    hand_over(features.page, rows[7])
    features.set(payload(run="r2")).ready()
    assert features.state("locked") == rows[7]
    features.says("tableBody", "only there")
    assert ("features_at", "r2", {"patches": [[0, 7]], "grid": 0}) in features.server.asked
    features.set(payload(run="r3")).ready()
    assert features.state("locked") is None
    # of another picture than the one that is shown: kept for the next payload, and dropped if that is yet another
    of = {"image": features.made["image"]["src"], "prompt": "another", "answer": features.made["answer"]}
    for prompt, locked in (("another", rows[5]), ("a third", None)):
        hand_over(features.page, rows[5], of)
        assert features.state("locked") is None
        features.set(payload(run="r3", prompt=prompt)).ready()
        assert features.state("locked") == locked
        features.set(payload(run="r3")).ready()
        assert features.state("locked") is None
    # a row that the next payload lacks is forgotten
    features.set(None)
    hand_over(features.page, 5000)
    features.set(payload(run="r4")).ready()
    assert features.state("locked") is None


def test_the_lens_hands_over_to_a_tab_that_was_never_open(open_page, site):
    page = open_page(tab=None, fresh=True)
    page.get_by_role("button", name="show lens").click()
    page.wait_for_selector(".lens[data-ready]")
    box = page.locator(".lens [data-part=base]").bounding_box()
    page.locator(".lens [data-part=stage]").click(position={"x": box["width"] * 3.5 / 8, "y": box["height"] * 2.5 / 8})
    page.locator(".lens").get_by_role("button", name="SAE features here").click()
    page.wait_for_function("() => document.querySelector('.features')?.__view")
    assert page.get_by_role("tab", name="SAE features").get_attribute("aria-selected") == "true"
    page.get_by_role("button", name="first").click()
    features = Features(page, payload(), site.server).ready()
    features.says("listTitle", "Features of patch row 3, column 4")
    assert site.server.calls("features_at") == [{"patches": [[2, 3]], "grid": 0}]
    # and with the view in place
    page.get_by_role("tab", name="Lens").click()
    page.locator(".lens [data-part=stage]").click(position={"x": box["width"] * 0.5 / 8, "y": box["height"] * 0.5 / 8})
    page.locator(".lens").get_by_role("button", name="SAE features here").click()
    features.says("listTitle", "Features of patch row 1, column 1")


@pytest.mark.parametrize(
    ("change", "message"), [({"schema": "other"}, "it was given other"), ({"image": {"src": "data:,", "width": 1, "height": 1}}, "picture")]
)
def test_damaged_data_is_said_in_words(features, change, message):
    made = features.made
    features.set({**made, **change})
    features.says("empty", message)
    assert not features.part("body").is_visible()
    features.set(made).ready()
    assert features.part("body").is_visible()


def test_values_from_python_replace_each_other_without_a_trace(open_page, site):
    page = open_page()
    page.evaluate("() => document.querySelector('.features').__view.set(null)")
    features = Features(page, payload(), site.server)
    features.part("empty").wait_for()
    page.get_by_role("button", name="first").click()
    features.says("prompt", "first")
    features.ready()
    features.part("filter").fill("dog")
    features.line(17).get_by_role("checkbox").check()
    features.click(9)
    features.says("listTitle", "row 2, column 2")
    page.get_by_role("button", name="second").click()
    features.says("prompt", "second")
    features.made = payload(side=6)
    features.expected = Expected(features.made)
    features.ready()
    assert [features.state(name) for name in ("layers", "locked", "where", "sort", "run")] == [[], None, None, None, "r2"]
    assert features.part("filter").input_value() == ""
    assert features.order() == features.expected.numbers
    features.click(7)
    features.says("tableBody", "only there")
    assert site.server.newest("features_at") == ("r2", {"patches": [[1, 1]], "grid": 0})
    page.get_by_role("button", name="nothing").click()
    features.part("empty").wait_for()
