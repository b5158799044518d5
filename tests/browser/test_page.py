"""The whole page in a real browser, with the embedded model behind it: what a visitor clicks, reads and takes away."""

import json
from pathlib import Path

import pytest

from tests.browser.conftest import quiet

DRAWN = ".lens[data-ready]"
LENS = "document.querySelector('.lens')"
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"


@pytest.fixture
def page(app_page):
    return app_page


def run_of(page):
    return page.evaluate(f"{LENS}.__lens.run")


def after(page, action):
    """Do something that starts a run, and wait until its lens is drawn."""
    old = run_of(page)
    action()
    page.wait_for_function(f"old => {LENS}.dataset.ready !== undefined && {LENS}.__lens.run !== old", arg=old)


def answer(page):
    return page.input_value("#answer textarea")


def test_it_opens_with_a_finished_example(page):
    page.wait_for_function("document.querySelector('#answer textarea').value.includes('dog')")
    assert answer(page) == "a dog and a pizza on a blue background."
    assert "knows 120 emoji and nothing else" in page.inner_text("#about").lower()


def test_hovering_asks_the_server_nothing(page):
    quiet(page)
    stage = page.locator("[data-part=stage]")
    box = stage.bounding_box()
    requests = []
    page.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
    read = set()
    for i in range(8):
        page.mouse.move(box["x"] + box["width"] * (i + 0.5) / 8, box["y"] + box["height"] * (i + 0.5) / 8)
        page.wait_for_function(
            f"at => {LENS}.__lens.hover !== null && document.querySelector('[data-part=where]').innerText.includes(at)", arg=f"row {i + 1}"
        )
        read.add(page.inner_text("[data-part=top]"))
    assert len(read) > 1
    assert [r for r in requests if "heartbeat" not in r] == []


def test_an_example_picture_runs_at_once(page):
    after(page, lambda: page.locator(".gallery-item, .gallery button").nth(2).click())
    assert "owl" in answer(page)


def test_a_question_runs_at_once(page):
    after(page, lambda: page.get_by_text("How many objects are there?", exact=True).click())
    assert answer(page) == "two."
    assert page.inner_text("[data-part=prompt]") == "How many objects are there?"


def test_an_upload_runs_on_click_and_by_the_enter_key(page):
    page.locator("#picture").get_by_label("Remove Image").click()
    page.set_input_files("#picture input[type=file]", EXAMPLES / "one-owl.webp")
    page.wait_for_selector("#picture img")
    after(page, lambda: page.click("#run"))
    assert "owl" in answer(page)
    page.fill("#prompt textarea", "What color is the background?")
    after(page, lambda: page.press("#prompt textarea", "Enter"))
    assert answer(page) == "purple."


def test_an_error_stands_by_the_button_and_loses_nothing(page):
    before = run_of(page)
    page.fill("#prompt textarea", "")
    page.click("#run")
    page.wait_for_selector("#message .error")
    assert "prompt is empty" in page.inner_text("#message")
    assert run_of(page) == before
    page.fill("#prompt textarea", "Is there a dog?")
    after(page, lambda: page.click("#run"))
    assert answer(page) == "yes."
    assert page.locator("#message .error").count() == 0


def test_a_run_that_fails_leaves_what_the_other_tabs_show(page):
    views = {
        "SAE features": ".features",
        "Why this word?": ".attention",
        "Attribution": ".attribution",
        "Concepts": ".concepts",
        "Study": ".study",
    }
    for tab, view in views.items():
        page.get_by_role("tab", name=tab).click()
        page.wait_for_selector(f"{view}[data-ready]")
    page.locator(".study [data-part=steer]").click()
    page.locator(".edits").get_by_text("feature 0").first.wait_for()
    page.get_by_role("tab", name="Lens").click()
    page.fill("#prompt textarea", "")
    page.click("#run")
    page.wait_for_selector("#message .error")
    quiet(page)
    for view in views.values():
        assert page.locator(f"{view}[data-ready]").count() == 1
    page.get_by_role("tab", name="Steer").click()
    page.locator(".edits").get_by_text("feature 0").first.wait_for()
    page.click("#steer-reset")


def test_no_picture_is_an_error_in_words(page):
    page.locator("#picture").get_by_label("Remove Image").click()
    page.click("#run")
    page.wait_for_selector("#message .error")
    assert "No picture" in page.inner_text("#message")


