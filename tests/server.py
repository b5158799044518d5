"""The real app in a process of its own, as a user starts it; and a way to run small HTTP servers."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Served:
    """A running app."""

    url: str
    pid: int
    log: Callable[[], str]
    """What it has printed so far."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def serve(*options: str) -> Iterator[Served]:
    """Run `python app.py` with these options until the block ends; yields once the page is there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    model = () if "--model" in options else ("--model", "emoji-llava")  # with a GPU the default would be a large one
    # Threads that wait for one another are slow where other processes want the processor too.
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        app = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), *model, *options], cwd=ROOT, stdout=log, stderr=log, env=environment
        )
        try:
            _wait(url, app, log)
            # By pread, which leaves alone the offset that the app writes at.
            yield Served(url, app.pid, lambda: os.pread(log.fileno(), os.fstat(log.fileno()).st_size, 0).decode(errors="replace"))
        finally:
            app.terminate()
            app.wait(20)


@contextlib.contextmanager
def serve_http(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine that answers as `handler` says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _wait(url: str, app: subprocess.Popen[bytes], log: "tempfile._TemporaryFileWrapper[bytes]") -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if app.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"app.py stopped with {app.returncode}:\n{log.read().decode()[-4000:]}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"app.py did not answer within {PATIENCE:.0f} s")
