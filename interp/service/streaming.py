"""Run work in a thread and show its progress from a generator."""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Result]):
    """The last item that `stream` yields."""

    result: Result


def stream(work: Callable[[Callable[[Any], None]], Result]) -> Iterator[Any]:
    """Run `work(show)` in a thread; yield what it shows, then `Done`, or raise its exception.

    A page may be slower than the model, so only the newest waiting step is yielded. The last one before the end is never dropped.
    """
    steps: queue.Queue[Any] = queue.Queue()

    def body() -> None:
        try:
            steps.put(Done(work(steps.put)))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the reader's thread
            steps.put(error)

    # In the caller's context, from which gradio knows the request.
    threading.Thread(target=contextvars.copy_context().run, args=(body,), daemon=True).start()
    while True:
        shown, end = _newest(steps)
        yield from shown
        if isinstance(end, BaseException):
            raise end
        if end is not None:
            yield end
            return


def _newest(steps: "queue.Queue[Any]") -> tuple[list[Any], Any]:
    """Wait for a step, then empty the queue: ([newest step] or [], the end or None)."""
    shown: list[Any] = []
    step = steps.get()
    while not isinstance(step, Done | BaseException):
        shown = [step]
        if steps.empty():
            return shown, None
        step = steps.get()
    return shown, step
