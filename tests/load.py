"""Many visitors at once on one server: does each get what it would get alone, and is nothing left behind?

Used by the test suite (short) and by `python -m tests.bench load` (full).
"""

import itertools
import json
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

EXAMPLES = Path(__file__).parents[1] / "assets" / "examples"
PICTURES = ("dog-and-pizza", "three-things", "one-owl", "held-out-vendor")
SESSIONS = 8


@dataclass(frozen=True)
class Request:
    """One call of one endpoint."""

    endpoint: str
    arguments: tuple[tuple[str, Any], ...]

    def send(self, client: Client) -> str:
        """Its answer as text that can be compared: files by content, run keys and figures that only rounding changes left out."""
        arguments = {
            name: handle_file(EXAMPLES / f"{value}.webp") if name == "image" else json.loads(value) for name, value in self.arguments
        }
        answer = client.predict(**arguments, api_name=self.endpoint)
        return json.dumps(answer[0] if self.endpoint == "/logit_lens" else answer, sort_keys=True)


def requests(count: int, feature: int) -> list[Request]:
    """A mix of lenses, features and opposite edits of one feature on several pictures, in random order."""
    kinds = itertools.cycle(
        [
            ("/logit_lens", {"prompt": "Describe the image."}),
            ("/steer", {"edits": [{"feature": feature, "strength": 0.7, "where": "image"}]}),
            ("/sae_features", {"where": "image"}),
            ("/steer", {"edits": [{"feature": feature, "strength": -0.7, "where": "image"}]}),
            ("/sae_features", {"where": "prompt", "rank_by": "max"}),
        ]
    )
    out = []
    for i, (endpoint, arguments) in zip(range(count), kinds, strict=False):
        named = {**arguments, "max_new_tokens": 12 + 4 * (i % 3)}
        out.append(Request(endpoint, (("image", PICTURES[i // 5 % len(PICTURES)]), *((k, json.dumps(v)) for k, v in named.items()))))
    random.Random(0).shuffle(out)
    return out


def alone(url: str, wanted: list[Request]) -> dict[Request, str]:
    """What each different request gets from a server that does nothing else."""
    client = Client(url, verbose=False)
    return {request: request.send(client) for request in dict.fromkeys(wanted)}


def together(url: str, wanted: list[Request], sessions: int = SESSIONS) -> list[tuple[Request, str]]:
    """All of them from so many sessions at once, each in turn."""
    clients = [Client(url, verbose=False) for _ in range(sessions)]

    def session(number: int) -> list[tuple[Request, str]]:
        return [(request, request.send(clients[number])) for request in wanted[number::sessions]]

    with ThreadPoolExecutor(sessions) as pool:
        return [pair for pairs in pool.map(session, range(sessions)) for pair in pairs]


def same(one: str, other: str) -> bool:
    """Equal texts and structure, and numbers to five digits: the rows of another batch may round differently."""
    pattern = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\d+e-?\d+")
    if pattern.sub("#", one) != pattern.sub("#", other):
        return False
    pairs = zip(map(float, pattern.findall(one)), map(float, pattern.findall(other)), strict=True)
    return all(abs(a - b) <= 1e-5 + 1e-4 * abs(a) for a, b in pairs)


def leave_in_the_middle(url: str, request: Request, times: int = 3) -> None:
    """Sessions that ask and go away without waiting."""
    for _ in range(times):
        client = Client(url, verbose=False)
        arguments = {n: handle_file(EXAMPLES / f"{v}.webp") if n == "image" else json.loads(v) for n, v in request.arguments}
        job = client.submit(**arguments, api_name=request.endpoint)
        threading.Event().wait(0.05)  # let the request leave
        job.cancel()
        client.close()


def resident_mib(pid: int) -> float:
    """Memory that a process holds (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
