"""The steer view in a real browser: the component in a gradio page, with payloads made up by the tests and one of a real run.

Every expectation is computed here from the payload, not by the view. Waits are on conditions, never on time.
"""

from __future__ import annotations

import json
import queue
import re

import gradio as gr
import pytest

import interp
from interp.ui.components.steer_view import SteerView
from interp.web.payloads.steer import running_payload, steer_payload, sweep_payload
from tests import tiny
from tests.browser.conftest import LAUNCH, PHONE
from tests.browser.view import Opened
from tests.web.steer_payload import PLAIN, SETTINGS, VALUES, edit, long, payload, running, same, sweep, word

ATTACK = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
MINUS = "\N{MINUS SIGN}"
WORDS = [" a", " dog", " and", " a", " pizza"]
END = object()


class Steer(Opened):
    """One opened view, and what it shows."""

    KIND = "steer"

    def __init__(self, page, made):
        super().__init__(page)
        self.made = made

    def token(self, i):
        return self.part("tokens").locator("button").nth(i)

    def marked(self, name):
        return self.part(name).locator("del, ins").evaluate_all("(nodes) => nodes.map((node) => [node.tagName, node.textContent])")

    def cards(self):
        return self.part("points").locator("li")

    def card(self, value):
        return self.part("points").locator(f"li[data-index='{[point['value'] for point in self.made['sweep']['points']].index(value)}']")


@pytest.fixture(scope="module")
def site():
    """One gradio page for all tests. `steps`: what "stream" sends, one payload after the other, until END; `chosen`: what select told Python."""

    class Site:
        steps = queue.Queue()
        value = None

    def stream():
        while (step := Site.steps.get(timeout=20)) is not END:
            yield step

    def choose(event: gr.SelectData):
        return json.dumps([event.index, event.value])

    with gr.Blocks() as demo:
        view = SteerView()
        gr.Button("stream").click(stream, outputs=view, show_progress="hidden")
        gr.Button("show").click(lambda: Site.value, outputs=view)
        gr.Button("nothing").click(lambda: None, outputs=view)
        chosen = gr.Textbox(label="chosen", interactive=False)
        view.select(choose, None, chosen)
    _, Site.url, _ = demo.launch(**LAUNCH)
    yield Site
    demo.close()


@pytest.fixture
def open_page(site, page_of):
    """A page of the site; options as for `page_of`."""
    site.steps = queue.Queue()

    def load(page):
        page.goto(site.url)
        page.wait_for_function("() => document.querySelector('.steer')?.__view")

    yield lambda **options: page_of(load, **options)
    site.steps.put(END)


@pytest.fixture
def open_steer(open_page):
    def open_payload(made, **options):
        steer = Steer(open_page(**options), made).set(None).set(made)
        steer.settle()
        return steer

    return open_payload


@pytest.fixture
def steer(open_steer):
    return open_steer(payload(run="r1", sweep=sweep()))


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def test_empty_until_something_is_steered(open_page):
    steer = Steer(open_page(), None).set(None)
    assert steer.text("empty") == "Nothing steered yet."
    assert steer.root.get_attribute("data-ready") is None
    assert steer.root.get_attribute("data-state") is None
    assert not steer.state("ready")
    assert not steer.part("body").is_visible()


def test_opens_with_what_was_asked(steer):
    assert steer.text("prompt") == "Describe the image."
    assert steer.text("facts") == "emoji-llava · greedy · at most 32 tokens"
    assert steer.root.get_attribute("data-state") == "done"
    assert steer.root.get_attribute("data-ready") == "true"
    assert [steer.state(name) for name in ("ready", "run", "state", "changed", "token", "sweep")] == [True, "r1", "done", True, 1, "done"]
    steer.set(payload(notes=["trained on another model: gemma-2b"], settings={"max_new_tokens": 1, "temperature": 0.7, "seed": 12}))
    assert steer.text("facts") == "emoji-llava · temperature 0.7, seed 12, the same noise for both · at most 1 token"
    assert steer.text("notes") == "trained on another model: gemma-2b"


def test_differences_are_marked_on_both_sides_and_not_by_colour_alone(steer):
    assert steer.text("plain") == "a dog and a pizza on a blue background."
    assert steer.text("steered") == "a cat and a pizza on a background."
    assert steer.marked("plain") == [["DEL", "dog"], ["DEL", "blue"]]
    assert steer.marked("steered") == [["INS", "cat"]]
    assert "line-through" in steer.part("plain").locator("del").first.evaluate("(node) => getComputedStyle(node).textDecorationLine")
    assert "underline" in steer.part("steered").locator("ins").evaluate("(node) => getComputedStyle(node).textDecorationLine")
    assert steer.part("plain").locator(".view-same").first.inner_text().strip() == "a"
    assert steer.text("marks") == "removed added"
    assert steer.text("verdict") == ""


