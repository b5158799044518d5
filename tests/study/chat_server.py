"""A server of OpenAI's chat completions on this machine that follows a script."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.server import serve_http


@dataclass(frozen=True)
class Says:
    """One answer of the server."""

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    """Instead of a chat completion."""
    finish: str = "stop"
    never: bool = False
    """Not before the server closes."""
    hang_up: bool = False
    """Close the connection instead."""

    def written(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        message = {"role": "assistant", "content": self.text}
        return json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "fake",
                "choices": [{"index": 0, "finish_reason": self.finish, "message": message}],
                "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
            }
        ).encode()


@dataclass
class ChatServer:
    """What to say, and what was asked."""

    say: Callable[[str, int], Says | str]
    """From the last text of the conversation and the number of earlier requests with it."""
    before: Callable[[], object] = lambda: None
    """Called in every request, before it is answered."""
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most: int = 0
    """Requests that were under way together."""
    _now: int = 0
    _times: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def texts(self) -> list[str]:
        return [text_of(body) for body in self.asked]

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Says:
        if path.partition("?")[0] != "/v1/chat/completions":
            return Says(status=404, body='{"error": "no such path"}')
        text = text_of(body)
        with self._lock:
            self.asked.append(body)
            self.headers.append(headers)
            self._now += 1
            self.most = max(self.most, self._now)
            times = self._times[text] = self._times.get(text, -1) + 1
        try:
            self.before()
            said = self.say(text, times)
            if isinstance(said, str):
                said = Says(said)
            if said.never:
                self.closing.wait(60)
            return said
        finally:
            with self._lock:
                self._now -= 1


def text_of(body: dict[str, Any]) -> str:
    """The last text of a request's conversation."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else next(part["text"] for part in reversed(content) if part["type"] == "text")


@contextlib.contextmanager
def serve_chat(say: Callable[[str, int], Says | str], before: Callable[[], object] = lambda: None) -> Iterator[ChatServer]:
    """A running server."""
    chat = ChatServer(say, before)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = chat.answer(self.path, dict(self.headers), body)
            if said.hang_up:
                self.close_connection = True
                return
            written = said.written()
            with contextlib.suppress(OSError):  # who asked may have given up
                self.send_response(said.status)
                for name, value in {**said.headers, "Content-Type": "application/json", "Content-Length": str(len(written))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(written)

        def log_message(self, *_: object) -> None:
            pass

    with serve_http(Handler) as url:
        chat.url = f"{url}/v1"
        try:
            yield chat
        finally:
            chat.closing.set()
