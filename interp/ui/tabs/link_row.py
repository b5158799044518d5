"""The row of a tab with the button "Create link" and the link."""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from ...errors import InterpError
from .. import share
from ..components.inputs import AT_ONCE, Picture
from ..components.messages import message
from ..controls import EXAMPLES, Updates, Values


class LinkRow:
    """The row. `of`: what the link is to, in its label; `name`: the tab, in the ids."""

    def __init__(self, of: str, name: str) -> None:
        with gr.Row():
            self._button = gr.Button("Create link", size="sm", elem_id=f"{name}-share")
            self._box = gr.Textbox(label=f"Link to this {of}", interactive=False, buttons=["copy"], elem_id=f"{name}-link", visible=False)

    def shows(self, state: Callable[[Values], Mapping[str, Any]], inputs: set[Any], image: Picture, said: gr.HTML) -> None:
        """Link to the picture and to the state that `state` makes from the values of `inputs`. If that raises InterpError, `said` shows why."""

        def make(values: Values, request: gr.Request) -> Updates:
            base = str(request.request.base_url) if request.request else ""
            try:
                address = share.link(base, values[image], state(values), EXAMPLES)
            except (InterpError, OSError) as error:
                return {said: message(f"No link could be made: {error}", error=True)}
            return {said: "", self._box: gr.Textbox(address, visible=True)}

        self._button.click(make, {*inputs, image}, [said, self._box], **AT_ONCE)
