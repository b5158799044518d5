"""The tab "Steer" of the whole page, with the embedded model and its SAE behind it."""

import pytest

from interp.steering.published import KNOWN_STEERING

EDITS = "document.querySelector('.edits').__edits"
STEER = "document.querySelector('.steer').__steer"
PLAIN = "a dog and a pizza on a blue background."
PRESETS = [known.name for known in KNOWN_STEERING if known.model == "emoji-llava"]


def look(page):
    page.get_by_role("tab", name="Steer").click()
    page.wait_for_selector(".edits[data-ready]", timeout=60_000)
    page.wait_for_function(f"{EDITS} && {EDITS}.edits !== undefined")


def answered(page, action):
    """Do something that steers, and wait until both answers and the sweep are there."""
    old = page.evaluate(f"({STEER} || {{}}).run ?? null")
    action()
    page.wait_for_function(
        f"old => {{ const s = {STEER}; return s && s.run && s.run !== old && document.querySelector('.steer').dataset.state === 'done'; }}",
        arg=old,
        timeout=60_000,
    )
    page.wait_for_function("!document.querySelector('#steer-message .message')", timeout=60_000)


def answers(page):
    return page.locator(".steer").inner_text()


@pytest.fixture
def page(app_page):
    """The tab of a page that other tests may have used, with nothing pushed and nothing steered."""
    look(app_page)
    app_page.click("#steer-reset")
    app_page.wait_for_function(f"{EDITS}.edits.length === 0 && !document.querySelector('#steer-message .message')")
    app_page.locator(".steer", has_text="Nothing steered yet").wait_for()
    return app_page


@pytest.fixture
def steered(page):
    answered(page, page.locator(".edits").get_by_role("button", name=PRESETS[0]).first.click)
    return page


def test_two_clicks_make_the_pizza_disappear(steered):
    said = steered.locator(".steer [data-part=steered]").inner_text()
    assert "a dog on a blue background." in " ".join(said.split())
    assert "pizza" not in said
    assert PLAIN in " ".join(answers(steered).split())


def test_every_preset_changes_the_answer(page):
    for name in PRESETS:
        answered(page, lambda name=name: page.locator(".edits").get_by_role("button", name=name).first.click())
        assert "changed no word" not in answers(page)


def test_nothing_to_push_is_said(page):
    page.locator("#steer-run").click()
    page.locator("#steer-message", has_text="No edit is on").wait_for()


def test_a_feature_is_found_and_pushed(page):
    page.locator(".edits").get_by_label("Add a feature by name or number").fill("pizza")
    page.keyboard.press("Enter")
    page.locator(".edits [role=option]").first.click()
    answered(page, lambda: page.locator("#steer-run").click())
    page.locator(".steer", has_text=PLAIN).wait_for()


def test_a_card_of_the_sweep_sets_the_value(steered):
    before = steered.evaluate(f"{EDITS}.edits[0].value")
    cards = steered.locator(".steer [data-part=sweep] button, .steer .steer-sweep button")
    answered(steered, cards.last.click)
    assert steered.evaluate(f"{EDITS}.edits[0].value") != before


def test_the_same_edits_on_another_picture(steered):
    tab = steered.locator("#steer-tab")
    answered(steered, lambda: tab.locator(".gallery button, .gallery-item").nth(2).click())
    assert "owl" in answers(steered)
    assert steered.evaluate(f"{EDITS}.edits.length") >= 1


def test_both_lenses(steered):
    steered.get_by_role("button", name="Compare the logit lenses").click()
    steered.locator("#steer-compare").click()
    steered.wait_for_function("document.querySelectorAll('#steer-lenses .lens[data-ready]').length === 2")
    text = [view.inner_text() for view in steered.locator("#steer-lenses .lens").all()]
    assert PLAIN in text[0]
    assert PLAIN not in text[1]
    assert "answer a dog on a blue background." in text[1]


def test_a_link_opens_the_same_state(steered, open_page):
    steered.locator("#steer-share").click()
    box = steered.locator("#steer-link textarea, #steer-link input").first
    box.wait_for()
    steered.wait_for_function("document.querySelector('#steer-link textarea, #steer-link input').value.includes('state=')")
    path = "/?" + box.input_value().split("/?", 1)[1]
    other = open_page(path, ready=".steer[data-ready]")
    other.wait_for_function(
        f"(() => {{ const s = {STEER}; return s && s.run && document.querySelector('.steer').dataset.state === 'done'; }})()",
        timeout=60_000,
    )
    assert other.get_by_role("tab", name="Steer").get_attribute("aria-selected") == "true"
    assert other.locator(".steer [data-part=steered]").inner_text() == steered.locator(".steer [data-part=steered]").inner_text()
    kept = "edits => edits.map(({feature, unit, value, where}) => [feature, unit, value, where])"
    assert other.evaluate(f"({kept})({EDITS}.edits)") == steered.evaluate(f"({kept})({EDITS}.edits)")


def test_a_damaged_link_is_said_and_the_page_works(open_page):
    page = open_page("/?state=nonsense")
    page.locator("#message", has_text="This link is damaged").wait_for()


def test_reset_empties_everything(steered):
    steered.locator("#steer-reset").click()
    steered.wait_for_function(f"{EDITS}.edits.length === 0")
    steered.locator(".steer", has_text="Nothing steered yet").wait_for()


def test_a_feature_of_the_features_tab_is_handed_over(page):
    page.get_by_role("tab", name="SAE features").click()
    page.wait_for_selector(".features[data-ready]", timeout=60_000)
    page.locator(".features").get_by_role("button", name="Steer this").click()
    page.wait_for_function(f"{EDITS}.edits.length === 1")
    assert page.get_by_role("tab", name="Steer").get_attribute("aria-selected") == "true"
