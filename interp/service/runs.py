"""Runs that a visitor can stop."""

import contextlib
import threading
from collections.abc import Iterator


class Runs:
    """The run that each visitor's page is waiting for."""

    def __init__(self) -> None:
        self._running: dict[str, threading.Event] = {}

    @contextlib.contextmanager
    def running(self, visitor: str | None) -> Iterator[threading.Event]:
        """An event that `stop` sets for this visitor. It is also set when the block ends, so that no run goes on without a reader."""
        event = threading.Event()
        if visitor is not None:
            self._running[visitor] = event
        try:
            yield event
        finally:
            event.set()
            if visitor is not None and self._running.get(visitor) is event:
                del self._running[visitor]

    def stop(self, visitor: str | None) -> None:
        """Stop the run that this visitor's page is waiting for."""
        if visitor is not None and (event := self._running.get(visitor)):
            event.set()
