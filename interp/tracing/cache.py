"""A cache of the most recent traces, keyed by what they were made from."""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from os import PathLike
from typing import Any

from PIL import Image

from ..models.identity import state_key
from ..models.vlm import Vlm
from ..validation import function, instance, text, whole_number
from ..vision.images import OpenedImage, open_image, read_file
from .trace import Trace

_ROWS = 256  # of a picture hashed at a time, to avoid a copy of the whole


class TraceCache:
    """The most recent traces, up to a number of bytes. Asking again for the same input costs no forward pass.

    Everything that a trace holds is counted; the newest one is kept even if it alone exceeds the limit. The key is the model and its state
    (see `models.identity.state_key`), the pixels and notes of the picture, the prompt and the generation settings. A trace whose tensors a
    caller has changed is computed again. Thread-safe: two threads that ask for the same trace at once compute it once, because the model's
    lock makes the second one wait.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = whole_number("max_bytes", max_bytes, 0)
        self._traces: OrderedDict[tuple[Any, ...], tuple[Trace, tuple[int, ...]]] = OrderedDict()
        self._lock = threading.RLock()

    def get(
        self,
        vlm: Vlm,
        image: Any,
        prompt: str,
        *,
        max_new_tokens: int = 32,
        answer: str | None = None,
        on_text: Callable[[str], None] | None = None,
        run: Callable[..., Trace] | None = None,
    ) -> Trace:
        """As `Vlm.trace`, but from the cache if possible; then `on_text` is called once, with the whole answer.

        `run(vlm.trace, ...)`, if given, is called instead of `vlm.trace(...)`, to run the model elsewhere.
        """
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load(...) returns")
        new = whole_number("max_new_tokens", max_new_tokens, 1)
        text("prompt", prompt)
        if answer is not None:
            text("answer", answer)
        function("on_text", on_text)
        function("run", run)
        file = read_file(image) if isinstance(image, str | PathLike) else image if isinstance(image, bytes) else None
        opened = open_image(image if file is None else file)
        key = (vlm.key, _digest(opened), prompt, new, answer)
        with vlm.lock:
            trace = self._find((state_key(vlm), *key))
            if trace is None:
                made = functools.partial(run, vlm.trace) if run else vlm.trace
                trace = made(opened, prompt, max_new_tokens=new, answer=answer, on_text=on_text)
                if file is not None:
                    trace.store_image_as(file)
                self._keep((state_key(vlm), *key), trace)  # computed again: a first forward may change how weights are stored
            elif on_text:
                on_text(trace.answer)
        return trace

    def _find(self, key: tuple[Any, ...]) -> Trace | None:
        with self._lock:
            trace, version = self._traces.get(key, (None, ()))
            if trace is None:
                return None
            if trace.version != version:
                del self._traces[key]
                return None
            self._traces.move_to_end(key)
            return trace

    def _keep(self, key: tuple[Any, ...], trace: Trace) -> None:
        with self._lock:
            self._traces[key] = trace, trace.version
            while self.nbytes > self.max_bytes and len(self._traces) > 1:
                self._traces.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes held by the traces."""
        with self._lock:
            return sum(trace.nbytes for trace, _ in self._traces.values())

    def __len__(self) -> int:
        return len(self._traces)


def _digest(opened: OpenedImage) -> str:
    image, notes = opened
    digest = hashlib.sha256(repr((image.size, notes)).encode())
    for top in range(0, image.height, _ROWS):
        digest.update(_rows(image, top).tobytes())
    return digest.hexdigest()


def _rows(image: Image.Image, top: int) -> Image.Image:
    return image.crop((0, top, image.width, min(top + _ROWS, image.height)))