def test_pieces_of_blanks_alone_are_marked_by_signs(steer):
    pieces = [
        {"op": "equal", "plain": "a", "steered": "a"},
        {"op": "insert", "plain": "", "steered": "\n"},
        {"op": "equal", "plain": "b", "steered": "b"},
    ]
    steer.set(payload(plain={"text": "ab", "finished": True}, steered={"text": "a\nb", "finished": True}, diff=pieces))
    assert steer.marked("steered") == [["INS", "↵"]]
    assert steer.part("steered").inner_text() == "a↵\nb"


def test_no_change_is_said_in_one_line_with_the_largest_kl(steer):
    made = same()
    steer.set(made)
    assert steer.marked("plain") == steer.marked("steered") == []
    assert steer.part("plain").locator(".view-same").count() == 0
    assert not steer.part("marks").is_visible()
    assert steer.text("verdict") == "The edits changed no word. KL shows whether they changed anything at all: it is 0.0010 nats at most."
    steer.set({**made, "kl": [0] * len(made["kl"])})
    assert steer.text("verdict").endswith("it is 0 at every token.")
    assert steer.text("klSaid") == "Mean 0 nats over 11 tokens; largest 0 at ␣a. A full bar is 0.100 nats."


def test_answers_that_were_cut_are_marked(steer):
    made = payload(WORDS, [*WORDS, "</s>"])
    steer.set(made)
    assert steer.text("plainChips") == "cut at 32 tokens"
    assert steer.text("steeredChips") == ""
    assert steer.marked("plain") == steer.marked("steered") == []
    assert "the end" not in steer.token(4).get_attribute("title")
    steer.set(payload())
    assert steer.text("plainChips") == ""
    assert "the end of the answer" in steer.token(len(PLAIN) - 1).get_attribute("title")


def test_empty_answers_are_named(steer):
    steer.set(payload(["</s>"], ["</s>"], words=[]))
    assert steer.text("plain") == steer.text("steered") == "(empty answer)"
    assert not steer.part("wordsBox").is_visible()
    steer.set(payload(["</s>"], [" a", "</s>"], words=[]))
    assert steer.text("plain") == "(empty answer)"
    assert steer.marked("steered") == [["INS", "a"]]


def test_answers_grow_without_being_replaced(open_steer, site):
    steer = open_steer(None)
    button(steer.page, "stream").click()
    site.steps.put(running("a dog", "a"))
    steer.says("plain", "a dog")
    assert steer.root.get_attribute("data-state") == "running"
    assert steer.text("verdict") == "Answering …"
    assert not steer.part("results").is_visible()
    steer.page.evaluate(
        """() => {
          const root = document.querySelector('.steer'), part = (name) => root.querySelector(`[data-part=${name}]`);
          window.kept = [part('plain').firstChild, part('steered').firstChild];
          window.gone = 0;
          window.said = [];
          new MutationObserver((records) => records.forEach((r) => { window.gone += r.removedNodes.length; })).observe(part('plain').closest('section'), { childList: true, subtree: true });
          new MutationObserver((records) => { if (records.length && !root.dataset.ready) window.gone += 1000; }).observe(root, { attributes: true });
          new MutationObserver(() => window.said?.push(part('live').textContent)).observe(part('live'), { childList: true, characterData: true, subtree: true });
        }"""
    )
    for n in range(3, len(WORDS) + 1):
        site.steps.put(running("".join(WORDS[:n]).strip(), "".join(WORDS[: n - 1]).strip()))
        steer.says("plain", "".join(WORDS[:n]).strip())
    assert steer.text("steered") == "a dog and a"
    kept = (
        "() => ['plain', 'steered'].every((name, i) => document.querySelector(`.steer [data-part=${name}]`).firstChild === window.kept[i])"
    )
    assert steer.page.evaluate(kept)
    assert steer.page.evaluate("() => window.gone") == 0
    assert steer.page.evaluate("() => window.said") == []
    site.steps.put(payload(run="r7"))
    site.steps.put(END)
    steer.page.wait_for_selector(".steer[data-state=done]")
    assert steer.text("plain") == "a dog and a pizza on a blue background."
    assert steer.part("tokens").locator("button").count() == len(PLAIN)
    assert steer.state("run") == "r7"
    assert steer.page.evaluate("() => window.said") == ["Done. The answer changed."]


