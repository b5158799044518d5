"""The Python side of the editor of edits: what goes into the component, what it hands to the page and what it takes from it."""

from __future__ import annotations

import re

import gradio as gr
import pytest

from interp.errors import InterpError
from interp.ui.components import edits_view
from interp.ui.components.edits_view import EditsView
from interp.ui.components.feature_view import FeatureView
from interp.web.standalone import STATIC
from tests.web.edits_payload import chip, payload
from tests.web.feature_payload import payload as feature_payload


def test_component_passes_payloads_and_nothing() -> None:
    made = payload(edits=[chip()])
    assert EditsView().postprocess(None) is None
    assert EditsView().postprocess(made) == made
    assert EditsView(made).get_config()["value"] == made
    assert EditsView().preprocess(made) == made
    assert EditsView().preprocess(None) is None
    assert EditsView().preprocess("") is None  # type: ignore[arg-type]  # what the page sends for nothing
    assert EditsView().api_info()["type"] == "object"


@pytest.mark.parametrize("value", [{}, {"schema": "llava-microscope/edits/2"}, "text", ["list"], feature_payload()])
def test_another_kind_of_value_is_refused_by_name(value: object) -> None:
    with pytest.raises(InterpError, match=r"edits view reads .llava-microscope/edits/1"):
        EditsView().postprocess(value)  # type: ignore[arg-type]


def test_the_feature_view_does_not_take_edits() -> None:
    with pytest.raises(InterpError, match="feature-view/1"):
        FeatureView().postprocess(payload())


def test_component_ships_every_script_in_its_head_in_order() -> None:
    head = EditsView().get_config()["head"]
    places = [head.index((STATIC / name).read_text()) for name in edits_view.SCRIPTS]
    assert places == sorted(places)
    assert {path.name for path in STATIC.glob("edits*.js")} == {name for name in edits_view.SCRIPTS if name.startswith("edits")}


def test_the_server_function_takes_one_list_and_turns_errors_into_words() -> None:
    def steerable(run: str, text: str) -> dict:
        if text == "9999":
            raise InterpError("Feature 9999 does not exist; there are 8192.")
        return {"features": [], "note": f"{run} {text}"}

    view = EditsView(server_functions=[steerable])
    assert view.get_config()["server_fns"] == ["steerable"]
    assert view.steerable(["r1", "dog"]) == {"features": [], "note": "r1 dog"}
    assert view.steerable(["r1", "9999"]) == {"error": "Feature 9999 does not exist; there are 8192."}


def test_listeners_attach_to_input_and_run_and_clients_are_told_what_it_is() -> None:
    with gr.Blocks() as demo:
        view = EditsView()
        view.input(print, view, None, api_name="put")
        view.run(print, view, None, api_name="go")
    assert [dependency["targets"] for dependency in demo.get_config_file()["dependencies"]] == [[(view._id, "input")], [(view._id, "run")]]
    taken = demo.get_api_info()["named_endpoints"]["/put"]["parameters"][0]
    assert taken["type"]["type"] == "object"


def test_static_files_survive_what_gradio_and_html_do_to_them() -> None:
    for path in (STATIC / "edits.css", STATIC / "edits.html"):
        # gradio evaluates both as Handlebars and as a JavaScript template string
        assert not re.search(r"\$\{|\{\{|`|\\", path.read_text()), path.name
    for path in STATIC.glob("edits*.js"):
        text = path.read_text()
        assert "</script" not in text.lower(), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path.name
        assert len(text.splitlines()) < 300, path.name


def test_every_part_that_the_scripts_use_is_in_the_markup() -> None:
    parts = set(re.findall(r'data-part="(\w+)"', (STATIC / "edits.html").read_text()))
    scripts = "".join(path.read_text() for path in [*STATIC.glob("edits*.js"), STATIC / "lens_shared.js"])
    used = set(re.findall(r"\bpart\.(\w+)", scripts))
    assert used <= parts
    assert parts - used <= {"root"}


def test_in_js_on_load_the_quoted_words_are_the_events_and_what_is_watched() -> None:
    # gradio takes every quoted word there for the name of an event
    assert set(re.findall(r"['\"`](\w*)['\"`]", EditsView().get_config()["js_on_load"])) == {"value", "input", "run"}
