"""What of several yields reaches the page, and what a run changes there. Without a browser: what is sent to it."""

import gradio as gr
import pytest

from interp.ui.blocks import PageBlocks
from interp.ui.page import _follow

PAYLOAD = {"schema": "made-up", "data": [1, 2]}


def sent(*yields):
    """What gradio's page is sent for the two outputs of a generator: whole values, then lists of changes."""
    with PageBlocks() as blocks:
        fn = type("Fn", (), {"outputs": [gr.JSON(), gr.JSON()]})
    return [blocks.handle_streaming_diffs(fn, list(each), "visitor", "run", final=False) for each in yields]


def test_no_change_never_takes_a_value_apart_that_was_sent_before():
    first, second, third = sent([PAYLOAD, ""], [gr.skip(), "said"], [PAYLOAD, gr.skip()])
    assert first == [PAYLOAD, ""]
    assert second == [[["replace", [], gr.skip()]], [["append", [], "said"]]]
    assert third[1] == [["replace", [], gr.skip()]]


def test_values_that_change_are_still_sent_as_differences():
    _, second = sent([PAYLOAD, ""], [{**PAYLOAD, "data": [1, 3]}, ""])
    assert second == [[["replace", ["data", 1], 3]], []]


@pytest.mark.parametrize(("tab", "shows"), [("Lens", [gr.skip()]), ("Concepts", [{"view": "run"}])])
def test_a_run_is_shown_by_the_open_tab_alone_and_leaves_the_others(tab, shows):
    selected = gr.State()
    follow = _follow(selected, {"Concepts": lambda *_: iter([{"view": "run"}])})
    assert list(follow({selected: tab}, None)) == shows
