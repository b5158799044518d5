"""Where a model runs: in this process or, on a Space with ZeroGPU, in a worker that has a GPU for as long as one call lasts.

Off ZeroGPU `on_gpu` is a plain call. On it, `spaces` forks the worker from this process, so the worker has every model that was loaded before, and
arguments and results are pickled. Models, SAEs and traces are large: they cross as a name by which the other side finds its own copy; one that the
worker lacks is sent again, whole. Tensors cross as CPU data.
"""

import collections
import contextlib
import io
import os
import pickle
import secrets
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import torch

from ..errors import InterpError
from ..models.vlm import Vlm
from ..saes.sae import Sae
from ..steering.batch import StoppedError
from ..tracing.trace import Trace
from .streaming import Done, stream

R = TypeVar("R")
_LARGE = (Vlm, Sae, Trace)
# Seconds that are asked of ZeroGPU. Not measured there: taken from an 8B model in 16 bit on a GPU of its size, with a margin. A short request
# is served sooner and leaves more of the visitor's daily minutes.
_START = 15  # moving the weights onto the GPU, and prefill
_TOKEN = 0.1  # one decoding step of a batch, with all layers kept
_ROW = 1.5  # one more row of a batch: its prompt is read twice
_MOST = 60  # what ZeroGPU gives where nothing is asked for; half of what a visitor without an account has in a day

_names: "weakref.WeakKeyDictionary[Any, str]" = weakref.WeakKeyDictionary()
_living: "weakref.WeakValueDictionary[str, Any]" = weakref.WeakValueDictionary()
# In a worker: arguments and results of the last calls, kept alive for the next one. A worker may serve many calls, or one.
_recent: collections.deque[Any] = collections.deque(maxlen=4)


def seconds(new_tokens: int = 0, rows: int = 1) -> int:
    """How long a call that generates `new_tokens` tokens in a batch of `rows` rows may take."""
    return min(_MOST, round(_START + _TOKEN * new_tokens + _ROW * (rows - 1)))


def on_gpu(function: Callable[..., R], *args: Any, allow: int, **options: Any) -> R:
    """`function(*args, **options)` where the GPU is, for at most `allow` seconds (see `seconds`).

    `on_text` and `stop` among the options work across processes too. The function must belong to a module or an object, so that it can be pickled.
    """
    if not remote():
        return function(*args, **options)
    show, stop = options.pop("on_text", None), options.pop("stop", None)
    whole: set[str] = set()
    while True:
        asked = _dumps((function, args, options, show is not None, stop is not None), lambda name, _new: name in whole)
        answer: R | _MissingError = _ask(asked, allow, show, stop)
        if not isinstance(answer, _MissingError):
            return answer
        whole.add(answer.name)


def remote() -> bool:
    """Whether models run in another process than this one."""
    return _call is not _work


def _ask(asked: bytes, allow: int, show: Callable[[Any], None] | None, stop: threading.Event | None) -> Any:
    answer: Any = None
    try:
        with contextlib.closing(_call(asked, allow)) as answers:
            for answer in map(_loads, answers):
                if stop is not None and stop.is_set():
                    raise StoppedError("The run was stopped.")
                if show is not None and not isinstance(answer, Done | InterpError | _MissingError):
                    show(answer)
    except gr.Error as error:  # the visitor's minutes are used up, no GPU is free, or the call took too long
        raise InterpError(f"ZeroGPU did not answer: {error.message!s} Try again later, or ask for a shorter answer.") from error
    if isinstance(answer, InterpError):
        raise answer
    return answer.result if isinstance(answer, Done) else answer


def _work(asked: bytes, _allow: int) -> Iterator[bytes]:
    """In the worker: progress, then `Done`. An error goes back as a value, because `spaces` would keep only the name of its class."""
    stop = threading.Event()
    try:
        function, args, options, listening, stoppable = _loads(asked)
        if stoppable:
            options["stop"] = stop

        def work(show: Callable[[Any], None]) -> Any:
            return function(*args, **options, **({"on_text": show} if listening else {}))

        for step in stream(work):
            if isinstance(step, Done):
                _recent.append((function, args, step))
            yield _dumps(step, lambda _name, new: new)
    except (InterpError, _MissingError) as error:
        yield _dumps(error, lambda _name, new: new)
    finally:
        stop.set()  # the visitor has left, or the work is done


class _MissingError(Exception):
    """The other process has no object of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Pickler(pickle.Pickler):
    """`whole(name, new)` says which large objects are sent with their contents; `new`: it had no name until now."""

    def __init__(self, file: io.BytesIO, whole: Callable[[str, bool], bool]) -> None:
        super().__init__(file, protocol=5)
        self._whole = whole

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, _LARGE):
            return None
        new = obj not in _names
        name = _names.setdefault(obj, secrets.token_hex(8))
        _living[name] = obj
        return None if self._whole(name, new) else name

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            values = obj.detach().cpu().contiguous()
            return _tensor, (values.reshape(-1).view(torch.uint8).numpy(), values.dtype, values.shape)
        if isinstance(obj, Vlm):
            raise InterpError(f"{obj.name} was loaded after the GPU worker had started. Restart the Space with it as its model.")
        if isinstance(obj, _LARGE):
            return _received, (_names[obj], type(obj), vars(obj))
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: str) -> Any:
        found = _living.get(pid)
        if found is None:
            raise _MissingError(pid)
        return found


def _dumps(value: Any, whole: Callable[[str, bool], bool]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, whole).dump(value)
    return buffer.getvalue()


def _loads(data: bytes) -> Any:
    return _Unpickler(io.BytesIO(data)).load()


def _tensor(values: np.ndarray, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    return torch.from_numpy(values).view(dtype).reshape(shape)


def _received(name: str, kind: type, fields: dict[str, Any]) -> Any:
    made: Any = object.__new__(kind)
    vars(made).update(fields)
    _names[made], _living[name] = name, made
    return made


def _fresh_locks() -> None:
    """The threads that hold its parent's locks do not exist in a forked process, which would wait for them forever."""
    for held in list(_living.values()):
        if isinstance(held, Vlm):
            held.lock = threading.RLock()


os.register_at_fork(after_in_child=_fresh_locks)
_call: Callable[[bytes, int], Any] = _work
if spaces := sys.modules.get("spaces"):  # imported by app.py on ZeroGPU, before torch; elsewhere its decorator returns the function itself
    _call = spaces.GPU(duration=lambda _asked, allow: allow)(_work)
