"""Clear errors for bad requests, which gradio would answer with a bare 500 or `null` and a traceback in the log."""

from typing import Any

import gradio as gr
from fastapi import Depends, HTTPException, Request
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError

from ..validation import shown
from .components.inputs import check_input
from .components.messages import refusal


class CheckedBlocks(gr.Blocks):
    """gr.Blocks that refuses missing arguments and unexpected files before gradio processes them."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Raise gr.Error for too few arguments."""
        names = [getattr(block, "label", None) or "?" for block in block_fn.inputs]
        if len(inputs) < len(names):
            raise refusal(
                f"{len(inputs)} arguments were sent; {block_fn.api_name or 'this'} takes {len(names)}: {', '.join(names)}. "
                "Send all of them, in this order (gradio_client fills in the defaults)."
            )

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False) -> list[Any]:  # noqa: FBT001, FBT002 - gradio's signature
        """As in gradio, after our own checks."""
        self.validate_inputs(block_fn, inputs)
        for block, value in zip(block_fn.inputs, inputs, strict=False):
            check_input(block, value)
        values: list[Any] = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        return values


async def _in_words(request: Request, error: Exception) -> JSONResponse:
    """404 for an unknown endpoint, 422 for missing or unknown named arguments; other errors are raised again."""
    path = request.url.path
    if isinstance(error, FnIndexInferError) or (isinstance(error, KeyError) and any(part in path for part in ("/call/v2/", "/queue/join"))):
        functions = request.app.get_blocks().fns.values()
        public = sorted(f"/{fn.api_name}" for fn in functions if fn.api_visibility == "public" and fn.api_name)
        return JSONResponse({"detail": f"No such endpoint. This server has {', '.join(public)}."}, 404)
    if isinstance(error, TypeError) and "/call/v2/" in path:
        return JSONResponse({"detail": str(error)}, 422)
    raise error


async def _known_event(request: Request) -> None:
    """404 for the result of a call that was never made or has been read; gradio would raise it inside the stream, where it becomes a traceback."""
    event = request.path_params.get("event_id")
    if request.method != "GET" or event is None:
        return
    queue = request.app.get_blocks()._queue  # noqa: SLF001 - gradio offers no other way
    waiting = any(event in events for events in queue.pending_event_ids_session.values())
    if not waiting and event not in queue.event_ids_to_events and event not in queue.pending_messages_per_session:
        raise HTTPException(404, f"No call has the event id {shown(event)}, or its result has already been read. Make the call again.")


def server_options() -> dict[str, Any]:
    """For the FastAPI app that serves the page: `launch(app_kwargs=server_options())`."""
    handlers = dict.fromkeys((FnIndexInferError, KeyError, TypeError), _in_words)
    return {"exception_handlers": handlers, "dependencies": [Depends(_known_event)]}
