"""The whole page on a phone, light and dark: every tab scrolls down only and takes taps."""

import pytest

from tests.browser.conftest import open_app, open_tab
from tests.browser.test_steer_tab import PRESETS, answered

LENS = "document.querySelector('.lens')"
FEATURES = "document.querySelector('.features')"


@pytest.fixture(scope="module", params=["light", "dark"])
def opened(chromium, url, request):
    """(page, theme): one page for all tabs, since opening it takes longer than looking at them."""
    theme = request.param
    context = chromium.new_context(viewport={"width": 375, "height": 812}, has_touch=True, color_scheme=theme)
    yield open_app(context, f"{url}/?__theme={theme}"), theme
    context.close()


@pytest.fixture
def phone(opened):
    page, _ = opened
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.faults == []


def shown(phone, opened, tab, view):
    """Open a tab and wait for its view: its theme is the page's."""
    open_tab(phone, tab)
    phone.locator(f"{view}[data-ready]").first.wait_for(timeout=60_000)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    assert phone.locator(view).first.get_attribute("data-theme") == opened[1]


def test_lens(phone, opened):
    shown(phone, opened, "Lens", ".lens")
    stage = phone.locator(".lens [data-part=stage]").first
    stage.scroll_into_view_if_needed()
    stage.tap(position={"x": 20, "y": 20})
    phone.wait_for_function(f"{LENS}.__lens.locked !== null")


def test_features(phone, opened):
    shown(phone, opened, "SAE features", ".features")
    row = phone.locator(".features [data-part=tableBody] tr").nth(3)
    row.scroll_into_view_if_needed()
    phone.evaluate("window.scrollBy(0, 500)")
    row.tap()
    phone.wait_for_function(
        f"{FEATURES}.__features.feature === "
        f"+{FEATURES}.querySelectorAll('[data-part=tableBody] tr')[3].querySelector('.features-feature').innerText"
    )
    # What a tap changes is brought into sight.
    phone.wait_for_function(
        f"(() => {{ const b = {FEATURES}.querySelector('[data-part=stage]').getBoundingClientRect(); return b.bottom > 0 && b.top < innerHeight; }})()"
    )


def test_steering(phone, opened):
    shown(phone, opened, "Steer", ".edits")
    answered(phone, phone.locator(".edits").get_by_role("button", name=PRESETS[0]).first.click)
