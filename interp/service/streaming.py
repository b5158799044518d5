"""Work in a thread whose progress a generator can show. Knows nothing of what the work is."""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Result]):
    """The last thing that `stream` yields."""

    result: Result


def stream(work: Callable[[Callable[[Any], None]], Result]) -> Iterator[Any]:
    """Run `work(show)` in a thread; yield the newest thing it shows, then `Done`, or raise what it raised.

    A page is slower than a model: of several things shown meanwhile only the newest is yielded.
    """
    steps: queue.Queue[Any] = queue.Queue()

    def body() -> None:
        try:
            steps.put(Done(work(steps.put)))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
            steps.put(error)

    # In the caller's context, by which gradio tells whose request this is.
    threading.Thread(target=contextvars.copy_context().run, args=(body,), daemon=True).start()
    while True:
        step = steps.get()
        while not isinstance(step, Done | BaseException) and not steps.empty():
            step = steps.get()
        if isinstance(step, BaseException):
            raise step
        yield step
        if isinstance(step, Done):
            return
