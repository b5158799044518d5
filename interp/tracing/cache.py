"""The most recent traces, by what they are of. Knows models and pictures; knows nothing of what is done with a trace."""

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..vision.images import open_image
from .trace import Trace

if TYPE_CHECKING:
    from ..models.vlm import Vlm


class TraceCache:
    """The most recent traces, up to a number of bytes. A second look at the same input costs no forward.

    Keyed by the model's identity and revision, the picture's content, the prompt and the generation settings. Safe for threads; two that ask
    for the same trace at once compute it once, for the model's lock makes the second wait and look again.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self._traces: OrderedDict[tuple[Any, ...], Trace] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        vlm: "Vlm",
        image: Any,
        prompt: str,
        *,
        max_new_tokens: int = 32,
        answer: str | None = None,
        on_text: Callable[[str], None] | None = None,
        run: Callable[..., Trace] | None = None,
    ) -> Trace:
        """As `Vlm.trace`, from memory where possible. `on_text` is called once, with the whole answer, for a trace from memory.

        `run(vlm.trace, ...)` is called instead of `vlm.trace(...)` where the model is run elsewhere.
        """
        opened = open_image(image)
        digest = hashlib.sha256(repr(opened.image.size).encode() + opened.image.tobytes()).hexdigest()
        key = (vlm.key, digest, prompt, repr(max_new_tokens), answer)  # repr: a wrong True must not find the trace of 1
        with vlm.lock:
            with self._lock:
                trace = self._traces.get(key)
                if trace is not None:
                    self._traces.move_to_end(key)
            if trace is None:
                made = functools.partial(run, vlm.trace) if run else vlm.trace
                trace = made(opened, prompt, max_new_tokens=max_new_tokens, answer=answer, on_text=on_text)
                self._keep(key, trace)
            elif on_text:
                on_text(trace.answer)
        return trace

    def _keep(self, key: tuple[Any, ...], trace: Trace) -> None:
        with self._lock:
            self._traces[key] = trace
            while self.nbytes > self.max_bytes and len(self._traces) > 1:
                self._traces.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the residual streams held now."""
        return sum(trace.states.nbytes for trace in self._traces.values())

    def __len__(self) -> int:
        return len(self._traces)