def test_a_fast_stream_ends_in_what_was_sent_last(open_steer, site):
    steer = open_steer(None)
    made = long(120)
    for n in range(0, 400, 2):
        site.steps.put(running(made["plain"]["text"][:n], made["steered"]["text"][: n // 2], sweep=sweep(state="running")))
    site.steps.put(made)
    site.steps.put(END)
    button(steer.page, "stream").click()
    steer.page.wait_for_selector(".steer[data-state=done]")
    assert steer.part("plain").evaluate("(node) => node.textContent.replaceAll('↵', '')") == made["plain"]["text"]
    assert steer.part("tokens").locator("button").count() == 120
    assert steer.cards().count() == 9


def test_a_new_pair_leaves_the_page_in_its_place_and_old_figures_out_of_reach(steer):
    steer.set(payload(sweep=sweep()))
    steer.part("points").scroll_into_view_if_needed()
    steer.settle()
    places = "() => [scrollY, ...['results', 'sweepBox', 'copy'].map((name) => document.querySelector(`.steer [data-part=${name}]`).getBoundingClientRect().y)]"
    before = steer.page.evaluate(places)
    assert before[0] > 0
    for text in ("", "a", "a dog"):
        steer.set(running(text, text, sweep=sweep()))
        steer.settle()
        assert steer.page.evaluate(places) == pytest.approx(before, abs=1)
    # the next run may bring no sweep yet, or one that starts anew
    for strip in (None, sweep(state="running", answer="")):
        steer.set(running("a", "a", sweep=strip))
        steer.settle()
        assert steer.page.evaluate(places) == pytest.approx(before, abs=1)
        assert steer.part("sweepBox").evaluate("(node) => node.inert") == (strip is None)
    assert steer.text("verdict") == "Answering … The figures below are still from the previous run."
    assert steer.part("results").get_attribute("aria-busy") == "true"
    assert steer.part("results").evaluate("(node) => node.inert && Number(getComputedStyle(node).opacity) < 0.5")
    assert steer.state("changed") is None
    steer.set(same(sweep=sweep()))
    assert steer.part("results").get_attribute("aria-busy") == "false"
    assert not steer.part("results").evaluate("(node) => node.inert")
    assert steer.text("klSaid").startswith("Mean 0.0005 nats")
    assert steer.part("plain").evaluate("(node) => node.style.minHeight") == ""


def test_a_stopped_run_keeps_its_texts_and_no_figures_of_another(steer):
    steer.set(running("a dog and", ""))
    steer.set(running("a dog and", "", state="stopped"))
    assert steer.root.get_attribute("data-state") == "stopped"
    assert steer.text("plain") == "a dog and"
    assert steer.text("steered") == "(nothing yet)"
    assert steer.text("plainChips") == steer.text("steeredChips") == "stopped"
    assert steer.text("verdict") == "Stopped before both answers were complete."
    assert steer.text("live") == "Stopped."
    assert not steer.part("results").is_visible()
    steer.set(running("a", ""))
    assert steer.text("verdict") == "Answering …"
    assert not steer.part("results").is_visible()


def bar_heights(steer):
    box = steer.token(0).locator(".steer-bar").bounding_box()["height"]
    return (
        steer.part("tokens")
        .locator(".steer-bar i")
        .evaluate_all("(bars, box) => bars.map((bar) => bar.getBoundingClientRect().height / box)", box - 1)
    )


def test_kl_bars_are_proportional_and_told_in_words(steer):
    kl = steer.made["kl"]
    assert bar_heights(steer) == pytest.approx([value / max(kl) for value in kl], abs=0.02)
    mean = sum(kl) / len(kl)
    assert steer.text("klSaid") == f"Mean {mean:.3f} nats over 11 tokens; largest 2.750 at ␣dog. A full bar is 2.750 nats."
    widths = steer.part("tokens").locator(".steer-bar i").evaluate_all("(bars) => bars.map((bar) => bar.getBoundingClientRect().width)")
    assert max(widths) == pytest.approx(min(widths), abs=0.1)
    assert "teacher-forced" in steer.part("results").inner_text()


def test_rounding_noise_does_not_look_like_an_effect(steer):
    made = same()
    steer.set(made)
    assert bar_heights(steer) == pytest.approx([value / 0.1 for value in made["kl"]], abs=0.02)
    assert steer.text("klSaid").endswith("A full bar is 0.100 nats.")


def percent(text):
    """The probability that a text such as "0.3 %" or "8.9·10⁻⁷ %" stands for."""
    figure = text.removesuffix(" %").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    mantissa, power, exponent = figure.rpartition("10-")
    return float(f"{mantissa.rstrip('·') or 1}e-{exponent}" if power else figure) / 100


def told(steer):
    there = dict(item.split("\n") for item in steer.part("there").locator("li").all_inner_texts())
    return steer.text("here"), steer.text("herePlace"), there


def test_hover_focus_and_click_read_a_token(steer):
    dog, cat = steer.made["words"]
    opened = told(steer)
    assert opened == ("␣dog KL 2.750 nats", "token 2 of 11", {"dog": "99.8 % → 0.3 %", "cat": opened[2]["cat"]})
    height = steer.part("results").bounding_box()["height"]
    steer.token(4).hover()
    steer.settle()
    assert told(steer)[:2] == (f"␣pizza KL {steer.made['kl'][4]:.4f} nats", "token 5 of 11")
    for name, made in (("dog", dog), ("cat", cat)):
        assert [percent(text) for text in told(steer)[2][name].split(" → ")] == pytest.approx(
            [made["plain"][4], made["steered"][4]], rel=0.06
        )
    assert steer.state("token") == 4
    assert steer.part("results").bounding_box()["height"] == height
    steer.page.mouse.move(5, 5)
    steer.settle()
    assert steer.state("token") == 1
    steer.token(10).click()
    steer.page.mouse.move(5, 5)
    steer.settle()
    assert told(steer)[1] == "token 11 of 11, the end of the answer"
    assert steer.token(10).get_attribute("aria-pressed") == "true"
    assert steer.part("tokens").locator("[aria-pressed=true]").count() == 1


def test_tokens_are_reached_and_read_by_keyboard(steer):
    assert steer.part("tokens").locator("[tabindex='0']").count() == 1
    steer.token(1).focus()
    for key, at in (("ArrowRight", 2), ("ArrowLeft", 1), ("End", 10), ("ArrowRight", 10), ("Home", 0), ("ArrowLeft", 0)):
        steer.page.keyboard.press(key)
        assert steer.state("token") == at
        assert steer.token(at).evaluate("(node) => node === document.activeElement && node.tabIndex === 0")
    assert steer.token(1).get_attribute("aria-label") == "dog: KL 2.750 nats"
    assert steer.token(10).get_attribute("aria-label").startswith("end of the answer: KL ")


def test_a_row_of_many_tokens_scrolls_to_the_one_that_is_read(open_steer):
    made = long()
    made["kl"] = [9.0 if i == 250 else 0.1 for i in range(256)]
    steer = open_steer(made, **PHONE)
    inside = "(node) => { const a = node.getBoundingClientRect(), b = node.parentNode.getBoundingClientRect(); return a.top >= b.top - 1 && a.bottom <= b.bottom + 1; }"
    assert steer.page.evaluate("() => scrollY") == 0
    assert steer.token(250).evaluate(inside)
    assert not steer.token(3).evaluate(inside)
    steer.token(250).focus()
    steer.page.keyboard.press("Home")
    assert steer.token(0).evaluate(inside)


def bars(path):
    """Heights of the bars of a path, as shares of the chart."""
    return [1 - float(top) / 60 for top in re.findall(r"V([\d.]+)H", path.get_attribute("d"))]


def test_words_are_pairs_of_bars_with_the_change_where_they_were_likeliest(steer):
    rows = steer.part("charts").locator(".steer-row:not(.steer-labels)")
    assert rows.count() == 2
    for row, made in zip(rows.all(), steer.made["words"], strict=True):
        plain, steered = row.locator("path").all()
        assert bars(plain) == pytest.approx(made["plain"], abs=0.001)
        assert bars(steered) == pytest.approx(made["steered"], abs=0.001)
    dog, cat = (" ".join(row.locator(".steer-head").inner_text().split()) for row in rows.all())
    assert dog == "dog 99.8 % → 0.3 % at ␣dog, token 2"
    peak = max(range(len(PLAIN)), key=lambda i: steer.made["words"][1]["plain"][i])
    assert f"token {peak + 1} " in cat
    assert cat.endswith("→ 90.0 % changed most at ␣dog, token 2")
    labels = steer.part("charts").locator(".steer-columns .view-token").all_inner_texts()
    assert [label.replace("\n", "") for label in labels][:2] == ["␣a", "␣dog"]


def test_the_logarithmic_scale_shows_what_is_tiny_and_stays_chosen(steer):
    made = payload(words=[word("dog", [1, 1e-2, 1e-4, 1e-8, 0, 1e-9] + [0.5] * 5, [1e-2] * 11)])
    steer.set(made)
    steer.page.get_by_role("radio", name="Logarithmic").check()
    plain, steered = steer.part("charts").locator("path").all()
    assert bars(plain)[:6] == pytest.approx([1, 0.75, 0.5, 0, 0, 0], abs=0.001)
    assert bars(steered) == pytest.approx([0.75] * 11, abs=0.001)
    assert steer.part("charts").locator(".steer-axis").inner_text().split("\n") == ["100 %", "0.01 %", "10⁻⁶ %"]
    steer.set({**made, "run": "r2"})
    assert bars(steer.part("charts").locator("path").first)[1] == pytest.approx(0.75, abs=0.001)
    assert steer.page.get_by_role("radio", name="Logarithmic").is_checked()


def test_charts_and_tokens_point_at_each_other(steer):
    chart = steer.part("charts").locator("svg").first
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] * 4.5 / 11, "y": 30})
    steer.settle()
    assert steer.state("token") == 4
    assert steer.part("charts").locator("rect").evaluate_all("(marks) => marks.map((mark) => mark.getAttribute('x'))") == ["4", "4"]
    chart.click(position={"x": box["width"] * 7.5 / 11, "y": 30})
    steer.page.mouse.move(5, 5)
    steer.settle()
    assert steer.state("token") == 7
    assert steer.token(7).get_attribute("aria-pressed") == "true"
    steer.token(2).hover()
    steer.settle()
    assert chart.locator("rect").get_attribute("x") == "2"


