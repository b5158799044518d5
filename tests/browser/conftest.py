"""A real Chromium for the tests in this folder. Without one they are skipped, but on CI that is a failure."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _missing(reason: str) -> None:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} On CI the browser tests must run.")
    pytest.skip(reason)


# As the app does, and as tests must: gradio's history would write every value that a test sends into the browser's storage, all of them again each time.
LAUNCH = {"prevent_thread_lock": True, "quiet": True, "run_history": False}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, one process for all tests; every test opens a context of its own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed (pip install -r requirements-dev.txt).")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        _missing("No Chromium on this machine (apt-get install chromium).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


FIRST_LENS = ".lens[data-ready]"

# What tests leave behind on a page that others use after them.
_RESET = """() => {
  scrollTo(0, 0);
  document.activeElement?.blur();
  document.body.classList.remove("dark");
  for (const name of ["pwned", "told", "kept", "gone", "said", "opened", "steered"]) delete window[name];
}"""


@pytest.fixture(scope="module")
def shared_pages():
    return {}


@pytest.fixture
def page_of(chromium, shared_pages):
    """page_of(load, fresh=False, **context options): a page on which `load(page)` was called once.

    Opening one takes longer than most tests, so the tests of a module share a page for each kind of context. A test that leaves the page in a state
    that the next payload does not replace asks for a `fresh` one. What scripts throw fails the test.
    """
    own, used = [], []

    def opened(load, *, fresh=False, **options):
        key = json.dumps(options, sort_keys=True)
        page = None if fresh else shared_pages.get(key)
        if page is None:
            context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
            context.set_default_timeout(15_000)
            page = context.new_page()
            page.faults, page.requests, page.posts = [], [], set()
            page.on("pageerror", lambda error: page.faults.append(str(error)))
            page.on("request", lambda request: page.requests.append(request.url))
            page.on("request", lambda request: request.method == "POST" and page.posts.add(request))
            for over in ("requestfinished", "requestfailed"):
                page.on(over, lambda request, posts=page.posts: posts.discard(request))
            load(page)
            if fresh:
                own.append(context)
            else:
                shared_pages[key] = page
        else:
            page.bring_to_front()  # in a window behind others, frames come once a second
            page.mouse.move(0, 0)
            page.evaluate(_RESET)
            while page.posts:  # what the test before asked of the server
                page.wait_for_event("requestfinished")
        used.append(page)
        return page

    yield opened
    faults = [fault for page in used for fault in page.faults]
    for page in used:
        page.faults.clear()
    for context in own:
        context.close()
    assert faults == []


@pytest.fixture(scope="module", autouse=True)
def _close_shared_pages(shared_pages):
    yield
    for page in shared_pages.values():
        page.context.close()


@pytest.fixture
def open_page(chromium, url):
    """Open the real page, with its first lens drawn, or what `ready` names. `page.faults` collects what scripts throw."""
    contexts = []

    def opened(path="/", ready=FIRST_LENS, **options):
        page = _open(chromium, url + path, ready, **options)
        contexts.append(page.context)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def shared_app_page(chromium, url):
    page = _open(chromium, url)
    yield page
    page.context.close()


@pytest.fixture
def app_page(shared_app_page):
    """The real page with its first lens drawn. Opening it takes seconds, so the tests of a module share it: each finds it as it opens."""
    _as_it_opens(shared_app_page)
    yield shared_app_page
    assert shared_app_page.faults == []


def _open(chromium, address, ready=FIRST_LENS, **options):
    context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1300}, **options})
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    _go(page, address, ready)
    return page


def _go(page, address, ready=FIRST_LENS):
    page.goto(address)
    page.wait_for_selector(ready, timeout=60_000)
    page.opened = page.evaluate(_SHOWN)


def open_tab(page, name):
    """Open a tab by its name. On a phone it is in gradio's menu of the tabs that have no room."""
    page.evaluate(
        "(name) => [...document.querySelectorAll('[role=tab], .overflow-dropdown button')].find((tab) => tab.textContent.trim() === name).click()",
        name,
    )


# What a visitor has chosen and what the first tab shows of it.
_SHOWN = """() => {
  const value = (box) => document.querySelector(`${box} :is(input, textarea)`).value;
  const lens = document.querySelector(".lens");
  return {
    prompt: value("#prompt"), model: value("#model"), picture: document.querySelector("#picture img")?.src ?? null, run: lens.__lens?.run ?? null,
  };
}"""


def _as_it_opens(page):
    """The first tab with the first lens. Where another was run, or something else was chosen, the page is loaded anew."""
    page.bring_to_front()  # in a window behind others, frames come once a second
    if page.evaluate(_SHOWN) == page.opened:
        page.get_by_role("tab", name="Lens").click()
        page.evaluate(_RESET)
    else:
        _go(page, page.url)
