"""Gradio components of our own, and how errors reach people. Knows gradio, not models."""

import functools
import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import ImageData, JsonData
from gradio.utils import get_upload_folder
from pydantic import model_validator

from ...errors import InterpError
from ...steering.edits import UNITS

P = ParamSpec("P")
R = TypeVar("R")


_AS_A_FILE = "Send the picture as a file: upload it (gradio_client: image=handle_file(path)). A path on the server is not opened."


# Every listener that needs the model waits in one queue.
QUEUE: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}


class PictureData(ImageData):
    """What arrives for a picture."""

    @model_validator(mode="before")
    @classmethod
    def plain_text_is_no_file(cls, value: Any) -> Any:
        """A bare path becomes a picture without a file, which `Picture` refuses in words; pydantic's own error would reach nobody."""
        return {} if isinstance(value, str) else value


class Picture(gr.Image):
    """A picture that reaches functions as the path of the uploaded file.

    `interp` opens it: by its header first, so that a huge one is refused before it is decoded, and with a message for what is no picture.
    gr.Image would decode it here, and answer a broken file with a bare HTTP 400.
    """

    data_model = PictureData
    is_template = True  # drawn by gradio's own image component

    def preprocess(self, payload: Any) -> str | None:
        """The file that gradio has received into its cache, or None."""
        if payload is None:
            return None
        # Gradio itself checks this only for dictionaries that call themselves files; any other path would be read off the server's disk.
        received = (Path(get_upload_folder()).resolve(), Path(self.GRADIO_CACHE).resolve())
        if not payload.path or not any(Path(payload.path).resolve().is_relative_to(folder) for folder in received):
            raise gr.Error(_AS_A_FILE, print_exception=False)
        return payload.path


class Json(gr.JSON):
    """Plain JSON as an input: what arrives is handed on as it is, and `interp` says what is wrong with it."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The word, list or object."""
        return getattr(payload, "root", payload)

    def postprocess(self, value: Any) -> Any:
        """As it is: gr.JSON takes a word for broken JSON."""
        return None if value is None else JsonData(value)


class Where(Json):
    """Tokens to look at: a word such as "image", or an object that names patches or positions."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """What API clients are told. As a string: gradio's documentation page writes the default of any other type without quotes."""
        return {
            "type": "string",
            "description": 'a word, or an object: {"patches": [[row, column]]}, {"box": [top, left, bottom, right]} or {"positions": [i]}',
        }


class Edits(Json):
    """Edits of a steered answer."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """What API clients are told."""
        numbers = {unit: {"type": "number"} for unit in UNITS}
        return {
            "type": "array",
            "items": {"type": "object", "properties": {"feature": {"type": "integer"}, **numbers, "where": {"type": "string"}}},
            "description": 'such as [{"feature": 7, "target": 0, "where": "all"}], each with exactly one of strength, amount and target',
        }

    def example_payload(self) -> Any:
        """Shown in the API documentation."""
        return [{"feature": 7, "target": 0}]


class Numbers(Json):
    """A list of numbers."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """What API clients are told."""
        return {"type": "array", "items": {"type": "number"}, "description": "a list of numbers"}


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Let an InterpError reach API clients in its own words, without a traceback in the log."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InterpError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def message(text: str, *, error: bool = False) -> str:
    """A line that says what is being done, or what went wrong."""
    return f'<div class="message{" error" if error else ""}" role="{"alert" if error else "status"}">{html.escape(text)}</div>'


FAILED = message("The server failed; its log says why. Nothing you entered is lost.", error=True)


def address(request: gr.Request) -> str:
    """What a gradio client connects to in order to reach this server: the name of the Space, or a URL."""
    return os.environ.get("SPACE_ID") or str(request.request.base_url if request.request else "").rstrip("/")


def download_buttons(
    files: Sequence[tuple[str, str, Callable[[Any], str]]], result: Callable[[str], Any], key: gr.State
) -> list[gr.Button]:
    """Buttons (label, name, writer) that make a file of the result that `key` names when they are pressed, and hand it to the browser at once.

    Hidden until there is a result; see `switched`.
    """
    buttons = []
    with gr.Row():
        for label, name, write in files:

            @reported
            def make(key: str, write: Callable[[Any], str] = write) -> str:
                return write(result(key))

            button = gr.Button(label, size="sm", visible=False, elem_id=f"make-{name}")
            ready = gr.DownloadButton(elem_id=f"ready-{name}", elem_classes="off-screen")
            button.click(make, key, ready, api_visibility="private", show_progress="hidden").success(
                None, js=f"() => {{ const a = document.querySelector('a#ready-{name}, #ready-{name} a, #ready-{name}'); a && a.click(); }}"
            )
            buttons.append(button)
    return buttons


def switched(buttons: Sequence[gr.Button], *, on: bool) -> list[gr.Button]:
    """The buttons shown or hidden. Not disabled: gradio loses the text of a disabled button in a tab that was not open yet."""
    return [gr.Button(button.value, visible=on) for button in buttons]