def test_markup_in_a_prompt_stays_text(page):
    attack = '<img src=x onerror="window.pwned=1"></script><script>window.pwned=1</script>'
    page.fill("#prompt textarea", attack)
    after(page, lambda: page.click("#run"))
    assert page.inner_text("[data-part=prompt]") == attack
    assert page.evaluate("window.pwned") is None
    page.fill("#prompt textarea", attack + "<image>")
    page.click("#run")
    page.wait_for_selector("#message .error")
    assert page.evaluate("window.pwned") is None


def test_find_a_word(page):
    page.fill("[data-part=word]", "dog")
    page.click("[data-part=findGo]")
    page.wait_for_selector("[data-part=findCurve]:not([hidden])")
    page.fill("[data-part=word]", "hippopotamus")
    page.click("[data-part=findGo]")
    page.wait_for_function("document.querySelector('[data-part=findNote]').innerText.includes('tokens for this model')")


def test_another_lens_goes_into_link_code_and_files(page, open_page, tmp_path):
    page.locator("[data-part=stage]").click(position={"x": 20, "y": 20})
    page.get_by_role("radio", name="Embedding lens").click()
    page.wait_for_function(f"{LENS}.__lens.method === 'embedding'")
    page.get_by_text("Do this from Python").click()
    page.locator(".cm-content").get_by_text("'embedding'").wait_for()
    with page.expect_download() as download:
        page.click("#make-json")
    file = tmp_path / "lens.json"
    download.value.save_as(file)
    assert json.loads(file.read_text(encoding="utf-8"))["method"] == "embedding"
    page.click("#lens-share")
    page.wait_for_selector("#lens-link textarea, #lens-link input")
    link = page.locator("#lens-link").locator("textarea, input").first.input_value()
    locked = page.evaluate(f"{LENS}.__lens.locked")
    again = open_page("/" + link.split("/", 3)[3])
    assert again.evaluate(f"(({{ method, locked, layer }}) => [method, locked, layer])({LENS}.__lens)") == ["embedding", locked, 8]
    assert again.faults == []
    page.bring_to_front()
    after(page, lambda: page.locator(".gallery-item, .gallery button").nth(2).click())
    assert page.evaluate(f"{LENS}.__lens.method") == "embedding"  # another picture, the same lens


def test_the_downloads_hold_what_is_shown(page, chromium, tmp_path):
    with page.expect_download() as download:
        page.click("#make-html")
    file = tmp_path / "lens.html"
    download.value.save_as(file)
    alone = chromium.new_page()
    alone.goto(file.as_uri())
    alone.wait_for_selector(DRAWN)
    assert alone.inner_text("[data-part=answer]") == page.inner_text("[data-part=answer]")
    alone.close()
    with page.expect_download() as download:
        page.click("#make-json")
    file = tmp_path / "lens.json"
    download.value.save_as(file)
    assert json.loads(file.read_text(encoding="utf-8"))["answer"] == answer(page)


def test_the_snippet_gives_the_same_answer(page, monkeypatch, capsys):
    page.get_by_text("Do this from Python").click()
    page.wait_for_selector(".cm-content")
    code = page.evaluate("[...document.querySelectorAll('.cm-line')].map(line => line.innerText).join('\\n')")
    monkeypatch.chdir(EXAMPLES)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - it is ours, and running it is the test
    assert answer(page) in capsys.readouterr().out


def test_a_model_says_what_it_needs_before_it_is_loaded(page):
    about = page.locator("#about")
    assert "Licence" not in about.inner_text()
    field = page.locator("#model input")
    field.click()
    page.get_by_role("option", name="gemma-3-4b").click()
    about.get_by_text("Licence: Gemma (must be accepted on the hub first). Needs about 22 GB").wait_for()
    assert "Tested with random weights only" in about.inner_text()
    field.click()
    page.get_by_role("option", name="qwen2-vl-7b").click()
    about.get_by_text("and the package torchvision.").wait_for()


def test_a_model_that_cannot_be_had_leaves_the_one_that_is_there(page):
    field = page.locator("#model input")
    field.click()
    page.get_by_role("option", name="llava-1.5-7b").click()
    page.click("#run")
    page.locator("#message .error").wait_for()
    said = page.locator("#message").inner_text()
    assert "'llava-hf/llava-1.5-7b-hf' is not in the cache" in said
    assert "HF_HUB_OFFLINE" in said
    field.click()
    page.get_by_role("option", name="emoji-llava", exact=True).click()
    page.locator("#about").get_by_text("Knows 120 emoji").wait_for()
    page.click("#run")
    page.wait_for_function("() => document.querySelector('#answer textarea').value.includes('a dog and a pizza')")
    assert page.locator("#message .error").count() == 0
