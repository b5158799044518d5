"""The Python side of the feature view: what goes into the component and what it hands to the page."""

from __future__ import annotations

import gradio as gr
import pytest

from interp.errors import InterpError
from interp.ui.components.feature_view import FeatureView
from interp.ui.components.lens_view import LensView
from tests.web.feature_payload import payload
from tests.web.lens_payload import payload as lens_payload


def test_component_passes_payloads_and_nothing() -> None:
    made = payload()
    assert FeatureView().postprocess(None) is None
    assert FeatureView().postprocess(made) == made
    assert FeatureView(made).get_config()["value"] == made
    assert FeatureView().preprocess(made) == made
    assert FeatureView().preprocess(None) is None
    assert FeatureView().api_info()["type"] == "object"


@pytest.mark.parametrize("value", [{}, {"schema": "llava-microscope/feature-view/2"}, "text", ["list"]])
def test_another_kind_of_value_is_refused_by_name(value: object) -> None:
    with pytest.raises(InterpError, match=r"feature view reads .llava-microscope/feature-view/1"):
        FeatureView().postprocess(value)  # type: ignore[arg-type]


def test_the_two_views_do_not_take_each_other_s_payloads() -> None:
    with pytest.raises(InterpError, match="feature-view/1"):
        FeatureView().postprocess(lens_payload())
    with pytest.raises(InterpError, match="lens-view/2"):
        LensView().postprocess(payload())


def test_server_functions_take_one_list_and_turn_errors_into_words() -> None:
    def features_at(run: str, where: dict) -> dict:
        if "positions" in where:
            raise InterpError("Position 900 is beyond the last one, 80.")
        return {"run": run, "where": where}

    def find_features(run: str, text: str) -> dict:
        return {"run": run, "text": text}

    view = FeatureView(server_functions=[features_at, find_features])
    assert view.get_config()["server_fns"] == ["features_at", "find_features"]
    assert view.features_at(["r1", {"patches": [[0, 1]], "grid": 0}]) == {"run": "r1", "where": {"patches": [[0, 1]], "grid": 0}}
    assert view.features_at(["r1", {"positions": [900]}]) == {"error": "Position 900 is beyond the last one, 80."}
    assert view.find_features(["r1", "dog"]) == {"run": "r1", "text": "dog"}


def test_component_builds_inside_blocks_and_is_described_to_clients() -> None:
    with gr.Blocks() as demo:
        view = FeatureView()
        gr.Button().click(lambda: None, outputs=view, api_name="look")
    returned = demo.get_api_info()["named_endpoints"]["/look"]["returns"][0]
    assert returned["type"]["type"] == "object"
