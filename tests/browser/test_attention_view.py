"""The view that explains a word in a real browser: its own file opened from disk, with a server made up by the tests, and the tab of the real page.

Expectations are computed here from the payload or given by the made-up server. Waits are on conditions, never on time.
"""

from __future__ import annotations

import json

import pytest

from interp.web.standalone import standalone_html
from tests.browser.view import Opened
from tests.web.attention_payload import fewest, floats, flow, payload, score, spec, what_if

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
MAP = [i / 64 for i in range(64)]

# Answers in the page for those of a server; what was asked is kept.
SERVER = """(given) => {
  window.said = [];
  const answers = (name) => given[name] === undefined ? null : async (...asked) => { window.said.push([name, ...asked]); return given[name]; };
  const options = Object.fromEntries(["wordMap", "testMap", "whatIf", "fewest", "wordFlow"].map((name) => [name, answers(name)]));
  options.followSystem = true;
  options.chose = (chosen) => { window.told = chosen; };
  Microscope.mountAttention(document.body, options);
}"""


class Why(Opened):
    """One opened view, and what it shows."""

    KIND = "attention"

    def set(self, made, **server):
        return self.served(SERVER, made, **server)

    def until(self, name, value):
        self.page.wait_for_function(
            "([name, value]) => JSON.stringify(document.querySelector('.attention').__attention[name]) === value",
            arg=[name, json.dumps(value, separators=(",", ":"))],
        )

    def word(self, i):
        return self.part("words").locator("button").nth(i)

    def patch(self, index, side=8):
        """The middle of a patch on the screen."""
        box = self.part("base").bounding_box()
        return box["x"] + (index % side + 0.5) * box["width"] / side, box["y"] + (index // side + 0.5) * box["height"] / side


@pytest.fixture
def why(page_of, tmp_path):
    def load(page):
        file = tmp_path / "why.html"
        file.write_text(standalone_html(payload()), encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_selector(".attention[data-ready]")

    return Why(page_of(load))


@pytest.fixture
def phone(page_of, tmp_path):
    def load(page):
        file = tmp_path / "why.html"
        file.write_text(standalone_html(payload()), encoding="utf-8")
        page.goto(file.as_uri())

    return Why(page_of(load, viewport={"width": 390, "height": 844}, has_touch=True))


def test_it_opens_on_the_first_content_word_with_the_mean_of_all_heads(why):
    why.set(payload())
    assert why.text("title") == "“dog”: attention, mean over all layers and heads"
    assert why.word(1).get_attribute("aria-pressed") == "true"
    assert why.text("note") == "Attention does not show everything."
    assert why.part("about").inner_text() == "What attention is."
    assert why.part("whatBox").is_hidden()  # there is no server
    assert why.page.evaluate("window.told.method") == "attention"


def test_another_word_is_a_click_away_and_asks_nobody(why):
    why.set(payload(), wordMap={})
    why.word(4).click()
    why.says("title", "“pizza”")
    assert why.state("token") == 4
    assert why.asked() == []
    why.page.keyboard.press("ArrowLeft")
    why.says("title", "“a”")
    why.page.keyboard.press("End")
    assert why.state("token") == 6


def test_hovering_a_word_previews_its_map_and_leaving_brings_the_chosen_one_back(why):
    why.set(payload())
    before = why.state("top")
    why.word(4).hover()
    why.says("title", "“pizza”")
    assert why.state("token") == 1
    why.page.mouse.move(5, 5)
    why.says("title", "“dog”")
    assert why.state("top") == before


def test_pointing_at_a_head_shows_its_map_and_a_click_keeps_it(why):
    why.set(payload())
    box = why.part("matrix").bounding_box()
    width = (box["width"] - 30) / 6
    at = {"x": 30 + 0.5 * width, "y": 5}
    why.part("matrix").hover(position=at)
    why.says("title", "layer 0, head 0")
    assert why.text("matrixSaid").startswith("Layer 0, head 0: picture ")
    why.part("matrix").click(position=at)
    why.page.mouse.move(5, 5)
    why.until("head", 0)
    why.says("title", "layer 0, head 0")
    assert why.page.evaluate("[window.told.layer, window.told.head]") == [0, 0]
    why.part("all").click()
    why.says("title", "mean over all layers and heads")


def test_the_grid_of_heads_by_keys(why):
    why.set(payload())
    why.part("matrix").focus()
    why.page.keyboard.press("ArrowDown")
    why.says("title", "layer 1, head 0")
    why.says("live", "Layer 1, head 0: picture")
    why.page.keyboard.press("ArrowLeft")
    why.says("title", "mean over the heads of layer 1")
    why.page.keyboard.press("Enter")
    why.until("layer", 1)
    assert why.state("head") is None


def test_a_patch_tints_the_words_that_read_it(why):
    why.set(payload())
    why.page.mouse.move(*why.patch(18))  # on the dog
    why.says("wordsNote", "row 3, column 3: read most by dog")
    shares = [float(why.word(i).evaluate("node => node.style.getPropertyValue('--share')")) for i in range(7)]
    assert max(shares) == shares[1] == 1
    why.page.mouse.move(5, 5)
    why.says("wordsNote", "Point at a patch")
    assert why.word(1).evaluate("node => node.style.getPropertyValue('--share')") == ""


def test_a_patch_is_locked_by_a_click_and_moved_by_keys(why):
    why.set(payload())
    why.page.mouse.click(*why.patch(18))
    why.page.mouse.move(5, 5)
    why.settle()
    assert why.text("wordsNote").startswith("row 3, column 3")
    why.page.keyboard.press("ArrowRight")
    why.says("live", "row 3, column 4: read most by")
    why.page.keyboard.press("Escape")
    why.until("locked", None)


def test_sinks_are_marked_and_left_out_until_asked_for(why):
    why.set(payload())
    assert why.text("pictureNote") == "◇ 1 attention sink, □ 1 register of the vision tower, left out of the map."
    without = why.state("top")
    why.part("sinks").check()
    why.until("sinks", True)
    why.settle()
    assert why.state("top") > 5 * without  # the head that rests on the first patch
    assert why.text("pictureNote").endswith("vision tower.")


def test_a_method_of_the_server_is_asked_once_for_each_word(why):
    why.set(payload(run="r"), wordMap={"values": floats(MAP), "note": "Rollout shows no causes."})
    why.part("method").locator("label", has_text="Rollout").click()
    why.says("note", "Rollout shows no causes.")
    assert why.asked() == [["wordMap", "r", spec("rollout", sinks=False)]]
    assert why.text("scaleHigh") == "0.984"
    assert why.part("over").is_hidden()
    why.word(4).click()
    why.says("title", "“pizza”: rollout")
    why.page.wait_for_function("window.said.length === 2")
    why.word(1).click()
    why.says("title", "“dog”: rollout")
    why.settle()
    assert len(why.asked()) == 2


def test_an_error_of_the_server_stands_in_place_of_the_note(why):
    why.set(payload(), wordMap={"error": "Take a smaller picture."})
    why.part("method").locator("label", has_text="Relevancy").click()
    why.says("note", "Take a smaller picture.")
    assert "view-bad" in why.part("note").get_attribute("class")
    why.part("method").locator("label", has_text="Attention").click()
    why.says("note", "Attention does not show everything.")
    assert "view-bad" not in why.part("note").get_attribute("class")


def test_without_a_server_only_maps_in_the_file_are_shown(why):
    kept = {"spec": spec("rollout", sinks=False), "map": {"values": floats(MAP), "note": "Kept."}, "score": score()}
    why.set(payload(maps=[kept]))
    why.part("method").locator("label", has_text="Rollout").click()
    why.says("note", "Kept.")
    why.says("score", "Insertion 0.700")
    why.part("method").locator("label", has_text="Relevancy").click()
    why.says("note", "This file has no model")


def test_a_test_of_the_map_is_asked_for_and_compared_with_a_random_map(why):
    why.set(payload(run="r"), testMap=score(0.7, 0.1))
    why.part("test").click()
    why.says("score", "Insertion 0.700 (random map 0.400; higher is better), deletion 0.100 (random map 0.350; lower is better)")
    assert why.text("score").endswith("Better than a random map by both.")
    assert why.part("test").is_hidden()
    why.word(4).click()
    why.says("title", "“pizza”")
    assert why.text("score") == ""
    why.part("test").wait_for()


def test_where_a_test_is_quick_it_needs_no_click(why):
    why.set(payload(quick=True), testMap=score(0.3, 0.4))
    why.says("score", "Not better than a random map: do not read it as evidence.")


def test_where_only_means_were_sent_a_head_is_fetched(why):
    why.set(payload(complete=False, run="r"), wordMap={"values": floats(MAP), "note": "One head."})
    why.part("matrix").focus()
    why.page.keyboard.press("Enter")
    why.says("note", "One head.")
    assert why.asked()[0] == ["wordMap", "r", spec(layer=0, head=0, sinks=False)]


def test_patches_are_crossed_out_by_drawing_and_the_answer_without_them_is_asked_for(why):
    why.set(payload(run="r"), whatIf=what_if())
    assert why.part("tryIt").is_disabled()
    why.part("pick").click()
    start, end = why.patch(9), why.patch(11)
    why.page.mouse.move(*start)
    why.page.mouse.down()
    why.page.mouse.move(*end)
    why.page.mouse.up()
    why.says("whatCount", "3 patches crossed out")
    why.part("tryIt").click()
    why.says("after", "a cat and a pizza.")
    [(name, run, asked)] = why.asked()
    assert (name, run, asked["how"]) == ("whatIf", "r", "knockout")
    assert sorted(asked["positions"]) == [13, 14, 15]  # the first patch stands at 4
    assert why.part("before").locator("del").inner_text() == "dog"
    assert why.part("after").locator("ins").inner_text() == "cat"
    assert why.part("whatResult").evaluate("node => node.inert") is False
    fell = why.part("odds").locator(".attention-fell")
    assert " ".join(fell.inner_text().split()) == "␣dog 90.0 % → 0.1 % KL 5.200"


def test_an_answer_to_another_choice_is_dimmed(why):
    why.set(payload(), whatIf=what_if())
    why.part("bright").click()
    why.part("tryIt").click()
    why.says("after", "a cat and a pizza.")
    dimmed = "() => document.querySelector('.attention [data-part=whatResult]').inert === true"
    why.part("how").locator("label", has_text="zero").click()
    why.page.wait_for_function(dimmed)
    why.part("how").locator("label", has_text="cannot be read").click()
    why.page.wait_for_function(dimmed.replace("true", "false"))
    why.part("none").click()
    why.page.wait_for_function(dimmed)


def test_patches_by_keys_and_what_the_map_says_matters(why):
    why.set(payload(), whatIf=what_if())
    why.part("pick").click()
    why.page.keyboard.press("Enter")
    why.page.keyboard.press("Shift+ArrowRight")
    why.says("live", "row 1, column 2: crossed out; 2 in all")
    why.page.keyboard.press("Escape")
    why.until("picking", False)
    why.part("none").click()
    why.says("whatCount", "No patch chosen yet.")
    why.part("bright").click()
    why.says("whatCount", "patches crossed out")
    count = why.page.evaluate("""() => {
      const { map, top, chosen } = document.querySelector('.attention').__attention;
      return [[...map].filter((v) => v >= top / 2).length, chosen.size];
    }""")
    assert count[0] == count[1] > 3


def test_an_answer_that_stays_is_said_to_stay_and_an_error_is_shown(why):
    same = what_if(changed=what_if()["plain"], diff=[{"op": "equal", "plain": "a dog and a pizza.", "steered": "a dog and a pizza."}])
    why.set(payload(), whatIf=same)
    why.part("bright").click()
    why.part("how").locator("label", has_text="zero").click()
    why.part("tryIt").click()
    why.says("whatAbout", "The answer stays the same")
    assert why.asked()[0][2]["how"] == "zero"
    why.set(payload(), whatIf={"error": "Choose fewer patches."})
    why.part("bright").click()
    why.part("tryIt").click()
    why.says("whatNote", "Choose fewer patches.")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            fewest(),
            "Without these 2 patches “cat” becomes the likeliest word; “dog” falls from 90.0 % to 20.0 %. 127 sets of patches tried.",
        ),
        (fewest(flipped=False, instead=None), "“dog” stays the likeliest word even without these 2 patches"),
        (fewest(positions=[], flipped=False, instead=None, after=0.9), "“dog” is said without the picture, too."),
        ({"error": "Choose another word."}, "Choose another word."),
    ],
    ids=["flipped", "stays", "without", "error"],
)
def test_the_fewest_patches_that_flip_a_word_are_crossed_out(why, found, said):
    why.set(payload(run="r"), whatIf=what_if(), fewest=found)
    why.part("fewest").click()
    why.says("whatNote", said)
    assert why.asked() == [["fewest", "r", 1]]
    assert why.page.evaluate("[...document.querySelector('.attention').__attention.chosen]") == found.get("positions", [])


