"""A Hugging Face hub on this machine: gated and private repositories, byte ranges, and connections that break."""

import contextlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants

from tests.sae_checkpoints import Hub, point_at
from tests.server import serve_http

TOKEN = "hf_of-a-member"


class ModelHub(Hub):
    """A `Hub` with what can stop a download."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gated: set[str] = set()
        self.private: set[str] = set()
        self.down = 0
        """The status of every answer, if not 0."""
        self.breaks: dict[str, int] = {}
        """File → how many more times its body ends halfway."""
        self.sent: list[tuple[str, int]] = []
        """(file, first byte) of every file body that was sent."""

    def refusal(self, path: str, token: str | None) -> tuple[int, dict[str, str], bytes] | None:
        """The answer if the holder of this token may not see the path, else None."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        if self.down:
            return self.down, {}, b""
        if token not in {None, TOKEN}:
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
        if repo in self.private and token is None:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if repo in self.gated and not api and token is None:  # its file list is public
            return 401, {"X-Error-Code": "GatedRepo"}, b""
        return None


@contextlib.contextmanager
def serve(hub: ModelHub) -> Iterator[str]:
    """The address of a running hub."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            status, headers, body = hub.refusal(self.path, token) or hub.answer(self.path)
            start, length = 0, len(body)
            if status == 200 and (asked := self.headers.get("Range")):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                status, headers = 206, headers | {"Content-Range": f"bytes {start}-{length - 1}/{length}"}
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(length - start)}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            end = length
            if "/resolve/" in self.path and status in {200, 206}:
                file = self.path.rpartition("/")[2]
                hub.sent.append((file, start))
                if hub.breaks.get(file):
                    hub.breaks[file] -= 1
                    end = start + (length - start) // 2
                    self.close_connection = True
            self.wfile.write(body[start:end])

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with serve_http(Handler) as url:
        yield url


@contextlib.contextmanager
def connected(tmp_path: Path, monkeypatch: Any) -> Iterator[ModelHub]:
    """A hub that huggingface_hub talks to, with a cache of its own and nobody logged in."""
    hub = ModelHub(tmp_path / "hub")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # of a connection that breaks, whole chunks are kept
    with serve(hub) as address:
        point_at(monkeypatch, address, tmp_path / "cache")
        yield hub
