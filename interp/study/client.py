"""Asking a server many things: a bounded number at a time, retried with exponential back-off, every end of a request in a journal.

`ask_all` knows nothing of HTTP: `chat.py` makes the function that sends a request, and tests make their own. What a request may end in:

- an answer that `check` accepts: an entry without `failure`;
- an answer that it refuses: an entry with the answer and the reason;
- no answer: tried again if that may help (`TransientError`), else, and after the last attempt, an entry with the reason;
- something that holds for every request, such as a wrong key: InterpError, and the run ends. So it does after many failures in a row.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InterpError
from ..validation import whole_number
from .journal import Entry, Journal

Messages = list[dict[str, Any]]
"""A conversation in the format of OpenAI's chat completions."""

T = TypeVar("T")
_IN_A_ROW = 20  # requests without an answer, after which more would be in vain


class TransientError(Exception):
    """No answer this time: a later attempt may get one."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after
        """Seconds to wait at least, as the server asked."""


class RefusedError(Exception):
    """The server does not answer this request, or it cannot be made, and asking again would not change that."""


class MalformedError(Exception):
    """There is an answer, and it cannot be used. The message says why; it is part of the journal."""


@dataclass(frozen=True)
class Request:
    """One thing to ask."""

    key: str
    """Its name in the journal."""
    messages: Callable[[], Messages]
    """Called when the request is about to be sent: the pictures of thousands of requests do not fit in memory."""


@dataclass(frozen=True)
class Reply:
    """What a server sent back."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    cut_off: bool = False
    """Whether the answer reached its largest allowed length."""


Send = Callable[[Messages], Awaitable[Reply]]


@dataclass(frozen=True)
class Retry:
    """How often a request is sent, and how long to wait in between.

    The wait is `first` seconds, doubled every time up to `longest`, less a random part of up to half, so that many clients do not come back
    together; never less than the server asked for.
    """

    attempts: int = 8
    first: float = 1.0
    longest: float = 60.0
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    def wait(self, attempt: int, after: float) -> float:
        """Seconds from the end of this attempt (the first is 1) to the next."""
        backoff = min(self.longest, self.first * 2 ** (attempt - 1))
        return max(after, backoff * random.uniform(0.5, 1.0))


def unasked(requests: Sequence[Request], journal: Journal, *, retry_failed: bool) -> list[Request]:
    """The requests that `ask_all` would send. Raises InterpError if two have the same key."""
    if len({request.key for request in requests}) < len(requests):
        raise InterpError("Two requests have the same key; each needs its own.")
    done = journal.entries
    return [request for request in requests if request.key not in done or (retry_failed and done[request.key].failure)]


async def ask_all(
    requests: Sequence[Request],
    send: Send,
    journal: Journal,
    *,
    check: Callable[[str], object],
    concurrency: int = 8,
    retry: Retry | None = None,
    retry_failed: bool = False,
    on_entry: Callable[[Entry], None] | None = None,
) -> Mapping[str, Entry]:
    """Every request's entry, in the order of `requests`, whatever the order in which the answers arrive.

    What the journal holds already is not asked again, unless it failed and `retry_failed` is set. `check` raises `MalformedError` for a text that
    cannot be used. At most `concurrency` requests are under way. `on_entry` gets every new entry.

    Raises InterpError if the server refuses all requests, or 20 in a row; the journal then holds all that ended before.
    """
    run = _Run(send, journal, check, retry or Retry(), on_entry)
    waiting = iter(unasked(requests, journal, retry_failed=retry_failed))
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(whole_number("concurrency", concurrency, 1)):
                group.create_task(run.work(waiting))
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return {request.key: journal.entries[request.key] for request in requests}


@dataclass
class _Run:
    send: Send
    journal: Journal
    check: Callable[[str], object]
    retry: Retry
    on_entry: Callable[[Entry], None] | None
    in_vain: int = 0
    """Requests without an answer since the last answer."""

    async def work(self, waiting: Iterator[Request]) -> None:
        """Ask one request after the other, sharing them with the other workers."""
        for request in waiting:
            entry, answered = await self.ask(request)
            self.journal.add(entry)
            if self.on_entry:
                self.on_entry(entry)
            self.in_vain = 0 if answered else self.in_vain + 1
            if self.in_vain >= _IN_A_ROW:
                raise InterpError(
                    f"{self.in_vain} requests in a row got no answer, the last because of: {entry.failure}. "
                    "See to the server, then run the same command with --retry-failed."
                )

    async def ask(self, request: Request) -> tuple[Entry, bool]:
        """How a request ended, and whether the server is not to blame if there was no answer."""
        try:
            messages = request.messages()
        except RefusedError as error:
            return Entry(request.key, failure=str(error), attempts=0), True  # says nothing about the server
        attempt = 0
        while True:
            attempt += 1
            begun = time.perf_counter()
            try:
                reply = await self.send(messages)
            except RefusedError as error:
                return Entry(request.key, failure=str(error), attempts=attempt), False
            except TransientError as error:
                if attempt == self.retry.attempts:
                    return Entry(request.key, failure=str(error), attempts=attempt), False
                await self.retry.sleep(self.retry.wait(attempt, error.after))
                continue
            seconds = round(time.perf_counter() - begun, 3)
            return Entry(request.key, reply.text, self.fault(reply), attempt, seconds, reply.tokens_in, reply.tokens_out), True

    def fault(self, reply: Reply) -> str:
        """Why an answer cannot be used, "" if it can."""
        if reply.cut_off:
            return "the answer was cut off at the largest number of tokens: raise --max-tokens"
        try:
            self.check(reply.text)
        except MalformedError as error:
            return str(error)
        return ""


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns. In a thread of its own where this one has an event loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
