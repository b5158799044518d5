"""The Python side of the editor of edits: what goes into the component, what it hands to the page and what it takes from it."""

from __future__ import annotations

import gradio as gr
import pytest

from interp.errors import InterpError
from interp.ui.components.edits_view import EditsView
from interp.ui.components.feature_view import FeatureView
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
