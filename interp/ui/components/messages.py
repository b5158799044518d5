"""The lines that say what is being done or what went wrong."""

import functools
import html
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from ...errors import InterpError

P = ParamSpec("P")
R = TypeVar("R")


def message(text: str, *, error: bool = False) -> str:
    """A line above a result, as HTML."""
    return f'<div class="message{" error" if error else ""}" role="{"alert" if error else "status"}">{html.escape(text)}</div>'


FAILED = message("The server failed; its log says why. Nothing you entered is lost.", error=True)
FIRST_SAE = message("Loading the SAE; the first one takes a few seconds …")


def refusal(text: str) -> gr.Error:
    """An error that reaches clients in these words, without a traceback in the log."""
    return gr.Error(text, print_exception=False)


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Let an InterpError reach API clients in its own words."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InterpError as error:
            raise refusal(str(error)) from error

    return call
