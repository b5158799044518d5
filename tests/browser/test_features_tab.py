"""The tab "SAE features" of the whole page, with the embedded model and its SAE behind it."""

import csv
import json
from pathlib import Path

import pytest

from tests.browser.conftest import open_tab

VIEW = "document.querySelector('.features')"
STATE = f"{VIEW}.__features"
EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"


@pytest.fixture
def page(app_page):
    """The tab of a page that other tests may have used, with what it opens with."""
    look(app_page)
    for box, opens_with in (("#where", "image tokens"), ("#rank-by", "mean activation")):
        if app_page.locator(f"{box} input").input_value() != opens_with:
            after(app_page, lambda box=box, text=opens_with: choose(app_page, box, text))
    return app_page


def look(page):
    open_tab(page, "SAE features")
    page.wait_for_selector(".features[data-ready]", timeout=60_000)


def run_of(page):
    return page.evaluate(f"{STATE}.run")


def after(page, action):
    """Do something that ranks anew, and wait until it is drawn."""
    old = run_of(page)
    action()
    page.wait_for_function(f"old => {VIEW}.dataset.ready !== undefined && {STATE}.run !== old", arg=old)


def choose(page, box, text):
    page.locator(f"{box} input").click()
    page.get_by_role("option", name=text).click()


def test_it_shows_the_features_of_the_picture_that_is_on_the_page(page):
    text = page.locator(".features").inner_text()
    assert "a dog and a pizza on a blue background." in text
    assert "emoji-llava-sae" in text
    assert "explained variance" in text
    assert "dog" in text


def test_looking_again_ranks_nothing_anew(page):
    page.evaluate(
        f"""() => {{
            window.runs = new Set();
            const see = () => {{
                window.runs?.add({STATE}.run ?? null);
                if (window.runs) requestAnimationFrame(see);
            }};
            see();
        }}"""
    )
    page.get_by_role("tab", name="Lens").click()
    with page.expect_response(lambda response: "/queue/join" in response.url):
        look(page)
    choose(page, "#where", "answer tokens")  # once this is answered, so is what was asked before
    page.wait_for_function(f"{VIEW}.querySelector('[data-part=listTitle]').innerText === 'Features of answer tokens'")
    runs = page.evaluate("() => { const seen = [...window.runs]; window.runs = null; return seen.filter(Boolean); }")
    assert len(runs) == 2  # that of the first look, and this one


def test_another_choice_ranks_anew(page):
    after(page, lambda: choose(page, "#where", "answer tokens"))
    assert page.inner_text(".features [data-part=listTitle]") == "Features of answer tokens"
    after(page, lambda: choose(page, "#rank-by", "share of tokens"))
    assert page.inner_text(".features [data-part=listTitle]") == "Features of answer tokens"
    assert "ranked by share of tokens" in page.inner_text(".features [data-part=listSub]")


def test_a_new_run_is_looked_at_while_the_tab_is_open(page):
    after(page, lambda: page.locator(".gallery-item, .gallery button").nth(2).click())
    assert "owl" in page.locator(".features").inner_text()


def test_a_run_in_the_other_tab_is_looked_at_when_the_tab_is_opened(page):
    before = run_of(page)
    page.get_by_role("tab", name="Lens").click()
    lens = page.evaluate("document.querySelector('.lens').__lens.run")
    page.get_by_text("What is on the left?", exact=True).click()
    page.wait_for_function("old => document.querySelector('.lens').__lens.run !== old", arg=lens)
    assert run_of(page) == before
    after(page, lambda: page.get_by_role("tab", name="SAE features").click())
    assert "What is on the left?" in page.locator(".features").inner_text()


def test_a_patch_of_the_lens_leads_to_its_features(page):
    page.get_by_role("tab", name="Lens").click()
    stage = page.locator(".lens [data-part=stage]")
    box = stage.bounding_box()
    stage.click(position={"x": box["width"] * 2.5 / 8, "y": box["height"] * 2.5 / 8})
    page.get_by_role("button", name="SAE features here").click()
    page.wait_for_function(f"{VIEW}.querySelector('[data-part=listTitle]').innerText.includes('row 3, column 3')")
    assert "dog" in page.locator(".features").inner_text()


def test_the_whole_sae_can_be_searched(page):
    page.locator(".features").get_by_placeholder("filter by label or number").fill("zebra")
    page.get_by_role("button", name="Search the whole SAE").click()
    page.wait_for_function(f'{VIEW}.innerText.includes("0 of")')


def test_an_sae_that_does_not_exist_is_named_and_the_next_choice_works(page):
    page.locator("#sae input").fill("no-such-sae")
    page.locator("#sae input").press("Enter")
    page.wait_for_selector("#sae-message .error")
    assert "'no-such-sae' is not a known SAE" in page.inner_text("#sae-message")
    assert page.locator(".features[data-ready]").count() == 1
    page.locator("#sae input").fill("")
    choose(page, "#sae", "emoji-llava-sae")
    page.wait_for_selector("#sae-message .error", state="detached")
    assert page.locator(".features[data-ready]").count() == 1


def test_the_downloads_hold_what_is_shown(page, tmp_path):
    files = {}
    for kind in ("json", "csv"):
        with page.expect_download() as download:
            page.click(f"#make-features-{kind}")
        files[kind] = tmp_path / f"features.{kind}"
        download.value.save_as(files[kind])
    found = json.loads(files["json"].read_text(encoding="utf-8"))
    rows = list(csv.DictReader(files["csv"].open(encoding="utf-8")))
    assert [int(row["feature"]) for row in rows] == [feature["feature"] for feature in found["features"]]
    assert len(rows) == 20


def test_the_snippet_gives_the_same_features(page, monkeypatch, capsys):
    panel = page.get_by_role("tabpanel").filter(has=page.locator(".features"))
    panel.get_by_text("Do this from Python").click()
    panel.locator(".cm-line").first.wait_for()
    code = "\n".join(panel.locator(".cm-line").all_inner_texts())
    monkeypatch.chdir(EXAMPLES)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - it is ours, and running it is the test
    printed = capsys.readouterr().out
    assert "dog" in printed
    assert len([line for line in printed.splitlines() if line.split()[0].isdigit()]) == 20
