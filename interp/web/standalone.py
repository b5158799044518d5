"""A view as one HTML file that needs no server.

Text from a model, a prompt or a token never becomes markup: it travels as JSON and enters the page by `textContent`.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import jinja2

from ..errors import InterpError
from .bundle import STATIC, bundle, markup, static
from .payloads import attention, attribution, concepts, lens

_VIEWS = {
    lens.SCHEMA: ("lens", "Lens"),
    attention.SCHEMA: ("attention", "Why this word"),
    attribution.SCHEMA: ("attribution", "Attribution"),
    concepts.SCHEMA: ("concepts", "Concepts"),
}
"""Schema → the view's folder in static/, and the title of its page."""
_PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(STATIC), autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)


def checked(payload: Any, schema: str = lens.SCHEMA, view: str = "lens") -> Any:
    """The payload. One of another schema is refused here rather than in the reader's browser."""
    found = payload.get("schema") if isinstance(payload, Mapping) else type(payload).__name__
    if found != schema:
        raise InterpError(f"The {view} view reads {schema!r}; it was given {found!r}. Make its value with the {view} payload function.")
    return payload


def standalone_html(payload: Mapping[str, Any]) -> str:
    """One HTML file that shows a lens, attention, attribution or concepts payload from disk: no server, no network, nothing to install.

    The payload travels as gzip in base64, so a `</script>` in it has no effect.
    """
    schema = payload.get("schema") if isinstance(payload, Mapping) else None
    folder, title = _VIEWS.get(schema or "", _VIEWS[lens.SCHEMA])
    made = checked(payload, schema if schema in _VIEWS else lens.SCHEMA, folder)
    packed = gzip.compress(json.dumps(made, allow_nan=False, separators=(",", ":")).encode(), mtime=0)
    return _PAGES.get_template("standalone.html").render(
        title=f"{title}: {payload['model']}",
        payload=base64.b64encode(packed).decode("ascii"),
        css=static("shared/view.css") + static(f"{folder}/view.css"),
        markup=markup(folder),
        script=bundle(f"{folder}/standalone.js"),
    )