def test_names_below_the_charts_only_where_there_is_room(open_steer):
    steer = open_steer(payload())
    assert steer.part("charts").locator(".steer-labels").is_visible()
    steer.page.set_viewport_size({"width": 390, "height": 844})
    steer.page.wait_for_function("() => document.querySelector('.steer-labels').hidden")
    steer.set(long())
    assert not steer.part("charts").locator(".steer-labels").is_visible()
    assert steer.part("charts").evaluate("(node) => node.scrollWidth > node.clientWidth")
    steer.token(255).evaluate("(node) => node.click()")
    assert steer.part("charts").evaluate("(node) => node.scrollLeft") > 500


@pytest.mark.parametrize(
    ("relative", "said"),
    [
        (0.49, ""),
        (0.5, "changes most answers, whatever its direction"),
        (0.99, "changes most answers, whatever"),
        (1.0, "longer than the state"),
        (2.6, "breaks most answers"),
    ],
)
def test_a_large_push_is_a_warning(steer, relative, said):
    steer.set(payload(edits=[edit(relative)]))
    line = steer.part("edits").locator("li")
    assert said in line.inner_text()
    assert line.locator(".steer-remark").count() == bool(said)
    assert f"{relative * 100:.0f} % of |h|" in line.inner_text()
    width = line.locator(".view-bar-back i").evaluate("(bar) => parseFloat(bar.style.width)")
    assert width == pytest.approx(min(100, 100 * relative))
    assert line.evaluate("(node) => node.classList.contains('steer-huge')") == (relative >= 1)


