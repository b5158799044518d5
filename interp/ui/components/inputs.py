"""Input components that hand on what arrives, so that `interp` checks it and refuses it in its own words.

Gradio's own would decode, round or convert it first, and answer what they cannot take with a bare error and a traceback in the log.
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

# Every listener that needs the model waits in one queue.
QUEUE: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}

_AS_A_FILE = (
    "Send the picture as a file: upload it (gradio_client: image=handle_file(path)). A path on the server or an address is not opened."
)
_WHERE: dict[str, Any] = {
    "anyOf": [
        # First: by it gradio's documentation page knows to put the default in quotes.
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
    "description": 'a word, or an object: {"patches": [[row, column]]}, {"box": [top, left, bottom, right]} or {"positions": [i]}',
}


def check_input(block: Any, value: Any) -> None:
    """Refuse a picture that is not an uploaded file, and a file anywhere else, before gradio looks at either."""
    if isinstance(block, Picture):
        block.check(value)
    else:
        traverse(value, lambda _file: _refuse_file(block), is_file_obj_with_meta)


def _refuse_file(block: Any) -> None:
    raise refusal(f"{getattr(block, 'label', None) or 'This input'} takes no file. Only the picture is uploaded.")


class Picture(gr.Image):
    """A picture that reaches functions as the path of the uploaded file.

    `interp` opens it: by its header first, so that a huge one is refused before it is decoded.
    """

    data_model = ImageData
    is_template = True  # drawn by gradio's own image component

    def check(self, payload: Any) -> None:
        """Refuse everything but nothing at all and a file that gradio received."""
        if payload is None:
            return
        path = payload.get("path") if isinstance(payload, dict) else None
        if not isinstance(path, str) or not path or not self._received(path):
            raise refusal(_AS_A_FILE)
        plain = {"size": int, "url": str, "orig_name": str, "mime_type": str, "is_stream": bool}
        wrong = [name for name, kind in plain.items() if payload.get(name) is not None and not isinstance(payload[name], kind)]
        if wrong or payload.get("is_stream") or not isinstance(payload.get("meta", {}), dict):
            raise refusal(f"The picture is described by a {wrong[0] if wrong else 'meta'} of the wrong kind. {_AS_A_FILE}")

    def _received(self, path: str) -> bool:
        """Whether this is a file in one of the folders where gradio puts what it receives."""
        try:
            file = Path(path).resolve()
            return file.is_file() and any(
                file.is_relative_to(Path(folder).resolve()) for folder in (get_upload_folder(), self.GRADIO_CACHE)
            )
        except (ValueError, OSError):  # a name that no file can have
            return False

    def preprocess(self, payload: Any) -> str | None:
        """The path of the uploaded file, or None."""
        return None if payload is None else payload.path


class Text(gr.Textbox):
    """A line of text; nothing at all is an empty one."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """What arrived."""
        return "" if payload is None else payload


class Number(gr.Number):
    """A number."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        """What arrived."""
        return payload


class Whole(Number):
    """A whole number."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """What API clients are told."""
        return {"type": "integer"}


class Json(gr.JSON):
    """Plain JSON as an input."""

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
        """What API clients are told."""
        return _WHERE


class Edits(Json):
    """Edits of a steered answer."""

    is_template = True

    def api_info(self) -> dict[str, Any]:
        """What API clients are told."""
        numbers: dict[str, Any] = {unit: {"type": "number"} for unit in UNITS}
        properties = {"feature": {"type": "integer"}, **numbers, "where": _WHERE, "sae": {"type": "string"}}
        return {
            "type": "array",
            "items": {"type": "object", "properties": properties},
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
