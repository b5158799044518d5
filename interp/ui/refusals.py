"""Words for requests that gradio would answer with a bare 500 or `null`, and a traceback in the log."""

from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError

from .components.inputs import check_input
from .components.messages import refusal


class CheckedBlocks(gr.Blocks):
    """gr.Blocks that refuses too few arguments, and files where none is taken, before gradio looks at them."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """Raise gr.Error for too few arguments."""
        names = [getattr(block, "label", None) or "?" for block in block_fn.inputs]
        if len(inputs) < len(names):
            raise refusal(
                f"{len(inputs)} arguments were sent; {block_fn.api_name or 'this'} takes {len(names)}: {', '.join(names)}. "
                "Send all of them in this order (gradio_client fills in the defaults)."
            )

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False) -> list[Any]:  # noqa: FBT001, FBT002 - gradio's signature
        """As gradio's, after our own checks."""
        self.validate_inputs(block_fn, inputs)
        for block, value in zip(block_fn.inputs, inputs, strict=False):
            check_input(block, value)
        values: list[Any] = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        return values


async def _in_words(request: Request, error: Exception) -> JSONResponse:
    """404 for an endpoint that does not exist, 422 for missing or unknown named arguments; any other error goes on as it is."""
    path = request.url.path
    if isinstance(error, FnIndexInferError) or (isinstance(error, KeyError) and any(part in path for part in ("/call/v2/", "/queue/join"))):
        functions = request.app.get_blocks().fns.values()
        public = sorted(f"/{fn.api_name}" for fn in functions if fn.api_visibility == "public" and fn.api_name)
        return JSONResponse({"detail": f"There is no such endpoint. This server has {', '.join(public)}."}, 404)
    if isinstance(error, TypeError) and "/call/v2/" in path:
        return JSONResponse({"detail": str(error)}, 422)
    raise error


def server_options() -> dict[str, Any]:
    """For the FastAPI app that serves the page: `launch(app_kwargs=server_options())`."""
    return {"exception_handlers": dict.fromkeys((FnIndexInferError, KeyError, TypeError), _in_words)}
