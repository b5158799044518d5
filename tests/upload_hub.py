"""A Hugging Face hub on this machine that takes uploads: repositories are made, and commits become files."""

import base64
import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.hub_server import TOKEN, ModelHub
from tests.sae_checkpoints import point_at
from tests.server import serve_http


class UploadHub(ModelHub):
    """A hub with what `HfApi.create_repo` and `HfApi.upload_folder` ask for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.made: list[dict[str, Any]] = []
        """What repositories were asked for."""
        self.commits: list[str] = []
        self.address = ""

    def taken(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """(status, answer) for a POST."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            self.made.append(asked)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            new = not (self.root / name).is_dir()
            self.repo(name)
            url = {"url": f"{self.address}/{name}", "name": name, "id": name}
            return (200, url) if new else (409, {"error": "You already created this model repo", **url})
        if parts == ["api", "validate-yaml"]:
            return 200, {"errors": [], "warnings": []}
        if parts[:2] != ["api", "models"] or len(parts) < 5:
            return 404, {}
        repo = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        if parts[4] == "commit":
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    self.commits.append(entry["value"]["summary"])
                if entry["key"] == "file":
                    file = self.repo(repo) / entry["value"]["path"]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(base64.b64decode(entry["value"]["content"]))
            return 200, {"commitUrl": f"{self.address}/{repo}/commit/{'1' * 40}", "commitOid": "1" * 40}
        return 404, {}


@contextlib.contextmanager
def connected(root: Path, monkeypatch: Any, token: str = TOKEN) -> Iterator[UploadHub]:
    """A hub that huggingface_hub talks to, with this token."""
    hub = UploadHub(root / "hub")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            self.reply(status, headers, body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, told = hub.taken(self.path, body) if given == TOKEN else (401, {"error": "Invalid credentials in Authorization header"})
            self.reply(status, {"Content-Type": "application/json"}, json.dumps(told).encode())

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("HF_TOKEN", token)
    with serve_http(Handler) as address:
        hub.address = address
        point_at(monkeypatch, address, root / "cache")
        yield hub
