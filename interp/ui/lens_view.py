"""The lens view: a gradio component for the page, and the same view as one HTML file that needs no server.

Both are made of the files in `static/`, which build everything from one payload (see `SCHEMA`); nothing here looks inside it
beyond its schema. Knows gradio and how scripts get into a page. Knows nothing of models, traces or how a payload is made.

Text from a model, a prompt or a token never becomes markup: it travels as JSON and goes into the page by `textContent`.
"""

from __future__ import annotations

import base64
import functools
import gzip
import html
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from interp.errors import InterpError

SCHEMA = "llava-microscope/lens-view/1"
STATIC = Path(__file__).parent / "static"
# In this order: each file adds to one global object, and lens.js, the last, uses them all.
SCRIPTS = ("lens_data.js", "lens_picture.js", "lens_readout.js", "lens_table.js", "lens_find.js", "lens_legend.js", "lens.js")

# Runs once per component, after the scripts in its head. `find_word` is one of the creator's server functions or absent.
_ON_LOAD = """
const findWord = server && server.find_word ? (word, payload) => server.find_word(payload.run ?? null, word) : null;
const view = LlavaLens.mount(element, { findWord });
view.set(props.value || null);
watch('value', () => view.set(props.value || null));
"""

# `default-src 'none'` makes "no network" something the browser enforces rather than something this file promises.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>@title</title>
<style>
:root { color-scheme: light dark; }
body { margin: 0; padding: 20px max(16px, calc((100vw - 1180px) / 2)); background: #ffffff; }
@media (prefers-color-scheme: dark) { body { background: #101318; } }
@css
</style>
</head>
<body>
@markup
<noscript>This file shows its contents with JavaScript, which is switched off here. It loads nothing from the network.</noscript>
<script type="text/plain" id="payload">@payload</script>
<script>@script</script>
<script>
(async () => {
  const view = LlavaLens.mount(document.body, { followSystem: true });
  try {
    const packed = LlavaLens.bytes(document.getElementById("payload").textContent);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    await view.set(JSON.parse(await new Response(stream).text()));
  } catch (error) {
    view.message("This file could not be unpacked: " + error.message, true);
  }
})();
</script>
</body>
</html>
"""


@functools.cache
def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@functools.cache
def _script() -> str:
    return "\n".join(_static(name) for name in SCRIPTS)


def _checked(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload, refused here rather than in the reader's browser when it is of another kind."""
    found = payload.get("schema") if isinstance(payload, dict) else type(payload).__name__
    if found != SCHEMA:
        raise InterpError(f"The lens view reads {SCHEMA!r}; it was given {found!r}. Make its value with the lens payload function.")
    return payload


def standalone_html(payload: dict[str, Any]) -> str:
    """One HTML file that shows `payload` from disk: no server, no network, nothing to install.

    The payload travels as gzip in base64, which also keeps any `</script>` in it inert.
    """
    packed = gzip.compress(json.dumps(_checked(payload), allow_nan=False, separators=(",", ":")).encode(), mtime=0)
    title = f"Logit lens: {payload['model']}"
    parts = {
        "title": html.escape(title),
        "css": _static("lens.css"),
        "markup": _static("lens.html"),
        "payload": base64.b64encode(packed).decode("ascii"),
        "script": _script(),
    }
    head, *rest = _PAGE.split("@")
    page = [head]
    for piece in rest:
        # Split, not replaced one after another: a model name with "@css" in it must stay a name.
        name = next((name for name in parts if piece.startswith(name)), None)
        page.append(f"@{piece}" if name is None else parts[name] + piece[len(name) :])
    return "".join(page)


def _as_server_function(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """`function(run, word)` in the shape gradio calls: one list of arguments in, and an `InterpError` as {"error": text}."""
    several = len(inspect.signature(function).parameters) > 1

    # No functools.wraps: gradio would read the signature of the wrapped function and count its arguments.
    def call(data: Any) -> Any:
        try:
            return function(*data) if several else function(data)
        except InterpError as error:
            return {"error": str(error)}

    call.__name__ = function.__name__
    return call


class LensView(gr.HTML):
    """The interactive logit lens. Its value is a lens payload (a dict), or None for "nothing to look at yet".

    A server function named `find_word`, called as `find_word(run, word)` with the payload's "run", answers searches with
    {"spellings": [str], "values": base64 of uint8 [layers, T]} or {"error": str}; raising `InterpError` is the same as the latter.
    Without it the view searches the words it holds, and says so.
    """

    def __init__(
        self,
        value: dict[str, Any] | None = None,
        *,
        label: str | None = "Logit lens",
        server_functions: list[Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label,
            html_template=_static("lens.html"),
            css_template=_static("lens.css"),
            js_on_load=_ON_LOAD,
            # In the head and not in js_on_load: several views on a page share it, and gradio takes every quoted word
            # in js_on_load for the name of an event.
            head=f"<script>{_script()}</script>",
            apply_default_css=False,
            server_functions=[_as_server_function(f) for f in server_functions or []],
            **kwargs,
        )

    def preprocess(self, payload: dict[str, Any] | None) -> dict[str, Any] | None:
        """The payload as it is."""
        return payload or None

    def postprocess(self, value: dict[str, Any] | None) -> dict[str, Any] | None:  # type: ignore[override]
        """Send a lens payload to the page; None empties the view."""
        return None if value is None else _checked(value)

    def api_info(self) -> dict[str, Any]:
        """What API clients are told the value is."""
        return {"type": "object", "description": f"lens view payload, schema {SCHEMA}", "properties": {"schema": {"type": "string"}}}

    def example_payload(self) -> Any:
        """An empty view."""
        return None

    def example_value(self) -> Any:
        """An empty view."""
        return None
