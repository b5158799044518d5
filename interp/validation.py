"""Checks of arguments: numbers, text, choices, lists and objects, one rule for each.

A number may be Python's, numpy's or a torch scalar (a tensor without dimensions); a whole number may be written 5.0, as JSON clients do. A
boolean is never a number. Each check returns the value as a plain Python object or raises InterpError with the argument's name, its value
(shortened) and what it must be.
"""

import contextlib
import math
import os
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

from .errors import InterpError

T = TypeVar("T")
_MOST = 1_000_000  # entries of a list of numbers
LONGEST_PATH = 4096  # characters; longer ones exist on no system
_LONGEST = 200  # characters of a value in a message


def whole_number(name: str, value: object, low: int, high: int | None = None, *, hint: str = "") -> int:
    """`value` as an int from `low` to `high` (what 64 bits hold, if there is no other limit); `hint` says where the limit comes from."""
    number, top = as_whole(value), 2**63 - 1 if high is None else high
    if number is None or not low <= number <= top:
        limits = f"of at least {low}" if high is None and (number is None or number < low) else f"from {low} to {top}"
        raise InterpError(f"{name} is {shown(value)}; it must be a whole number {limits}{hint and ', '}{hint}.")
    return number


def finite_number(name: str, value: object, low: float | None = None, high: float | None = None) -> float:
    """`value` as a float, or as an int if a float holds it exactly, from `low` to `high`."""
    number = as_number(value)
    if number is None:
        raise InterpError(f"{name} is {shown(value)}; it must be a finite number.")
    if (low is not None and number < low) or (high is not None and number > high):
        limits = f"of at least {low}" if high is None else f"of at most {high}" if low is None else f"from {low} to {high}"
        raise InterpError(f"{name} is {shown(value)}; it must be a finite number {limits}.")
    return number


def index(what: str, value: object, low: int, high: int, there_are: str) -> int:
    """The number of something that exists, such as "Layer" 3; `there_are` says which do."""
    number = as_whole(value)
    if number is None or not low <= number <= high:
        raise InterpError(f"{what} {shown(value)} does not exist: {there_are}.")
    return number


def one_of(name: str, value: object, choices: Iterable[T]) -> T:
    """The one of `choices` that equals `value` and has its type."""
    choices = list(choices)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    raise InterpError(f"{name} is {shown(value)}; it must be one of {', '.join(map(str, choices))}.")


def text(name: str, value: object, max_length: int | None = None) -> str:
    """A string of at most `max_length` characters that can be written as UTF-8."""
    if not isinstance(value, str):
        raise InterpError(f"{name} is {shown(value)}; it must be text.")
    if max_length is not None and len(value) > max_length:
        raise InterpError(f"{name} has {len(value)} characters; it must have at most {max_length}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InterpError(
            f"{name} holds half of a character ({value[error.start]!a} at place {error.start}), which cannot be written as UTF-8. Remove it."
        ) from error
    return value


def sequence(name: str, value: object, of: str, *, empty: bool = False) -> Collection[Any]:
    """`value` if it is a list, tuple, range or array and, unless `empty` is allowed, holds something. `of` says what it must hold."""
    count = -1
    if isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray | Mapping | AbstractSet):
        with contextlib.suppress(Exception):  # an array without dimensions has no length
            count = len(value)
    if not isinstance(value, Collection) or count < (0 if empty else 1):
        raise InterpError(f"{name} is {shown(value)}; it must be a list of {of}.")
    if count > _MOST:  # range(10**12) is quickly written
        raise InterpError(f"{name} has {count} entries; it must have at most {_MOST}.")
    return value


def whole_numbers(name: str, value: object) -> list[int]:
    """The whole numbers of a list that holds at least one."""
    numbers = [as_whole(each) for each in sequence(name, value, "whole numbers")]
    if None in numbers:
        raise InterpError(f"{name} is {shown(value)}; every entry must be a whole number.")
    return [number for number in numbers if number is not None]


def instance(name: str, value: object, kind: type[T], hint: str) -> T:
    """`value` if it is of this class. `hint` says how to come by one, as in "an SAE, such as interp.load_sae(...) returns"."""
    if not isinstance(value, kind):
        raise InterpError(f"{name} is {shown(value)}; it must be {hint}.")
    return value


def mapping(what: str, value: object) -> Mapping[str, Any]:
    """A mapping, as a JSON object arrives. `what` begins the error message."""
    if not isinstance(value, Mapping):
        raise InterpError(f"{what} is {shown(value)}; it must be an object.")
    return value


def function(name: str, value: Callable[..., Any] | None) -> None:
    """Refuse what is neither None nor callable."""
    if value is not None and not callable(value):
        raise InterpError(f"{name} is {shown(value)}; it must be a function, or None.")


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that is only like one of them."""
    if not isinstance(value, bool):
        raise InterpError(f"{name} is {shown(value)}; it must be True or False.")
    return value


def file_path(name: str, value: object) -> Path:
    """A path, given as text or as a path object."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not path or "\0" in path:
        raise InterpError(f"{name} is {shown(value)}; it must be the path of a file.")
    return Path(text(name, path, LONGEST_PATH))


def as_whole(value: object) -> int | None:
    """`value` as an int, None if it is no whole number."""
    plain = _plain(value)
    if isinstance(plain, float):
        return int(plain) if plain.is_integer() else None
    return plain


def as_number(value: object) -> float | None:
    """`value` as a finite float, or as an int if a float holds it exactly; None if it is neither."""
    plain = _plain(value)
    if plain is None or not abs(plain) <= sys.float_info.max:  # as infinity and NaN are not
        return None
    return plain if abs(plain) <= 2**53 else float(plain)


def _plain(value: object) -> int | float | None:
    """A number of Python, numpy or torch as one of Python; None for anything else, booleans too."""
    if not isinstance(value, int | float):
        with contextlib.suppress(Exception):  # a tensor on the meta device has no value, and most objects have no shape
            value = value.item() if value.shape == () else value  # type: ignore[attr-defined]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) else float(value)


def shown(value: object) -> str:
    """`value` as a message shows it: on one line, cut short, whatever it is."""
    try:
        written = _SHORT.repr(value)
        return written if len(written) <= _LONGEST else f"{written[: _LONGEST - 1]}…"
    except Exception:  # noqa: BLE001 - the repr of a stranger's class may raise anything, and the message is about something else
        return f"a {type(value).__name__}"


class _Short(reprlib.Repr):
    """Plain values as Python writes them, cut short; everything else by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 8
        self.maxlevel = 3

    def repr1(self, x: Any, level: int) -> str:
        if x is None or isinstance(x, bool | int | float | str | bytes | list | tuple | dict | set | frozenset | range):
            return super().repr1(x, level)
        kind, shape = type(x).__name__, None
        with contextlib.suppress(Exception):
            shape = x.shape
        if shape == ():
            return super().repr1(x, level)
        sort = f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}"
        return f"{sort} of shape {list(shape)}" if isinstance(shape, tuple) else sort

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - the signature of reprlib
        """The first digits of a long number; one of thousands of digits cannot even be written."""
        if abs(x) < 10**30:
            return repr(x)
        digits = int(abs(x).bit_length() * math.log10(2)) + 1
        leading = str(abs(x) // 10 ** (digits - 12))[:10] if digits < 4000 else ""
        return f"{'-' if x < 0 else ''}{leading}… ({digits} digits)"


_SHORT = _Short()
