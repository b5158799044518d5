"""Status and error messages."""

import functools
import html
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gradio as gr

from ...errors import InterpError

P = ParamSpec("P")
R = TypeVar("R")


def message(text: str, *, error: bool = False) -> str:
    """A message above a result, as HTML."""
    return f'<div class="message{" error" if error else ""}" role="{"alert" if error else "status"}">{html.escape(text)}</div>'


FAILED = message("Something went wrong on the server; see its log. Your input is still here.", error=True)
FIRST_SAE = message("Loading the SAE. The first time takes a few seconds …")


def refusal(text: str) -> gr.Error:
    """An error whose message reaches clients, without a traceback in the log."""
    return gr.Error(text, print_exception=False)


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Pass the message of an InterpError on to API clients."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InterpError as error:
            raise refusal(str(error)) from error

    return call
