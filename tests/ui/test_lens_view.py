"""The Python side of the lens view: what goes into the component and into the standalone file."""

from __future__ import annotations

import base64
import gzip
import json
import re

import gradio as gr
import pytest

from interp.errors import InterpError
from interp.ui.components.lens_view import LensView
from interp.web.standalone import standalone_html
from tests.web.lens_payload import payload


def unpack(page: str) -> dict:
    packed = re.search(r'id="payload">([^<]*)</script>', page)
    assert packed
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def test_standalone_file_carries_the_payload_unchanged() -> None:
    made = payload()
    assert unpack(standalone_html(made)) == made


def test_standalone_file_is_the_same_for_the_same_payload() -> None:
    assert standalone_html(payload()) == standalone_html(payload())


def test_standalone_file_asks_for_nothing_from_the_network() -> None:
    page = standalone_html(payload())
    assert "default-src 'none'" in page
    # The one address is the name of SVG's namespace, which is never loaded.
    assert set(re.findall(r"https?://[\w./]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<script[^>]+src|@import|url\(", page)


def test_hostile_texts_never_become_markup_in_the_standalone_file() -> None:
    attack = "</script><script>pwned()</script><img src=x onerror=pwned()>"
    harmless = standalone_html(payload())
    page = standalone_html(payload(prompt=attack, model=attack, answer=attack, notes=[attack], vocab=[attack] * 100))
    assert page.count("<script") == harmless.count("<script")
    assert page.count("</script") == harmless.count("</script")
    assert "<img" not in page
    assert "pwned()" in page
    assert unpack(page)["prompt"] == attack


def test_a_model_name_is_not_mistaken_for_a_placeholder() -> None:
    assert "<title>Lens: @css @payload</title>" in standalone_html(payload(model="@css @payload"))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        standalone_html(payload(max_entropy=float("nan")))


@pytest.mark.parametrize("value", [{}, {"schema": "llava-microscope/lens-view/1"}, "text", ["list"]])
def test_another_kind_of_value_is_refused_by_name(value: object) -> None:
    with pytest.raises(InterpError, match="llava-microscope/lens-view/2"):
        LensView().postprocess(value)  # type: ignore[arg-type]
    with pytest.raises(InterpError, match="llava-microscope/lens-view/2"):
        standalone_html(value)  # type: ignore[arg-type]


def test_component_passes_payloads_and_nothing() -> None:
    made = payload()
    assert LensView().postprocess(None) is None
    assert LensView().postprocess(made) == made
    assert LensView(made).get_config()["value"] == made
    assert LensView().api_info()["type"] == "object"


def test_server_functions_take_one_list_and_turn_errors_into_words() -> None:
    def find_word(run: str, word: str) -> dict:
        if word == "two words":
            raise InterpError("Type one word.")
        return {"spellings": [word], "values": run}

    view = LensView(server_functions=[find_word])
    assert view.get_config()["server_fns"] == ["find_word"]
    assert view.find_word(["r1", "dog"]) == {"spellings": ["dog"], "values": "r1"}
    assert view.find_word(["r1", "two words"]) == {"error": "Type one word."}


def test_server_function_of_one_argument_gets_it_as_sent() -> None:
    def ping(data: list) -> list:
        return data

    assert LensView(server_functions=[ping]).ping(["a", "b"]) == ["a", "b"]


def test_an_unexpected_error_of_a_server_function_is_not_told_to_the_reader() -> None:
    def find_word(run: str, word: str) -> dict:
        raise RuntimeError("/secret/path")

    with pytest.raises(RuntimeError):
        LensView(server_functions=[find_word]).find_word(["r1", "dog"])


def test_component_builds_inside_blocks_and_is_described_to_clients() -> None:
    with gr.Blocks() as demo:
        view = LensView()
        gr.Button().click(lambda: None, outputs=view, api_name="look")
    returned = demo.get_api_info()["named_endpoints"]["/look"]["returns"][0]
    assert returned["type"]["type"] == "object"