def test_information_flow_is_traced_on_request_and_belongs_to_one_word(why):
    why.set(payload(run="r"), wordFlow=flow())
    why.part("flowWindow").fill("3")
    assert why.text("flowWindowOut") == "3 layers"
    why.part("flowGo").click()
    why.says("flowSaid", "“dog”: change of its probability when 2 layers around this one cannot read that way.")
    assert why.asked() == [["wordFlow", "r", {"token": 1, "window": 3, "positions": []}]]
    assert [why.part("flowKey").locator("span").nth(i).inner_text() for i in range(3)] == ["image→prompt", "image→last", "prompt→last"]
    why.part("flowMeasure").locator("label", has_text="Log-odds").click()
    why.says("flowSaid", "change of its log-odds")
    why.part("flowCurve").hover(position={"x": 43, "y": 40})
    why.says("flowKey", "image→prompt \N{MINUS SIGN}3.00")
    why.word(4).click()
    why.part("flowResult").wait_for(state="hidden")


def test_a_word_handed_over_by_another_view(why):
    made = payload()
    why.set(made)
    of = {"image": made["image"]["src"], "prompt": made["prompt"], "answer": made["answer"]}
    hand = "(detail) => document.dispatchEvent(new CustomEvent('llava:word', { detail, cancelable: true }))"
    assert why.page.evaluate(hand, {"token": 4, "of": of}) is False  # taken
    assert why.state("token") == 4
    assert why.page.evaluate(hand, {"token": 2, "of": of | {"prompt": "another"}}) is True
    assert why.state("token") == 4


