"""A small cache: the most recently used values under their keys."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Protocol, TypeVar

Value = TypeVar("Value")


class Sized(Protocol):
    """Something that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


class Recent(Generic[Value]):
    """At most `most` values and `max_bytes` bytes; the least recently used goes first, and the newest always stays. Thread-safe.

    `parts(value)` lists what a value keeps in memory; a part that several values share is counted once.
    """

    def __init__(self, most: int, max_bytes: int, parts: Callable[[Value], Iterable[Sized]]) -> None:
        self._most, self._max_bytes, self._parts = most, max_bytes, parts
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: Hashable) -> Value | None:
        """The value under this key, if it is still kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Keep a value, and drop the least recently used ones while there is too much."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > 1 and (len(self._values) > self._most or self.nbytes > self._max_bytes):
                self._values.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes held by the values."""
        with self._lock:
            parts = {id(part): part for value in self._values.values() for part in self._parts(value)}
        return sum(part.nbytes for part in parts.values())

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()
