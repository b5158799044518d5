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


DESKTOP = {"viewport": {"width": 1200, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def context_of(chromium):
    """context_of(options): one context for all pages of a module with these options. It loads gradio's scripts once."""
    contexts = {}

    def context(options):
        key = json.dumps(options, sort_keys=True)
        if key not in contexts:
            contexts[key] = chromium.new_context(**options)
            contexts[key].set_default_timeout(60_000)  # as long as a page may take to open where others want the processor too
        return contexts[key]

    yield context
    for made in contexts.values():
        made.close()


@pytest.fixture(scope="module")
def shared_pages():
    """(context, kind) → the page that the tests of a module share."""
    return {}


@pytest.fixture
def page_of(context_of, shared_pages):
    """page_of(load, fresh=False, kind="", **context options): a page on which `load(page)` was called once.

    Opening one takes longer than most tests, so the tests of a module share a page for each kind of context, and each `kind` of tests one of their
    own. A test that leaves the page in a state that the next payload does not replace asks for a `fresh` one. `page.requests` are the addresses that
    were asked for. What scripts throw fails the test.
    """
    own, used = [], []

    def new(context, load):
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        load(page)
        page.set_default_timeout(15_000)
        # Listened to only now: gradio loads hundreds of files, and each would be told in several messages.
        page.requests, page.posts = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)"), set()
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("request", lambda request: request.method == "POST" and page.posts.add(request))
        for over in ("requestfinished", "requestfailed"):
            page.on(over, lambda request, posts=page.posts: posts.discard(request))
        return page

    def opened(load, *, fresh=False, kind="", **options):
        options = DESKTOP | options
        context = context_of(options)
        if fresh:
            page = new(context, load)
            own.append(page)
        elif (page := shared_pages.get((context, kind))) is None:
            page = shared_pages[context, kind] = new(context, load)
        else:
            page.bring_to_front()  # in a window behind others, frames come once a second
            if page.viewport_size != options["viewport"]:
                page.set_viewport_size(options["viewport"])
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
    for page in own:
        page.close()
    assert faults == []


@pytest.fixture(scope="session")
def app_context(chromium):
    """Where all pages of the app are opened that no test wants to be special: gradio's scripts are compiled once."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1300})
    yield context
    context.close()


@pytest.fixture
def open_page(chromium, app_context, url):
    """Open the real page, with its first lens drawn, or what `ready` names, and a `script` of the test in it. `page.faults` collects what scripts throw."""
    own = []

    def opened(path="/", ready=FIRST_LENS, script="", **options):
        context = chromium.new_context(**options) if options else app_context
        page = open_app(context, url + path, ready, script)
        own.append(context if options else page)
        return page

    yield opened
    for each in own:
        each.close()


@pytest.fixture(scope="module")
def shared_app_page(app_context, url):
    page = open_app(app_context, url)
    yield page
    page.close()


@pytest.fixture
def app_page(shared_app_page):
    """The real page with its first lens drawn. Opening it takes seconds, so the tests of a module share it: each finds it as it opens."""
    _as_it_opens(shared_app_page)
    yield shared_app_page
    assert shared_app_page.faults == []


def open_app(context, address, ready=FIRST_LENS, script=""):
    page = context.new_page()
    page.add_init_script(f"performance.setResourceTimingBufferSize(9999); {script}")  # for `quiet`: gradio loads hundreds of files
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


def quiet(page):
    """Wait until what follows a run (the open tab looks at it) has come to an end: nothing has been asked or answered for a second."""
    page.wait_for_function(
        "() => performance.now() - Math.max(...performance.getEntriesByType('resource').map((entry) => entry.responseEnd)) > 1000"
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