def test_texts_of_the_model_never_become_markup(why):
    made = payload(prompt=ATTACK, model=ATTACK, answer=ATTACK, notes=[ATTACK], limits=ATTACK)
    made["tokens"] = {**made["tokens"], "text": [ATTACK] * len(made["tokens"]["text"])}
    why.set(made)
    why.word(2).click()
    why.settle()
    assert why.page.evaluate("window.pwned") is None
    assert ATTACK.strip() in why.text("title")


def test_a_png_of_the_map_says_what_it_is(why):
    why.set(payload())
    with why.page.expect_download() as started:
        why.part("png").click()
    assert started.value.suggested_filename == "attention-dog.png"
    assert started.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_damaged_payload_says_so(why):
    why.page.evaluate("(made) => document.querySelector('.attention').__view.set(made)", payload(rows="AAAA"))
    why.says("empty", "The data of this view is damaged: rows has 3 bytes")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_sticks_out_on_a_phone(phone, theme):
    phone.page.emulate_media(color_scheme=theme)
    phone.set(payload(layers=32, heads=32, side=6))
    phone.settle()
    assert phone.root.get_attribute("data-theme") == theme
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.word(4).tap()
    phone.says("title", "“pizza”")


def test_the_tab_explains_the_run_on_the_page_and_the_lens_hands_words_over(app_page):
    page = app_page
    page.get_by_role("tab", name="Why this word?").click()
    page.wait_for_selector(".attention[data-ready]", timeout=60_000)
    why = Why(page)
    assert why.text("title") == "“dog”: attention, mean over all layers and heads"
    why.part("method").locator("label", has_text="Activation map").click()
    why.says("note", "would say this word themselves")
    why.says("score", "random map")
    page.get_by_role("tab", name="Lens").click()
    line = page.locator(".lens tbody tr", has_text="→ ␣pizza")
    line.locator("td").first.click()
    page.locator(".lens [data-part=explain]").click()
    why.says("title", "“pizza”: activation map")
    code = page.locator(".tabitem:visible .cm-content")
    page.get_by_role("button", name="Do this from Python").last.click()
    code.filter(has_text="method='activation_map'").wait_for()
    code.filter(has_text="token=4").wait_for()


