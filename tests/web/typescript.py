"""The types of all payloads for the browser code, written from the TypedDicts in interp/web/payloads.

`python -m tests.web.typescript` rewrites interp/web/static/payloads.d.ts.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, get_args, get_origin, get_type_hints

from interp.web.bundle import STATIC
from interp.web.payloads import attention, attribution, concepts, edits, features, flow, lens, lens_texts, scene, steer, study, whatif

FILE = STATIC / "payloads.d.ts"
_SIMPLE = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def declarations() -> str:
    """The whole file."""
    made = [
        _interface(found)
        for module in (scene, lens_texts, lens, features, edits, steer, attention, attribution, whatif, flow, concepts, study)
        for found in _own(module)
    ]
    return "// Written by `python -m tests.web.typescript` from the TypedDicts in interp/web/payloads. Do not edit.\n\n" + "\n".join(made)


def _own(module: types.ModuleType) -> list[Any]:
    found = [value for value in vars(module).values() if typing.is_typeddict(value) and value.__module__ == module.__name__]
    return list(dict.fromkeys(found))  # a type with a second name counts once


def _interface(found: Any) -> str:
    fields = "".join(f"  {name}: {_type(hint)};\n" for name, hint in get_type_hints(found).items())
    about = " ".join((inspect.getdoc(found) or "").split())
    return f"/** {about} */\nexport interface {found.__name__} {{\n{fields}}}\n"


def _type(hint: Any) -> str:
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if typing.is_typeddict(hint):
        return str(hint.__name__)
    if get_origin(hint) is list:
        inner = _type(*get_args(hint))
        return f"({inner})[]" if "|" in inner else f"{inner}[]"
    if get_origin(hint) in (types.UnionType, typing.Union):
        return " | ".join(map(_type, get_args(hint)))
    raise TypeError(f"No TypeScript for {hint!r}.")


if __name__ == "__main__":
    FILE.write_text(declarations(), encoding="utf-8")
