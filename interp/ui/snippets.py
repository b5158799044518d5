"""Python code that gets what the page shows from this server."""

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import gradio as gr


def snippet(request: gr.Request, endpoint: str, image: str | None, arguments: Mapping[str, Any], *, result: str, then: str) -> str:
    """A call of one endpoint with gradio_client. `result` is the variable for what it returns, `then` the code that uses it."""
    listed = "".join(f"    {name}={_written(value)},\n" for name, value in arguments.items())
    return (
        "from gradio_client import Client, handle_file\n\n"
        f"client = Client({address(request)!r})\n"
        f"{result} = client.predict(\n"
        f"    image=handle_file({PurePath(image or 'picture.png').name!r}),  # your picture\n"
        f"{listed}"
        f"    api_name={endpoint!r},\n"
        ")\n"
        f"{then}\n"
    )


def address(request: gr.Request) -> str:
    """What gradio_client connects to: the name of the Space, or this server's URL."""
    return os.environ.get("SPACE_ID") or str(request.request.base_url if request.request else "").rstrip("/")


def _written(value: Any) -> str:
    """A value as Python code; a list has a line for each item."""
    if isinstance(value, list) and value:
        return "[\n" + "".join(f"        {item!r},\n" for item in value) + "    ]"
    return repr(value)
