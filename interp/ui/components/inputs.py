"""Input components that pass values on unchanged, so that `interp` checks them and its error messages reach the client.

Gradio's own components decode, round or convert values first, and answer invalid ones with a bare error and a traceback in the log.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData, JsonData
from gradio.utils import get_upload_folder
from gradio_client.utils import is_file_obj_with_meta, traverse

from ...steering.edits import UNITS
from ...tracing.select import KINDS
from .messages import refusal

# All listeners that need the model share one queue.
QUEUE: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
QUIETLY: dict[str, Any] = {**QUEUE, "show_progress": "hidden"}
# What needs no model waits for nobody.
AT_ONCE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}

_WHERE: dict[str, Any] = {
    "anyOf": [
        # First, so that gradio's documentation page puts the default in quotes.
        {"enum": list(KINDS)},
        {
            "type": "object",
            "properties": {
                "patches": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
                "box": {"type": "array", "items": {"type": "integer"}},
                "positions": {"type": "array", "items": {"type": "integer"}},
                "grid": {"type": "integer"},
            },
        },
    ],
    "description": 'a name, or an object: {"patches": [[row, column]]}, {"box": [top, left, bottom, right]} or {"positions": [i]}',
}


def check_input(block: Any, value: Any) -> None:
    """Refuse a picture or zip that is not an uploaded file, and a file in any other input, before gradio processes them."""
    if isinstance(block, Picture | PicturesZip):
        _check_uploaded(block, value)
    else:
        traverse(value, lambda _file: _refuse_file(block), is_file_obj_with_meta)


def _refuse_file(block: Any) -> None:
    raise refusal(f"{getattr(block, 'label', None) or 'This input'} takes no file. Only the picture can be uploaded.")


class Picture(gr.Image):
    """A picture, passed to functions as the path of the uploaded file.

    `interp` opens it and reads the header first, so that a huge picture is refused before it is decoded.
    """

    data_model = ImageData
    is_template = True  # rendered by gradio's own image component

    def preprocess(self, payload: Any) -> str | None:
        """The path of the uploaded file, or None."""
        return None if payload is None else payload.path


class PicturesZip(gr.File):
    """A zip of pictures, passed to functions as the path of the uploaded file, and looked through before it is unpacked."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        """The path of the uploaded file, or None."""
        return None if payload is None else payload.path


def _check_uploaded(block: Picture | PicturesZip, payload: Any) -> None:
    """Refuse everything except None and an uploaded file."""
    if payload is None:
        return
    noun = "picture" if isinstance(block, Picture) else "zip"
    as_a_file = f"Send the {noun} as a file: upload it (gradio_client: {block.label}=handle_file(path)). Paths on the server and URLs are not opened."
    path = payload.get("path") if isinstance(payload, dict) else None
    if not isinstance(path, str) or not path or not _received(path, block.GRADIO_CACHE):
        raise refusal(as_a_file)
    plain = {"size": int, "url": str, "orig_name": str, "mime_type": str, "is_stream": bool}
    wrong = [name for name, kind in plain.items() if payload.get(name) is not None and not isinstance(payload[name], kind)]
    if wrong or payload.get("is_stream") or not isinstance(payload.get("meta", {}), dict):
        raise refusal(f"The {noun}'s {wrong[0] if wrong else 'is_stream' if payload.get('is_stream') else 'meta'} is invalid. {as_a_file}")


def _received(path: str, cache: str) -> bool:
    """Whether this is a file in one of gradio's upload folders."""
    try:
        file = Path(path).resolve()
        return file.is_file() and any(file.is_relative_to(Path(folder).resolve()) for folder in (get_upload_folder(), cache))
    except (ValueError, OSError):  # not a possible file name
        return False


class Text(gr.Textbox):
    """Text; None is empty text."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The value as it arrived."""
        return "" if payload is None else payload


class Number(gr.Number):
    """A number."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The value as it arrived."""
        return payload


class Whole(Number):
    """A whole number."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The type for API clients."""
        return {"type": "integer"}


class Json(gr.JSON):
    """Plain JSON as an input."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """The value as it arrived."""
        return getattr(payload, "root", payload)

    def postprocess(self, value: Any) -> Any:
        """The value unchanged: gr.JSON would parse a string as JSON."""
        return None if value is None else JsonData(value)


class Where(Json):
    """Which tokens: a name such as "image", or an object with patches or positions."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The type for API clients."""
        return _WHERE


class Word(Json):
    """A token of the answer: its number, or a word."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The type for API clients."""
        return {
            "anyOf": [{"type": "string"}, {"type": "integer"}],
            "description": "a word of the answer, or the number of its token, from 0",
        }


class Layers(Json):
    """Layers by number, or None for all."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The type for API clients."""
        return {"type": "array", "items": {"type": "integer"}, "description": "numbers of layers"}


class Edits(Json):
    """A list of edits."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The type for API clients."""
        numbers: dict[str, Any] = {unit: {"type": "number"} for unit in UNITS}
        properties = {"feature": {"type": "integer"}, **numbers, "where": _WHERE, "sae": {"type": "string"}}
        return {
            "type": "array",
            "items": {"type": "object", "properties": properties},
            "description": 'edits such as [{"feature": 7, "target": 0, "where": "all"}], each with exactly one of strength, amount and target',
        }

    def example_payload(self) -> Any:
        """The example in the API documentation."""
        return [{"feature": 7, "target": 0}]


class Numbers(Json):
    """A list of numbers."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """The type for API clients."""
        return {"type": "array", "items": {"type": "number"}, "description": "a list of numbers"}
