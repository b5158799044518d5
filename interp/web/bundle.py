"""ES modules of `static/` as one classic script, and the HTML of a view with the parts that it shares.

Gradio puts scripts into the head of its page, and the standalone page inlines them, so modules there cannot import each other by address. Each
module becomes a function that returns its exports. Only the two forms of import and the one form of export that our own modules use are understood;
anything else is an error, so the result never silently differs from what `tsc` and `node --test` see.
"""

import functools
import posixpath
import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"

_IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "(\.[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_SEVERAL = re.compile(r"^export const \w+ = [^({\[\n]*,$", re.MULTILINE)  # of which _EXPORT sees only the first
_INCLUDE = re.compile(r"^ *<!-- include (shared/\w+\.html) -->\n", re.MULTILINE)
_TYPES = re.compile(r"^/\*\* @import .* \*/\n", re.MULTILINE)  # for the type checker only
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


@functools.cache
def static(name: str) -> str:
    """The text of one file in `static/`, by its path there: "lens/view.css"."""
    return (STATIC / name).read_text(encoding="utf-8")


def markup(folder: str) -> str:
    """The HTML of one view, with what it shares with others in place of the lines that include it."""
    return _INCLUDE.sub(lambda found: static(found[1]), static(f"{folder}/view.html"))


@functools.cache
def bundle(entry: str) -> str:
    """The module `entry` and everything it imports, as one script.

    Raises ValueError for an import or export in another form, and for modules that import each other in a circle.
    """
    pieces: dict[str, str] = {}
    _add(entry, pieces, ())
    return '(() => {\n"use strict";\nconst modules = {};\n' + "\n".join(pieces.values()) + "\n})();\n"


def modules(entry: str) -> list[str]:
    """The paths of `entry` and of all modules it imports, each after those that it needs."""
    pieces: dict[str, str] = {}
    _add(entry, pieces, ())
    return list(pieces)


def _add(name: str, pieces: dict[str, str], above: tuple[str, ...]) -> None:
    if name in above:
        raise ValueError(f"These modules import each other: {' → '.join((*above, name))}.")
    if name in pieces:
        return

    def imported(match: re.Match[str]) -> str:
        names, everything, path = match.groups()
        source = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        _add(source, pieces, (*above, name))
        target = everything or "{" + names.replace(" as ", ": ") + "}"
        return f'const {target} = modules["{source}"];'

    text = _IMPORT.sub(imported, _TYPES.sub("", static(name)))
    exports, several = _EXPORT.findall(text), _SEVERAL.search(text)
    text = _EXPORT.sub("", text)
    if other := several or _OTHER.search(text):
        raise ValueError(f"{name}: cannot bundle {other[0]!r}.")
    pieces[name] = f'modules["{name}"] = (() => {{\n{text}return {{ {", ".join(exports)} }};\n}})();'
