"""Buttons that write a result to a file when pressed and start its download."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from .messages import reported

Files = Sequence[tuple[str, str, Callable[[Any], str]]]
"""(label, name, writer) for each button; the writer takes the result and returns the path of its file."""


def download_buttons(files: Files, result: Callable[..., Any], *keys: gr.State) -> list[gr.Button]:
    """Download buttons for the result with these keys. Hidden until there is one; see `switched`."""
    buttons = []
    with gr.Row():
        for label, name, write in files:

            @reported
            def make(*values: Any, write: Callable[[Any], str] = write) -> str:
                return write(result(*values))

            button = gr.Button(label, size="sm", visible=False, elem_id=f"make-{name}")
            ready = gr.DownloadButton(elem_id=f"ready-{name}", elem_classes="off-screen")
            button.click(make, list(keys), ready, api_visibility="private", show_progress="hidden").success(
                None, js=f"() => {{ const a = document.querySelector('a#ready-{name}, #ready-{name} a, #ready-{name}'); a && a.click(); }}"
            )
            buttons.append(button)
    return buttons


def switched(buttons: Sequence[gr.Button], *, on: bool) -> dict[Any, Any]:
    """Updates that show or hide the buttons. They are not disabled, because gradio loses a disabled button's text in a tab not opened yet."""
    return {button: gr.Button(button.value, visible=on) for button in buttons}
