"""The lens view in a real browser: the standalone file opened from disk, and once the component in a gradio page.

Every expectation is computed here from the payload, by `Expected`, not by the view. Waits are on conditions, never on time.
"""

from __future__ import annotations

import base64
import io

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from interp.errors import InterpError
from interp.ui.components.lens_view import LensView
from interp.web.standalone import standalone_html
from tests.browser.conftest import LAUNCH
from tests.browser.view import Opened
from tests.web.lens_payload import NOUNS, Expected, b64, look, payload, quantise, reading, struct_pack

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
BLUE = (64, 120, 200)


class Lens(Opened):
    """One opened view: where its patches are, and what it shows."""

    KIND = "lens"

    def __init__(self, page, made):
        super().__init__(page)
        self.made, self.expected = made, Expected(made)

    def ready(self):
        self.page.wait_for_selector(".lens[data-ready]")
        return self

    def text(self, name):
        return self.part(name).inner_text()

    def shown_words(self):
        return self.root.evaluate("""root => [...root.querySelectorAll("[data-part=top] .view-token")].map(
            (node) => [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join(""))""")

    def says(self, layer, row):
        """The readout shows the words of this layer and row."""
        self.settle()
        assert self.shown_words() == [look(word) for word in self.expected.words(layer, row)]
        return True

    def slide(self, name, value):
        self.part(name).evaluate("(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", str(value))
        self.settle()

    def choose(self, text):
        self.root.get_by_role("radio", name=text, exact=True).check()
        self.settle()

    def pixels(self, canvas="base"):
        """The canvas as an array [height, width, 4] in CSS pixels."""
        url = self.part(canvas).evaluate("(canvas) => canvas.toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))

    def pixel(self, index, canvas="base", fx=0.5, fy=0.1, grid=0):
        """Colour inside a patch, by default above its word."""
        place = self.at(index, grid, fx, fy)
        return self.pixels(canvas)[int(place["y"]), int(place["x"])]


@pytest.fixture
def open_lens(page_of, tmp_path_factory):
    """open_lens(payload, fresh=False, **context options): the view in the standalone page. A `fresh` page is the payload's own file."""

    def open_payload(made, *, fresh=False, **context):
        path = tmp_path_factory.mktemp("lens") / "lens.html"

        def load(page):
            path.write_text(standalone_html(made), encoding="utf-8")
            page.goto(path.as_uri())

        lens = Lens(page_of(load, fresh=fresh, **context), made)
        if not path.exists():
            lens.set(made)
        return lens.ready()

    return open_payload


@pytest.fixture
def lens(open_lens):
    return open_lens(payload())


def test_opens_at_the_default_layer_with_words_on_show_and_no_request(open_lens):
    lens = open_lens(payload(), fresh=True)
    assert lens.state("layer") == lens.made["default"]
    assert lens.text("layerOut") == "5 of 7"
    assert lens.text("why") == lens.made["why_default"]
    assert lens.text("answer") == lens.made["answer"]
    assert not lens.part("cut").is_visible()
    strongest = max(lens.expected.rows(), key=lambda row: lens.expected.probability(6, row))
    assert lens.says(6, strongest)
    assert [url for url in lens.page.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("index", [0, 5, 8, 27, 63])
def test_hover_reads_the_patch_under_the_pointer_without_a_request(open_lens, index):
    # A crop out of a wide picture: the patches cover only its middle, and not in steps of the canvas.
    lens = open_lens(payload(width=320, height=200, seen=[70, 10, 250, 190]))
    before = len(lens.page.requests)
    lens.hover(index)
    row = lens.expected.rows()[index]
    assert lens.says(6, row)
    assert lens.state("hover") == row
    assert f"row {index // 8 + 1}, column {index % 8 + 1}" in lens.text("where")
    percent = lens.part("top").locator(".view-percent").first.inner_text()
    assert abs(float(percent.strip("<> %")) - 100 * lens.expected.probability(6, row)) < 1
    entropy = base64.b64decode(lens.made["entropy"])[6 * lens.expected.steps + row] / 255 * lens.made["max_entropy"]
    assert f"{entropy:.2f} nats" in lens.text("numbers")
    assert len(lens.page.requests) == before


def test_outside_of_the_patches_nothing_is_hovered(open_lens):
    lens = open_lens(payload(width=320, height=200, seen=[70, 10, 250, 190]))
    lens.hover(0)
    lens.part("stage").hover(position={"x": 5, "y": 5})
    lens.settle()
    assert lens.state("hover") is None


def test_layer_slider_changes_words_and_picture(lens):
    lens.hover(10)
    row = lens.expected.rows()[10]
    assert lens.says(6, row)
    before = lens.pixel(10)
    lens.slide("layer", 0)
    assert lens.text("layerOut") == "embed of 7"
    assert lens.says(0, row)
    assert not np.array_equal(lens.pixel(10), before)
    assert lens.part("layer").get_attribute("aria-valuetext") == "embed"


def test_click_locks_and_second_click_or_escape_unlocks(lens):
    rows = lens.expected.rows()
    lens.click(9)
    assert lens.state("locked") == rows[9]
    assert "locked" in lens.text("where")
    lens.hover(50)
    assert lens.says(6, rows[9])
    lens.click(50)
    assert lens.state("locked") == rows[50]
    lens.click(50)
    assert lens.state("locked") is None
    lens.hover(20)
    assert lens.says(6, rows[20])
    lens.click(20)
    lens.page.keyboard.press("Escape")
    assert lens.state("locked") is None


def test_keyboard_moves_locks_and_speaks(lens):
    rows = lens.expected.rows()
    lens.hover(0)
    lens.part("stage").focus()
    for key, index in [("ArrowRight", 1), ("ArrowDown", 9), ("ArrowLeft", 8), ("ArrowLeft", 8), ("ArrowUp", 0), ("ArrowUp", 0)]:
        lens.page.keyboard.press(key)
        assert lens.state("hover") == rows[index], key
    assert lens.says(6, rows[0])
    lens.page.keyboard.press("Enter")
    assert lens.state("locked") == rows[0]
    lens.page.keyboard.press("ArrowRight")
    assert lens.state("locked") == rows[1]
    lens.settle()
    assert lens.part("live").inner_text().startswith("row 1, column 2, locked, layer 5: blue")


def test_keys_within_one_frame_are_steps_each(lens):
    lens.hover(0)
    lens.part("stage").evaluate(
        "(node) => { for (let i = 0; i < 3; i++) node.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' })); }"
    )
    assert lens.state("hover") == lens.expected.rows()[3]


def test_keyboard_steps_over_patches_with_no_picture(open_lens):
    made = payload()
    boxes = list(memoryview(base64.b64decode(made["grids"][0]["boxes"])).cast("f"))
    boxes[4:12] = [0.0] * 8  # the second and third patch of the first row
    made["grids"][0]["boxes"] = b64(struct_pack("f", boxes))
    lens = open_lens(made)
    lens.hover(0)
    lens.part("stage").focus()
    lens.page.keyboard.press("ArrowRight")
    assert lens.state("hover") == lens.expected.rows()[3]


def test_a_tap_locks(open_lens):
    lens = open_lens(payload(), viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True)
    lens.part("stage").tap(position=lens.at(30))
    assert lens.state("locked") == lens.expected.rows()[30]
    assert lens.says(6, lens.expected.rows()[30])


def test_minimum_probability_dims_the_patches_below_it(lens):
    before = lens.pixels()
    lens.slide("min", 75)
    least = 0.75**2
    below = [i for i, row in enumerate(lens.expected.rows()) if lens.expected.probability(6, row) < least]
    assert 0 < len(below) < 64
    assert f"Dimmed: {len(below)} of 64" in lens.text("pictureNote")
    after = lens.pixels()
    changed = []
    for i, place in enumerate(lens.places(fy=0.1)):
        spot = int(place["y"]), int(place["x"])
        if not np.array_equal(before[spot], after[spot]):
            changed.append(i)
            assert after[spot][:3].sum() < before[spot][:3].sum()
    assert changed == below


def test_colouring_none_shows_the_picture_and_entropy_another_scale(lens):
    by_probability = lens.pixel(7)
    lens.choose("None")
    assert np.abs(lens.pixel(7)[:3].astype(int) - BLUE).max() <= 2
    lens.choose("Entropy")
    assert "nats" in lens.text("scaleHigh")
    assert not np.array_equal(lens.pixel(7), by_probability)
    assert lens.part("colour").locator("[value=found]").is_disabled()


def test_what_the_model_did_not_see_is_grey(open_lens):
    lens = open_lens(payload(width=320, height=200, seen=[70, 0, 270, 200]))
    lens.choose("None")
    pixels = lens.pixels()[..., :3].astype(int)
    scale = pixels.shape[1] / 320
    for x, grey in [(5, True), (64, True), (76, False), (262, False), (276, True), (315, True)]:
        r, g, b = pixels[int(195 * scale), int(x * scale)]
        assert (max(r, g, b) - min(r, g, b) < 20) == grey, x


def test_legend_counts_words_and_outlines_their_patches(lens):
    tops = [lens.expected.words(6, row)[0] for row in lens.expected.rows()]
    counts = sorted(((tops.count(word), word) for word in set(tops)), reverse=True)
    buttons = lens.part("legend").locator("button")
    assert ["".join(text.split()) for text in buttons.all_inner_texts()] == [f"␣{word.strip()}{count}" for count, word in counts]

    def outlined():
        lens.settle()
        pixels = lens.pixels("marks")
        return {i for i, place in enumerate(lens.places(fy=0.04)) if pixels[int(place["y"]), int(place["x"])][3] > 0}

    def patches(*words):
        return {i for i, top in enumerate(tops) if top in words}

    assert outlined() == set()
    buttons.nth(1).click()
    assert outlined() == patches(counts[1][1])
    buttons.nth(2).click()
    assert outlined() == patches(counts[1][1], counts[2][1])
    assert buttons.nth(1).get_attribute("aria-pressed") == "true"
    buttons.nth(1).click()
    assert outlined() == patches(counts[2][1])
    assert buttons.nth(1).get_attribute("aria-pressed") == "false"


def test_curve_leaves_gaps_where_the_word_is_not_stored(lens):
    lens.hover(12)
    lens.settle()
    row = lens.expected.rows()[12]
    word = lens.expected.words(6, row)[0]
    gaps = sum(word not in lens.expected.words(layer, row) for layer in range(9))
    assert gaps > 0
    assert lens.part("curve").locator(".view-gap").count() == gaps
    line = lens.part("curve").locator("path").get_attribute("d")
    assert "NaN" not in line
    assert line.count(",") == 9 - gaps
    assert f"not in the top 5 at {gaps} of 9 layers" in lens.text("curveNote")


def test_search_without_a_model_is_over_the_stored_words_and_says_so(lens):
    assert "only words among the stored top 5 can be found" in lens.text("findNote")
    lens.part("word").fill(" Dog ")
    lens.part("findGo").click()
    lens.settle()
    assert lens.state("colour") == "found"
    # every spelling counts: with and without the leading space
    steps, row = lens.expected.steps, lens.expected.rows()[9]
    for layer in range(9):
        wanted = sum(
            lens.expected.probability(layer, row, j) for j, text in enumerate(lens.expected.words(layer, row)) if text.strip() == "dog"
        )
        found = lens.root.evaluate("(root, i) => { const v = root.__lens.found.values[i]; return v || 0; }", layer * steps + row)
        assert found == pytest.approx(wanted, abs=1e-6)
    assert "“ dog”" in lens.text("findNote")
    assert "“dog”" in lens.text("findNote")
    lens.hover(9)
    lens.settle()
    assert "highest patch" in lens.text("findKey")
    dog, sky = lens.pixel(9)[:3], lens.pixel(7)[:3]
    assert not np.array_equal(dog, sky)
    lens.part("word").fill("zebra")
    lens.part("word").press("Enter")
    assert "“zebra” is nowhere among the stored top 5" in lens.text("findNote")
    assert lens.part("word").get_attribute("aria-invalid") == "true"
    lens.settle()
    assert lens.state("colour") == "probability"


def test_token_table_labels_both_tokens_and_collapses_the_image(lens):
    labels = [" ".join(text.split()) for text in lens.part("tableBody").locator("th").all_inner_texts()]
    texts, kinds = lens.made["tokens"]["text"], lens.made["tokens"]["kind"]
    assert len(labels) == sum(kind != "i" for kind in kinds[:-1]) + 1
    assert labels[0] == "<s> → USER"
    assert labels[4] == "[64 image patches]"
    assert labels[5] == "↵ → Describe"
    assert labels[-1] == "“.” → </s>"
    assert texts[-1] == "</s>"
    cells = lens.part("tableBody").locator("tr[data-i='6'] td").all_inner_texts()
    row = texts.index("Describe")
    assert cells == [look(lens.expected.words(layer, row)[0]) for layer in range(9)]


def test_table_marks_where_the_last_word_comes_on_top(lens):
    first = base64.b64decode(lens.made["first"])
    for i, row in [(0, 0), (6, 69), (12, 75)]:
        marked = lens.part("tableBody").locator(f"tr[data-i='{i}'] td.lens-first")
        assert marked.count() == 1
        assert marked.get_attribute("data-l") == str(first[row])


def test_ids_of_four_bytes(open_lens):
    made = payload()
    wide = {**made, "ids": b64(struct_pack("I", Expected(made).ids)), "ids_bytes": 4}
    lens = open_lens(wide)
    lens.expected = Expected(made)
    lens.hover(9)
    assert lens.says(6, lens.expected.rows()[9])


def test_table_and_picture_follow_each_other(lens):
    row = lens.made["tokens"]["text"].index(" the")
    cell = lens.part("tableBody").locator("tr", has_text="→ ␣image").locator("td[data-l='2']")
    cell.hover()
    assert lens.says(2, row)
    assert lens.state("layer") == 6
    assert "preview" in lens.text("layerOut")
    assert lens.text("legendKey") == "most frequent at layer 5"
    cell.click()
    assert lens.state("layer") == 2
    assert lens.state("locked") == row
    assert lens.part("layer").input_value() == "2"
    lens.page.mouse.move(0, 0)
    assert lens.says(2, row)
    cell.click()
    assert lens.state("locked") is None
    # the other way: the image row shows the hovered patch
    lens.hover(9)
    lens.settle()
    shown = lens.part("tableBody").locator(".lens-image-row td").all_inner_texts()
    patch = lens.expected.rows()[9]
    assert shown[-1] == "dog"
    assert lens.expected.words(8, patch)[0] == " dog"
    assert lens.part("tableBody").locator("tr.lens-here").get_attribute("data-i") == "4"
    lens.page.mouse.move(0, 0)  # on the way to the table the pointer leaves the picture: the row still stands for the patch it shows
    lens.settle()
    lens.part("tableBody").locator(".lens-image-row td[data-l='1']").click()
    assert lens.state("locked") == patch
    assert lens.state("layer") == 1


def test_the_page_does_not_move_under_a_pointer_on_the_table(open_lens):
    # One column: the readout stands above the table and would push it.
    lens = open_lens(payload(k=3), viewport={"width": 640, "height": 900})
    lens.slide("min", 20)
    tops = set()
    # Not with the mouse: a page that moves brings the pointer to another row, which may move it back.
    for row, layer in [(0, 0), (20, 1), (69, 3), (72, 8), (75, 0), (78, 7)]:
        lens.root.evaluate("(root, [row, layer]) => root.__view.point(row, layer)", [row, layer])
        lens.settle()
        tops.add(lens.part("scroller").evaluate("(node) => node.offsetTop"))
    assert len(tops) == 1


def test_table_is_reachable_by_keyboard(lens):
    lens.part("scroller").focus()
    lens.part("tableBody").locator("tr[data-i='6'] td[data-l='3']").hover()
    lens.settle()
    lens.page.keyboard.press("ArrowDown")
    lens.settle()
    lens.page.keyboard.press("ArrowRight")
    lens.settle()
    row = lens.made["tokens"]["text"].index(" the")
    assert lens.state("hover") == row
    assert lens.state("preview") == 4
    lens.page.keyboard.press("Enter")
    assert lens.state("locked") == row
    assert lens.state("layer") == 4


def test_a_long_table_keeps_only_the_rows_in_sight(open_lens):
    lens = open_lens(payload(extra_prompt=2500, layers=3))
    lines = lens.part("tableBody").locator("tr[data-i]")
    assert lines.count() < 80
    lens.part("scroller").evaluate("(node) => { node.scrollTop = node.scrollHeight; }")
    last = len(lens.made["tokens"]["kind"]) - 1 - 64
    lens.part("tableBody").locator(f"tr[data-i='{last}']").wait_for()
    assert " ".join(lines.last.locator("th").inner_text().split()) == "“.” → </s>"
    assert lines.count() < 80
    # the spacers stand for the rows that are left out, and every row is as high as the code says
    height = lens.part("scroller").evaluate("(node) => node.querySelector('table').offsetHeight")
    assert height == 26 * (last + 2)


def test_mask_blacks_out_silent_patches_and_is_saved(lens, tmp_path):
    # Rows on which the top word is blank, punctuation or a piece of a character, at a layer that has such ones.
    lens.slide("layer", 4)
    lens.root.get_by_label("mask").check()
    lens.slide("min", 30)
    looks = {" ", "\n", ",", "<0xE2>", ":", ".", ""}
    silent = {
        i
        for i, row in enumerate(lens.expected.rows())
        if lens.expected.words(4, row)[0] in looks or lens.expected.probability(4, row) < 0.09
    }
    assert 0 < len(silent) < 64
    pixels = lens.pixels()
    black = set()
    for i, place in enumerate(lens.places()):
        if pixels[int(place["y"]), int(place["x"])][:3].max() == 0:
            black.add(i)
    assert black == silent
    assert f"Black: {len(silent)} of 64" in lens.text("pictureNote")
    with lens.page.expect_download() as saving:
        lens.part("pngMask").click()
    saving.value.save_as(tmp_path / "mask.png")
    saved = Image.open(tmp_path / "mask.png").convert("RGB")
    assert saved.size == (96, 96)
    assert {i for i in range(64) if max(saved.getpixel((i % 8 * 12 + 6, i // 8 * 12 + 6))) == 0} == silent
    kept = min(set(range(7)) - silent)
    assert saved.getpixel((kept * 12 + 6, 3)) == BLUE


def test_the_view_is_saved_as_seen(lens, tmp_path):
    with lens.page.expect_download() as saving:
        lens.part("pngView").click()
    assert saving.value.suggested_filename == "logit-lens-layer-5.png"
    saving.value.save_as(tmp_path / "view.png")
    saved = np.asarray(Image.open(tmp_path / "view.png").convert("RGB")).astype(int)
    side = saved.shape[1]
    assert side >= 1024
    assert saved.shape[0] > side + 20  # the caption says what it shows
    shown = lens.pixel(7)[:3].astype(int)
    assert np.abs(saved[int(side / 8 * 0.1), int(side / 8 * 7.5)] - shown).max() <= 3


METHODS = [
    {"key": "logit", "name": "Logit lens", "about": "Reads what comes next."},
    {"key": "embedding", "name": "Embedding lens", "about": ATTACK},
    {"key": "tuned", "name": "Tuned lens", "about": "Fails."},
]


@pytest.fixture
def switched(open_lens):
    """A view whose server reads with the embedding lens, fails with the tuned one and has maps; `window.asked` counts its questions."""
    lens = open_lens(payload(methods=METHODS, missing="Train one."))
    lens.page.evaluate(
        """([made, other, map]) => {
            window.asked = [];
            window.chosen = null;
            const view = document.querySelector(".lens").__view;
            const server = {
                readLens: async (method) => { asked.push(method); return method === "tuned" ? { error: "It is gone." } : other; },
                findWord: async (word, method) => {
                    asked.push(`${method} ${word}`);
                    const L = made.layers.length, T = made.tokens.kind.length - 1;
                    const values = btoa(String.fromCharCode(...new Uint8Array(L * T).fill(128)));
                    return { spellings: [word], values, range: method === "logit" ? [0, 1] : [-0.2, 0.2] };
                },
                wordMap: async ({ method, token }) => { asked.push(`${method} ${token}`); return { values: map, note: "It shows little." }; },
                chose: (what) => { window.chosen = what; },
            };
            Object.assign(view.options, server);
            return view.set(made);
        }""",
        [lens.made, reading(), b64(struct_pack("f", [i / 8 for i in range(64)]))],
    )
    lens.ready()
    yield lens
    lens.page.evaluate("""() => {
        const { options } = document.querySelector(".lens").__view;
        for (const name of ["readLens", "findWord", "wordMap", "chose"]) delete options[name];
    }""")


def shows(lens, method):
    lens.page.wait_for_function("(method) => document.querySelector('.lens').__lens.method === method", arg=method)
    lens.settle()


def test_another_lens_keeps_place_layer_lock_and_word_and_is_asked_for_once(switched):
    lens, page = switched, switched.page
    lens.slide("layer", 4)
    lens.click(20)
    page.fill("[data-part=word]", "dog")
    page.click("[data-part=findGo]")
    page.wait_for_selector("[data-part=findCurve]:not([hidden])")
    row = lens.state("locked")
    lens.choose("Embedding lens")
    shows(lens, "embedding")
    page.wait_for_function("() => document.querySelector('.lens').__lens.found !== null")
    assert (lens.state("locked"), lens.state("readRow"), lens.state("layer")) == (row, row, 4)
    assert page.evaluate("asked") == ["logit dog", "embedding", "embedding dog"]
    expected = Expected(lens.made | reading())
    assert lens.shown_words() == [look(word) for word in expected.words(4, row)]
    assert lens.text("about") == ATTACK
    assert "reads here" in lens.text("whereSub")
    low, high = -0.1, 0.5
    stored = low + expected.q[(4 * expected.steps + row) * expected.k] / 255 * (high - low)
    assert lens.root.locator("[data-part=top] .view-percent").first.inner_text() == f"{stored:.2f}".replace("-", "\N{MINUS SIGN}")
    assert [text.strip() for text in lens.part("colour").locator("label").all_inner_texts()] == ["Similarity", "Found word", "None"]
    assert "→" not in lens.text("table")
    assert "entropy" not in lens.text("numbers")
    lens.choose("Logit lens")
    lens.choose("Embedding lens")
    lens.choose("Logit lens")
    shows(lens, "logit")
    assert page.evaluate("asked.length") == 3
    assert lens.says(4, row)
    assert "→" in lens.text("table")
    page.wait_for_function("chosen.method === 'logit'")
    assert page.evaluate("chosen") == {
        "model": "emoji-llava", "method": "logit", "layer": 3, "row": row, "token": None, "read": ["logit", "embedding"],
    }  # fmt: skip


def test_a_lens_that_fails_leaves_the_one_that_is_shown(switched):
    switched.root.get_by_role("radio", name="Tuned lens").click()
    switched.page.get_by_text("It is gone.").wait_for()
    assert switched.root.get_by_role("radio", name="Logit lens").is_checked()
    assert switched.says(6, switched.state("readRow"))
    assert switched.part("missingBox").is_visible()


def test_the_activation_map_colours_patches_by_the_chosen_word(switched):
    lens, page = switched, switched.page
    lens.click(63)
    before = lens.pixel(0).tolist()
    lens.choose("Activation map")
    page.get_by_text("It shows little.").wait_for()
    lens.settle()
    assert page.evaluate("asked") == ["activation_map 1"]  # the first content word
    assert lens.pixel(0).tolist() != before
    assert lens.pixel(63)[:3].sum() > lens.pixel(0)[:3].sum()  # brighter is more
    assert lens.root.locator("[data-part=top] .view-token").inner_text() == "␣dog"
    assert lens.root.locator("[data-part=top] .view-percent").inner_text() == "7.88"
    assert not lens.part("scroller").is_visible()
    lens.part("words").get_by_role("button", name="pizza").click()
    page.wait_for_function("asked.length === 2 && chosen.token === 4")
    lens.choose("Logit lens")
    shows(lens, "logit")
    assert lens.says(6, lens.state("locked"))


def test_a_file_holds_the_lenses_that_were_read(open_lens):
    lens = open_lens(payload(methods=METHODS[:2], others=[reading()], locked=9, default=3))
    assert (lens.state("locked"), lens.state("layer")) == (9, 3)
    lens.choose("Embedding lens")
    shows(lens, "embedding")
    assert lens.shown_words() == [look(word) for word in Expected(lens.made | reading()).words(3, 9)]
    assert lens.root.get_by_role("radio", name="Activation map").count() == 0


def test_contexts_stand_by_their_words_as_text(open_lens):
    steps = Expected(payload()).steps
    contexts = [{"before": f"{i} ", "word": ATTACK, "after": " barks", "layer": i - 1} for i in range(3)]
    found = reading(method="contextual", contexts=contexts, neighbours=b64(struct_pack("I", [i % 3 for i in range(9 * steps * 5)])))
    lens = open_lens(payload() | found | {"note": ATTACK}, fresh=True)
    assert lens.page.evaluate("() => window.pwned") is None
    at = (lens.state("layer") * steps + lens.state("readRow")) * 5
    rows = lens.part("contexts").locator("li").all_inner_texts()
    layers = ["input", "layer 0", "layer 1"]
    assert rows == [f"{i} {ATTACK} barks {layers[i]}" for i in ((at + j) % 3 for j in range(5))]
    assert lens.part("contexts").locator("b").first.inner_text() == ATTACK
    assert ATTACK in lens.text("notes")


def test_as_the_encoder_saw_it(open_lens):
    lens = open_lens(payload(width=320, height=200, seen=[60, 0, 260, 200]))
    lens.choose("As the encoder saw it")
    box = lens.part("base").bounding_box()
    assert box["width"] == box["height"]
    lens.part("stage").hover(position={"x": box["width"] * 2.5 / 8, "y": box["height"] * 5.5 / 8})
    lens.settle()
    assert lens.state("hover") == lens.expected.rows()[5 * 8 + 2]


def test_several_grids(open_lens):
    lens = open_lens(payload(grids=2))
    lens.part("grid").select_option("1")
    lens.settle()
    lens.hover(20, grid=1)
    assert lens.says(6, lens.expected.rows(1)[20])
    assert "grid 1" in lens.text("where")


def test_hostile_texts_stay_texts(open_lens):
    made = payload(prompt=ATTACK, answer=ATTACK, model=ATTACK, notes=[ATTACK], why_default=ATTACK, limits=ATTACK)
    made["vocab"] = [ATTACK if text in NOUNS else text for text in made["vocab"]]
    made["tokens"]["text"] = [ATTACK if i % 2 else text for i, text in enumerate(made["tokens"]["text"])]
    lens = open_lens(made, fresh=True)
    lens.hover(9)
    lens.settle()
    lens.part("tableBody").locator("td").nth(3).hover()
    lens.part("word").fill(ATTACK)
    lens.part("findGo").click()
    lens.part("word").fill("<img src=x onerror=window.pwned=1>zebra")
    lens.part("findGo").click()
    lens.settle()
    assert lens.root.locator("img, script, iframe").count() == 0
    assert lens.page.evaluate("() => window.pwned") is None
    assert lens.text("prompt") == ATTACK
    assert lens.text("answer") == ATTACK
    assert ATTACK in lens.page.title()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system(open_lens, scheme):
    lens = open_lens(payload(), color_scheme=scheme)
    assert lens.root.get_attribute("data-theme") == scheme
    ink, paper = lens.page.evaluate(
        """() => [getComputedStyle(document.querySelector('.lens')).color, getComputedStyle(document.body).backgroundColor]
            .map((text) => text.match(/\\d+/g).slice(0, 3).reduce((sum, v) => sum + Number(v), 0))"""
    )
    assert (paper > ink) == (scheme == "light")
    assert abs(paper - ink) > 450


def test_phone_width_has_no_sideways_scroll(open_lens):
    lens = open_lens(payload(side=24, layers=33, width=640, height=400), viewport={"width": 375, "height": 800})
    assert lens.page.evaluate("() => document.documentElement.scrollWidth") <= 375
    inside = lens.part("scroller").evaluate("(node) => [node.scrollWidth, node.clientWidth, node.scrollLeft]")
    assert inside[0] > 2 * inside[1]
    # the chosen layer's column is in sight, beside the first column, which stays
    head = lens.part("tableHead").locator("th.lens-here").bounding_box()
    first = lens.part("tableHead").locator("th").first.bounding_box()
    assert first["x"] >= 0
    assert first["x"] + first["width"] <= head["x"] + 1
    assert head["x"] + head["width"] <= 375


def test_notes_and_a_cut_answer_are_shown(open_lens):
    lens = open_lens(payload(finished=False, notes=["first of 12 frames"]))
    assert lens.part("cut").is_visible()
    assert "first of 12 frames" in lens.text("notes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": "AAAA"}, "probs has 3 bytes"),
        ({"schema": "other"}, "it was given other"),
        ({"image": {"src": "data:,", "width": 1, "height": 1}}, "picture"),
    ],
)
def test_damaged_data_is_said_in_words(lens, change, message):
    made = lens.made
    lens.set({**made, **change})
    lens.part("empty").wait_for()
    assert message in lens.text("empty")
    assert not lens.part("body").is_visible()
    assert lens.root.get_attribute("data-ready") is None
    # and the next payload works
    lens.set(made)
    lens.ready()
    assert lens.part("body").is_visible()


def test_a_second_payload_leaves_no_trace_of_the_first(lens):
    lens.click(9)
    lens.root.get_by_label("mask").check()
    lens.part("legend").locator("button").first.click()
    second = payload(side=6, layers=5, seed=3, prompt="second")
    lens.set(second)
    lens.ready().settle()
    assert lens.text("prompt") == "second"
    assert [lens.state(name) for name in ("locked", "mask", "outlined", "layer")] == [None, False, [], 3]
    other = Lens(lens.page, second)
    other.hover(20)
    assert other.says(3, other.expected.rows()[20])
    other.click(20)
    assert other.state("locked") == other.expected.rows()[20]  # one click, one listener
    lens.set(second)
    lens.ready().settle()
    row = second["tokens"]["text"].index("Describe")
    other.part("tableBody").locator("tr[data-i='6'] td[data-l='1']").click()
    assert other.state("locked") == row


@pytest.fixture
def page_of_gradio(page_of):
    first, second = payload(run="r1", prompt=ATTACK), payload(side=6, layers=5, seed=3, run="r2", prompt="second")
    asked = []

    def find_word(run, word, method):
        asked.append((run, word, method))
        if word == "two words":
            raise InterpError("Type one word.")
        if word == "crash":
            raise RuntimeError("/secret")
        values = bytearray(9 * 85)
        values[6 * 85 + 4 + 9] = quantise(0.5)
        return {"spellings": [" dog"], "values": b64(bytes(values)), "range": [0, 1]}

    with gr.Blocks() as demo:
        view = LensView(server_functions=[find_word])
        gr.Button("first").click(lambda: first, outputs=view)
        gr.Button("second").click(lambda: second, outputs=view)
        gr.Button("nothing").click(lambda: None, outputs=view)
    _, url, _ = demo.launch(**LAUNCH)
    yield page_of(lambda page: page.goto(url), fresh=True), first, second, asked
    demo.close()


def test_in_a_gradio_page(page_of_gradio):
    page, first, second, asked = page_of_gradio
    lens = Lens(page, first)
    lens.part("empty").wait_for()
    page.get_by_role("button", name="first").click()
    lens.ready().settle()
    assert lens.text("prompt") == ATTACK
    assert page.evaluate("() => window.pwned") is None
    assert lens.part("features").is_hidden()  # there is no such tab
    page.requests.clear()
    for index in (0, 9, 33, 63):
        lens.hover(index)
        assert lens.says(6, lens.expected.rows()[index])
    lens.click(9)
    assert [url for url in page.requests if "heartbeat" not in url] == []

    lens.part("word").fill("dog")
    lens.part("findGo").click()
    lens.part("findClear").wait_for()
    lens.settle()
    assert asked == [("r1", "dog", "logit")]
    assert lens.state("colour") == "found"
    assert lens.text("findKey").startswith("here 49 %")
    for word, answer in [("two words", "Type one word."), ("crash", "The server could not search")]:
        lens.part("word").fill(word)
        lens.part("findGo").click()
        lens.part("findNote").filter(has_text=answer).wait_for()
        assert "secret" not in lens.text("findNote")

    page.get_by_role("button", name="second").click()
    lens.part("prompt").filter(has_text="second").wait_for()
    other = Lens(page, second).ready()
    other.settle()
    assert other.state("locked") is None
    other.hover(20)
    assert other.says(3, other.expected.rows()[20])
    page.evaluate("() => document.body.classList.add('dark')")
    page.locator(".lens[data-theme=dark]").wait_for()
    page.get_by_role("button", name="nothing").click()
    lens.part("empty").wait_for()