def test_every_edit_has_its_line(steer):
    edits = [
        edit(),
        edit(0.012, label="", feature=7, sae="other", unit="amount", value=3, layer=2, where="patch row 1, column 3", fired=1),
        edit(0.0, absolute=0.0, unit="target", value=0.0),
        edit(0.3, label="a vector at layer 2", feature=None, sae=None, absolute=123.4),
    ]
    steer.set(payload(edits=edits))
    lines = [" ".join(line.split()) for line in steer.part("edits").locator("li").all_inner_texts()]
    assert lines == [
        f"dog #1428 strength {MINUS}0.25 · layer 6 · image tokens, 64 positions · emoji-llava-sae |Δh| 8.9 24 % of |h|",
        "feature 7 amount +3 · layer 2 · patch row 1, column 3, 1 position · other |Δh| 0.445 1.2 % of |h|",
        "dog #1428 target 0 · layer 6 · image tokens, 64 positions · emoji-llava-sae |Δh| 0 0 % of |h| Nothing changed: the feature had this value already.",
        f"a vector at layer 2 strength {MINUS}0.25 · layer 6 · image tokens, 64 positions |Δh| 123 30 % of |h|",
    ]


def test_sweep_shows_every_value_in_order_on_one_scale(steer):
    shuffled = [0.5, -0.1, 0.0, -0.5, 0.25, -0.25, 0.1]
    made = sweep(shuffled)
    made["points"][2]["finished"] = False
    steer.set(payload(sweep=made))
    assert steer.cards().locator(".steer-pick").all_inner_texts() == [
        f"{MINUS}0.5",
        f"{MINUS}0.25",
        f"{MINUS}0.1",
        "0",
        "+0.1",
        "+0.25",
        "+0.5",
    ]
    top = max(point["kl"] for point in made["points"])
    for point in made["points"]:
        card = steer.card(point["value"])
        text = card.locator(".steer-text").evaluate(
            "(node) => [...node.childNodes].filter((n) => n.tagName !== 'DEL').map((n) => n.textContent).join('')"
        )
        assert " ".join(text.removesuffix(" … cut").split()) == " ".join(point["answer"].split())
        assert card.locator(".view-bar-back i").evaluate("(bar) => parseFloat(bar.style.width)") == pytest.approx(
            100 * point["kl"] / top, abs=0.1
        )
        assert f"{point['relative'] * 100:.0f} % of |h|" in card.inner_text()
    assert steer.card(-0.5).locator("ins").all_inner_texts() == ["cat"]
    assert steer.card(0.5).locator("del").all_inner_texts() == ["and a pizza"]
    assert steer.card(0.1).locator("ins, del").count() == 0
    assert steer.card(0.0).locator(".steer-text").inner_text().endswith("… cut")
    assert [steer.card(value).locator(".view-chip").all_inner_texts() for value in (0.0, -0.25, 0.5)] == [["no edit"], ["current"], []]
    assert steer.part("points").locator("[aria-current=true]").count() == 1
    assert steer.text("sweepSub").startswith("The strength of dog, feature 1428, layer 6. Click")
    values = sorted(shuffled)
    label = steer.part("curve").get_attribute("aria-label")
    assert label == "Mean KL over the strength: " + ", ".join(
        (f"{3 * v**2:.3f}" if v else "0") + " at " + (f"{v:+g}".replace("-", MINUS) if v else "0") for v in values
    )
    points = (
        steer.part("curve")
        .locator("circle")
        .evaluate_all("(dots) => dots.map((dot) => [Number(dot.getAttribute('cx')), Number(dot.getAttribute('cy'))])")
    )
    steps = [(b[0] - a[0]) / (y - x) for a, b, x, y in zip(points, points[1:], values, values[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * 6, rel=0.01)
    floor = max(y for _, y in points)
    assert [(floor - y) / (floor - points[0][1]) for _, y in points] == pytest.approx([3 * v**2 / top for v in values], abs=0.01)


@pytest.mark.parametrize(
    ("fields", "tag"), [({"unit": "amount"}, "no edit"), ({"unit": "target"}, "switched off"), ({"others": 2}, "without this edit")]
)
def test_what_zero_means_depends_on_the_unit(steer, fields, tag):
    steer.set(payload(sweep=sweep(**fields, current=0)))
    assert steer.card(0.0).locator(".view-chip").all_inner_texts() == [tag, "current"]
    assert (
        steer.card(0.0).get_by_role("button").get_attribute("aria-label")
        == f"Set the {fields.get('unit', 'strength')} to 0 ({tag}, current)"
    )
    assert ("2 other edits stay" in steer.text("sweepSub")) == ("others" in fields)


def test_a_sweep_of_one_value_and_of_a_vector_has_no_curve(steer):
    steer.set(payload(sweep=sweep([0.0], label="a vector at layer 3", feature=None, sae=None, current=None)))
    assert not steer.part("curve").is_visible()
    assert steer.cards().count() == 1
    assert "The strength of a vector at layer 3, layer 6." in steer.text("sweepSub")
    steer.set(payload(sweep=sweep([2.0], unit="target", current=9.0)))
    assert steer.part("curve").is_visible()
    assert steer.part("curve").locator(".view-now").count() == 0


def test_choosing_a_value_reaches_python(open_page, site):
    shuffled = [0.5, -0.1, 0.0, -0.5]
    site.value = payload(sweep=sweep(shuffled))
    page = open_page(fresh=True)
    steer = Steer(page, site.value)
    assert steer.text("empty") == "Nothing steered yet."
    button(page, "show").click()
    page.wait_for_selector(".steer[data-ready]")

    def chosen(text):
        page.wait_for_function("(text) => [...document.querySelectorAll('textarea')].some((node) => node.value === text)", arg=text)

    steer.card(-0.5).get_by_role("button").click()
    chosen("[3, -0.5]")
    steer.card(0.0).locator(".steer-figures").click()
    chosen("[2, 0]")
    steer.card(0.5).get_by_role("button").focus()
    page.keyboard.press("Enter")
    chosen("[0, 0.5]")
    # the view marks what the next payload says, not what was clicked
    assert steer.part("points").locator("[aria-current=true]").count() == 0
    steer.set({**site.value, "sweep": {**site.value["sweep"], "current": 0.5}})
    assert steer.card(0.5).get_by_role("button").get_attribute("aria-current") == "true"


def test_marking_text_of_a_card_chooses_nothing(steer):
    steer.page.evaluate("""() => {
        const { options } = document.querySelector('.steer').__view;
        Object.assign(window, { chosen: [], select: options.select });
        options.select = (...of) => window.chosen.push(of);
    }""")
    text = steer.card(0.1).locator(".steer-text")
    text.evaluate("(node) => getSelection().selectAllChildren(node)")
    text.dispatch_event("click")
    assert steer.page.evaluate("() => window.chosen") == []
    steer.card(0.1).get_by_role("button").dispatch_event("click")
    assert steer.page.evaluate("() => window.chosen") == [[4, 0.1]]
    steer.page.evaluate("() => getSelection().removeAllRanges()")
    text.dispatch_event("click")
    assert steer.page.evaluate("() => window.chosen.length") == 2
    steer.page.evaluate("() => { document.querySelector('.steer').__view.options.select = window.select; }")


def test_a_growing_sweep_keeps_cards_focus_and_scroll(open_steer):
    steer = open_steer(payload(sweep=sweep(state="running")), **PHONE)
    assert steer.text("sweepChips") == "answering …"
    assert steer.part("curve").locator("circle").count() == 0
    assert steer.card(0.5).locator(".steer-figures span").first.inner_text() == "KL …"
    steer.card(0.5).get_by_role("button").focus()
    tokens = steer.token(0).element_handle()
    before = steer.part("points").evaluate("(node) => node.scrollLeft")
    assert before > 300
    growing = sweep(state="running")
    for point in growing["points"]:
        point["answer"] = "a dog and"
    card = steer.card(0.5).element_handle()
    height = steer.card(0.5).bounding_box()["height"]
    for strip in (growing, sweep()):
        steer.set(payload(sweep=strip))
        assert steer.card(0.5).evaluate("(node, card) => node === card && node.contains(document.activeElement)", card)
        assert steer.part("points").evaluate("(node) => node.scrollLeft") == before
        assert steer.token(0).evaluate("(node, token) => node === token", tokens)
    assert height > 80
    assert steer.state("sweep") == "done"
    assert steer.text("sweepChips") == ""
    assert steer.text("live") == "The sweep is done."
    steer.set(payload(sweep=sweep(state="stopped")))
    assert steer.text("sweepChips") == "stopped"
    assert steer.card(0.5).locator(".steer-figures span").first.text_content() == ""
    steer.set(payload())
    assert not steer.part("sweepBox").is_visible()
    assert steer.state("sweep") is None


def test_the_strip_opens_at_the_current_value(open_steer):
    inside = "(node) => { const a = node.getBoundingClientRect(), b = node.parentNode.getBoundingClientRect(); return a.left >= b.left && a.right <= b.right; }"
    steer = open_steer(payload(sweep=sweep(current=0.5)), **PHONE)
    assert steer.card(0.5).evaluate(inside)
    steer.set(payload(sweep=sweep([v * 2 for v in VALUES], current=None)))
    assert steer.card(0.0).evaluate(inside)


def test_both_answers_are_copied_as_text(open_steer):
    steer = open_steer(payload(edits=[edit(), edit(unit="target", value=0.0, label="", feature=7)]))
    steer.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    steer.part("copy").click()
    steer.says("copy", "Copied")
    assert steer.page.evaluate("() => navigator.clipboard.readText()").replace("\r", "") == (
        "Prompt: Describe the image.\nWithout edits: a dog and a pizza on a blue background.\n"
        f"Steered (strength {MINUS}0.25 on dog, layer 6; target 0 on feature 7, layer 6): a cat and a pizza on a background.\n"
    )
    steer.says("copy", "Copy both answers")
    steer.set(running("a", "b"))
    steer.part("copy").click()
    steer.says("copy", "Copied")
    assert steer.page.evaluate("() => navigator.clipboard.readText()").endswith("Without edits: a\nSteered: b\n")


def test_a_clipboard_that_is_closed_is_said(open_steer):
    steer = open_steer(payload())
    steer.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    steer.part("copy").click()
    steer.says("copy", "The browser refused")
    steer.page.evaluate("() => { delete navigator.clipboard.writeText; }")


def test_hostile_texts_stay_texts(open_steer):
    strip = sweep(label=ATTACK, sae=ATTACK)
    for point in strip["points"]:
        point |= {
            "answer": ATTACK,
            "diff": [{"op": "replace", "plain": "a", "steered": ATTACK}, {"op": "delete", "plain": ATTACK, "steered": ""}],
        }
    made = payload([ATTACK, " dog", "</s>"], [ATTACK, ATTACK, "</s>"], model=ATTACK, prompt=ATTACK, notes=[ATTACK], sweep=strip)
    made["edits"] = [edit(label=ATTACK, sae=ATTACK, where=ATTACK, unit=ATTACK)]
    made["words"] = [word(ATTACK, [0.5, 0.1, 0.1], [0.1, 0.2, 0.9])]
    steer = open_steer(made, **PHONE)
    assert steer.text("prompt") == ATTACK
    assert steer.part("charts").locator("bdi").inner_text() == ATTACK
    for i in range(3):
        steer.token(i).evaluate("(node) => node.click()")
    steer.set(running(ATTACK, ATTACK, prompt=ATTACK, sweep={**strip, "state": "running"}))
    assert steer.text("plain") == ATTACK
    steer.set({**made, "schema": ATTACK})
    assert ATTACK in steer.text("empty")
    assert steer.root.locator("img, script, iframe").count() == 0
    assert steer.page.evaluate("() => window.pwned") is None
    assert steer.page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_right_to_left_text_and_emoji(open_steer):
    arabic = [" كلب", " و", " بيتزا", "</s>"]
    steer = open_steer(payload(arabic, [" 🐶🍕", "</s>"], prompt="صف \u202eصورة", edits=[edit(label="\u202egod")]))
    assert steer.text("plain") == "كلب و بيتزا"
    assert steer.part("plain").evaluate("(node) => getComputedStyle(node).direction") == "rtl"
    assert steer.part("steered").inner_text() == "🐶🍕"
    first, second = steer.token(0).bounding_box(), steer.token(1).bounding_box()
    assert first["x"] > second["x"]
    steer.token(0).focus()
    steer.page.keyboard.press("ArrowLeft")
    assert steer.state("token") == 1
    # an override inside a label ends with it
    number = steer.part("edits").locator(".steer-number")
    assert number.bounding_box()["x"] > steer.part("edits").locator("bdi").first.bounding_box()["x"]


@pytest.mark.parametrize("dark", [False, True])
def test_theme_follows_gradio(steer, dark):
    steer.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
    steer.page.locator(f".steer[data-theme={'dark' if dark else 'light'}]").wait_for()
    for selector in ("[data-part=plain] del", "[data-part=steered] ins", "[data-part=plain] .view-same", ".steer-facts"):
        ink, paper = steer.root.locator(selector).first.evaluate(
            """(node) => {
              const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
              let back = node;
              while (rgb(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentNode;
              const light = (text) => rgb(text).slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
              return [light(getComputedStyle(node).color), light(getComputedStyle(back).backgroundColor)];
            }"""
        )
        assert (paper < ink) == dark
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 4.5, selector


@pytest.mark.parametrize("made", [payload(sweep=sweep()), long()], ids=["short", "long"])
def test_phone_width_has_one_column_and_no_sideways_scroll(open_steer, made):
    steer = open_steer(made, **PHONE)
    assert steer.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    plain, steered = steer.part("plain").bounding_box(), steer.part("steered").bounding_box()
    assert steered["y"] > plain["y"] + plain["height"]
    outside = """(root) => [...root.querySelectorAll('*')].filter((node) => {
      const box = node.getBoundingClientRect();
      return box.width && box.right > 390 && !node.closest('[data-part=points], [data-part=charts], .view-hidden');
    }).map((node) => node.className)"""
    assert steer.root.evaluate(outside) == []
    steer.token(2).tap()
    steer.settle()
    assert steer.state("token") == 2
    steer.page.set_viewport_size({"width": 1400, "height": 900})
    steer.settle()
    assert steer.part("steered").bounding_box()["y"] == steer.part("plain").bounding_box()["y"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other"}, "it was given other"),
        ({"kl": [0.1]}, "KL has 1 values for 11 tokens"),
        ({"kl": None}, "KL is not a list"),
        ({"tokens": []}, "a finished answer has no tokens"),
        ({"words": [word("dog", [0.1], [0.1])]}, "“dog” without edits has 1 values"),
        ({"diff": None}, "diff is not a list"),
        ({"sweep": {}}, "the sweep is not a list"),
    ],
)
def test_damaged_data_is_said_in_words_and_nothing_half_drawn(steer, change, message):
    steer.set({**payload(), **change})
    assert message in steer.text("empty")
    assert steer.root.get_attribute("data-ready") is None
    assert not steer.part("body").is_visible()
    steer.set(payload(run="r9"))
    assert steer.part("body").is_visible()
    assert not steer.part("empty").is_visible()
    assert steer.state("run") == "r9"


def test_nothing_after_something_and_something_again(open_steer, site):
    site.value = payload(sweep=sweep(), run="r1")
    steer = open_steer(None)
    page = steer.page
    for _ in range(2):
        button(page, "show").click()
        page.wait_for_selector(".steer[data-ready]")
        assert steer.part("tokens").locator("button").count() == len(PLAIN)
        assert steer.cards().count() == len(VALUES)
        assert steer.part("sweepBox").is_visible()
        button(page, "nothing").click()
        page.wait_for_selector(".steer:not([data-ready])")
        assert steer.part("empty").is_visible()
        assert not steer.part("body").is_visible()


def test_a_real_run_from_its_first_token_to_its_sweep(open_steer, site, emoji_vlm):
    sae = interp.load_sae("emoji-llava")
    made, texts = interp.Edit(sae=sae, feature=3, strength=0.6), []
    asked = (emoji_vlm, tiny.noise(96, 96), "Describe the image.")
    result = interp.steer(*asked, [made], words=["dog"], max_new_tokens=8, on_text=texts.append)
    strip = sweep_payload(interp.steer_sweep(*asked, made, [-0.6, 0, 0.6], max_new_tokens=8), {}, current=0.6)
    for plain, steered in texts:
        site.steps.put(running_payload(emoji_vlm.name, "Describe the image.", SETTINGS, plain, steered))
    whole = steer_payload(result, SETTINGS, {(sae.name, 3): "three"}, sweep=strip)
    site.steps.put(whole)
    site.steps.put(END)
    steer = open_steer(None)
    steer.made = whole
    button(steer.page, "stream").click()
    steer.page.wait_for_selector(".steer[data-state=done]")
    assert steer.text("plain") == (result.plain or "(empty answer)")
    assert steer.part("tokens").locator("button").count() == len(result.kl)
    assert bar_heights(steer) == pytest.approx([value / max(0.1, *result.kl) for value in result.kl], abs=0.02)
    assert "three #3" in steer.text("edits")
    assert f"{result.fired[0]} positions" in steer.text("edits")
    assert steer.card(0.6).locator(".view-chip").all_inner_texts() == ["current"]
