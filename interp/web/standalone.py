"""The lens view as one HTML file that needs no server, and the static parts of all views.

The file and the page are made of the files in `static/`, which build everything from one payload (`payload.lens_payload`). Knows how scripts get into a file,
not gradio, models or traces.

Text from a model, a prompt or a token never becomes markup: it travels as JSON and goes into the page by `textContent`.
"""

import base64
import functools
import gzip
import html
import json
from pathlib import Path
from typing import Any

from ..errors import InterpError
from .payloads.lens import SCHEMA

STATIC = Path(__file__).parent / "static"
# In this order: each file adds to one global object, and the last of a view uses them all.
SHARED = ("lens_shared.js", "lens_canvas.js")
SCRIPTS = (*SHARED, "lens_data.js", "lens_picture.js", "lens_readout.js", "lens_table.js", "lens_find.js", "lens_legend.js", "lens.js")

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
def static(name: str) -> str:
    """One file of the view."""
    return (STATIC / name).read_text(encoding="utf-8")


@functools.cache
def script(names: tuple[str, ...] = SCRIPTS) -> str:
    """All of a view's code, in order; the lens view's unless told otherwise."""
    return "\n".join(static(name) for name in names)


def checked(payload: dict[str, Any], schema: str = SCHEMA, view: str = "lens") -> dict[str, Any]:
    """The payload, refused here rather than in the reader's browser when it is of another kind."""
    found = payload.get("schema") if isinstance(payload, dict) else type(payload).__name__
    if found != schema:
        raise InterpError(f"The {view} view reads {schema!r}; it was given {found!r}. Make its value with the {view} payload function.")
    return payload


def standalone_html(payload: dict[str, Any]) -> str:
    """One HTML file that shows `payload` from disk: no server, no network, nothing to install.

    The payload travels as gzip in base64, which also keeps any `</script>` in it inert.
    """
    packed = gzip.compress(json.dumps(checked(payload), allow_nan=False, separators=(",", ":")).encode(), mtime=0)
    title = f"Logit lens: {payload['model']}"
    parts = {
        "title": html.escape(title),
        "css": static("lens.css"),
        "markup": static("lens.html"),
        "payload": base64.b64encode(packed).decode("ascii"),
        "script": script(),
    }
    head, *rest = _PAGE.split("@")
    page = [head]
    for piece in rest:
        # Split, not replaced one after another: a model name with "@css" in it must stay a name.
        name = next((name for name in parts if piece.startswith(name)), None)
        page.append(f"@{piece}" if name is None else parts[name] + piece[len(name) :])
    return "".join(page)
