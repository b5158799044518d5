"""A server that answers from the true contents of scenes: `python -m interp.emoji_world.true_answers --scenes FOLDER`.

It speaks OpenAI's chat completions and takes the place of a large explaining model where the studies of the embedded model are measured: it names the
word that lies where a picture was left bright, and judges a label by what the picture really shows. It is no model; it knows the scenes that
`scene_files` wrote. Of a study it knows nothing but the pictures and texts that it is sent.
"""

import argparse
import base64
import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .architecture import CELLS
from .scene_files import read
from .words import COLORS, WORDS

_FINE = 3  # parts of a patch's side by which pictures are compared
_DARKEST = 0.25  # brightness where a feature is not active, as explainers are shown it
_UNSURE = 0.1  # brightness above that which may be noise of compression
_MOST = 0.5  # share of the bright parts that a word must hold to be their name


class TrueAnswers:
    """What can be asked about the scenes in a folder."""

    def __init__(self, folder: Path) -> None:
        self._names = sorted(file.name for file in (folder / "pictures").glob("*.png"))
        self._shares = read(folder, self._names)
        self._pictures = torch.stack([_patches(Image.open(folder / "pictures" / name)) for name in self._names])

    def answer(self, pictures: Sequence[Image.Image], text: str) -> str:
        """The answer to a question of `explain`, `refine` or `score`."""
        if asked := re.search(r'show what "(.*?)" names\?', text):
            (picture,) = pictures
            return "yes" if self._shows(picture, asked[1]) else "no"
        if asked := re.search(r"^label: (.*)$", text, re.MULTILINE):
            return "1" if self.common(pictures) == asked[1].strip().lower() else "0"
        if not pictures:
            return self._named(text)
        word = self.common(pictures)
        return f"[EXPLANATION]: {word}" if word else "Unable to produce descriptions"

    def common(self, pictures: Sequence[Image.Image]) -> str:
        """The word that holds most of what is bright in some dimmed pictures, "" if none holds half of it."""
        held = torch.zeros(len(WORDS))
        for picture in pictures:
            scene, brightness = self._recognised(picture)
            held += ((brightness - _DARKEST - _UNSURE).clamp(min=0) / (1 - _DARKEST)) @ self._shares[scene]
        best = int(held.argmax())
        return WORDS[best] if held[best] > _MOST * held.sum() else ""

    def _shows(self, picture: Image.Image, label: str) -> bool:
        scene, _ = self._recognised(picture)
        word = label.strip().lower()
        return word in WORDS and bool(self._shares[scene, :, WORDS.index(word)].max() >= _MOST)

    def _named(self, text: str) -> str:
        """A word of the scenes in a text, with its kind."""
        word = next((word for word in re.findall(r"[a-z]+", text.lower().partition("pictures:")[2]) if word in WORDS), "nothing")
        return f"[ANSWER] {word}\n[CLASS] {'color' if word in COLORS else 'object'}"

    def _recognised(self, picture: Image.Image) -> tuple[int, torch.Tensor]:
        """The scene that a picture shows, dimmed or not, and the brightness of each patch."""
        given = _patches(picture)
        brightness = ((self._pictures * given).sum(-1) / self._pictures.square().sum(-1).clamp(min=1e-3)).clamp(_DARKEST, 1)
        away = (brightness[..., None] * self._pictures - given).square().sum((1, 2))
        scene = int(away.argmin())
        return scene, brightness[scene]


def _patches(picture: Image.Image) -> torch.Tensor:
    """A picture's patches in a few pixels each: float32 [patches, pixels]."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"), np.float32) / 255).permute(2, 0, 1)
    small = F.adaptive_avg_pool2d(pixels, CELLS * _FINE)
    return small.unfold(1, _FINE, _FINE).unfold(2, _FINE, _FINE).permute(1, 2, 0, 3, 4).reshape(CELLS * CELLS, -1)


@contextlib.contextmanager
def serve(answers: TrueAnswers, port: int = 0) -> Iterator[str]:
    """The address (…/v1) of a server on this machine, for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = answers.answer(*_question(body["messages"]))
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            reply = {
                "id": "0",
                "object": "chat.completion",
                "created": 0,
                "model": body.get("model", ""),
                "choices": [choice],
                "usage": usage,
            }
            out = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _question(messages: Sequence[Any]) -> tuple[list[Image.Image], str]:
    """The pictures and the text of the last message."""
    content = messages[-1]["content"]
    parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls]
    return pictures, "\n".join(part["text"] for part in parts if part["type"] == "text")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Answer questions about scenes from their true contents.")
    parser.add_argument("--scenes", type=Path, required=True, help="a folder that interp.emoji_world.scene_files wrote")
    parser.add_argument("--port", type=int, default=8900)
    args = parser.parse_args()
    with serve(TrueAnswers(args.scenes), args.port) as url, contextlib.suppress(KeyboardInterrupt):
        print(f"Answers at {url}", flush=True)  # noqa: T201 - what the command is for
        threading.Event().wait()


if __name__ == "__main__":
    main()