def test_the_downloads_hold_all_words_and_the_maps_that_were_looked_at(app_page, tmp_path, chromium):
    page = app_page
    page.get_by_role("tab", name="Why this word?").click()
    page.wait_for_selector(".attention[data-ready]", timeout=60_000)
    why = Why(page)
    why.word(4).click()
    why.part("method").locator("label", has_text="Rollout").click()
    why.says("title", "“pizza”: rollout")
    why.says("score", "random map")
    files = {}
    for kind in ("json", "html"):
        with page.expect_download() as download:
            page.click(f"#make-why-{kind}")
        files[kind] = tmp_path / f"why.{kind}"
        download.value.save_as(files[kind])
    found = json.loads(files["json"].read_text(encoding="utf-8"))
    assert [token["text"].strip() for token in found["tokens"]][:5] == ["a", "dog", "and", "a", "pizza"]
    alone = chromium.new_page()
    alone.goto(files["html"].as_uri())
    kept = Why(alone)
    kept.word(4).click()
    kept.part("method").locator("label", has_text="Rollout").click()
    kept.says("score", "random map")
    kept.part("method").locator("label", has_text="Knockout").click()
    kept.says("note", "This file has no model")
    alone.close()


def test_a_link_opens_on_the_word_and_the_method(app_page, open_page):
    page = app_page
    page.get_by_role("tab", name="Why this word?").click()
    page.wait_for_selector(".attention[data-ready]", timeout=60_000)
    why = Why(page)
    why.word(7).click()
    why.part("method").locator("label", has_text="Relevancy").click()
    code = page.locator(".tabitem:visible .cm-content")
    if not code.count():
        page.locator(".tabitem:visible").get_by_text("Do this from Python").click()
    code.filter(has_text="relevancy").filter(has_text="token=7").wait_for(state="attached")
    page.locator("#why-share").click()
    link = page.locator("#why-link textarea, #why-link input")
    page.wait_for_function("(node) => node.value.includes('state=')", arg=link.element_handle())
    opened = Why(open_page("/?" + link.input_value().split("?")[1], ready=".attention[data-ready]"))
    opened.says("title", "“blue”: relevancy")


def test_the_test_of_a_map_is_not_shown_under_another(why):
    why.set(payload(quick=True), testMap=score(0.7, 0.1))
    why.says("score", "Insertion 0.700")
    why.word(4).hover()
    why.says("title", "“pizza”")
    assert why.text("score") == ""
    assert why.part("test").is_hidden()
    why.page.mouse.move(5, 5)
    why.says("score", "Insertion 0.700")
