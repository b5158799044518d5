"""Where models run: in this process or, on a ZeroGPU Space, in a worker that has a GPU for the length of one call.

Elsewhere `on_gpu` is a plain call. On ZeroGPU, `spaces` forks the worker from this process, so the worker has every model loaded before, and
arguments and results are pickled. Models, SAEs and traces are large, so only a name is sent, by which the other process finds its own copy; an
object that the worker lacks is sent again in full. Tensors are sent as CPU data.
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
from ..lens.context_index import ContextualIndex
from ..lens.translators import Translators
from ..models.vlm import Vlm
from ..saes.sae import Sae
from ..steering.batch import check_stop
from ..tracing.trace import Trace
from .streaming import Done, stream

R = TypeVar("R")
_LARGE = (Vlm, Sae, Trace, Translators, ContextualIndex)
# Seconds requested from ZeroGPU. Computed, not measured there: for an 8B model in 16 bit on such a GPU, with a margin. A short request is
# scheduled sooner and uses less of the visitor's daily quota.
_START = 15  # moving the weights onto the GPU, and prefill
_TOKEN = 0.1  # one decoding step of a batch, with all layers kept
_ROW = 1.5  # each further row of a batch: its prompt is read twice
_MOST = 60  # ZeroGPU's default, and half the daily quota of a visitor without an account

_names: "weakref.WeakKeyDictionary[Any, str]" = weakref.WeakKeyDictionary()
_living: "weakref.WeakValueDictionary[str, Any]" = weakref.WeakValueDictionary()
# In a worker: arguments and results of the last calls, kept alive for the next one. A worker may serve one call or many.
_recent: collections.deque[Any] = collections.deque(maxlen=4)


def seconds(new_tokens: int = 0, rows: int = 1) -> int:
    """The time allowed for generating `new_tokens` tokens in a batch of `rows` rows."""
    return min(_MOST, round(_START + _TOKEN * new_tokens + _ROW * (rows - 1)))


def on_gpu(function: Callable[..., R], *args: Any, allow: int, **options: Any) -> R:
    """Call `function(*args, **options)` where the GPU is, for at most `allow` seconds (see `seconds`).

    The options `on_text` and `stop` also work across processes. The function must be picklable: a module-level function or a method.
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
    """Whether models run in another process."""
    return _call is not _work


def _ask(asked: bytes, allow: int, show: Callable[[Any], None] | None, stop: threading.Event | None) -> Any:
    answer: Any = None
    try:
        with contextlib.closing(_call(asked, allow)) as answers:
            for answer in map(_loads, answers):
                check_stop(stop)
                if show is not None and not isinstance(answer, Done | InterpError | _MissingError):
                    show(answer)
    except gr.Error as error:  # the quota is used up, no GPU is free, or the call took too long
        raise InterpError(f"ZeroGPU did not answer: {error.message!s} Try again later, or with a shorter answer.") from error
    if isinstance(answer, InterpError):
        raise answer
    return answer.result if isinstance(answer, Done) else answer


def _work(asked: bytes, _allow: int) -> Iterator[bytes]:
    """In the worker: progress, then `Done`. Errors are returned as values, because `spaces` would pass on only their class name."""
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
    """The other process has no object with this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Pickler(pickle.Pickler):
    """`whole(name, new)` says which large objects are sent in full; `new`: the object had no name before."""

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
            raise InterpError(f"{obj.name} was loaded after the GPU worker started. Restart the Space with it as its model.")
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
    """Threads that held locks in the parent do not exist in a forked process, which would wait for them forever."""
    for held in list(_living.values()):
        if isinstance(held, Vlm):
            held.lock = threading.RLock()


os.register_at_fork(after_in_child=_fresh_locks)
_call: Callable[[bytes, int], Any] = _work
if spaces := sys.modules.get("spaces"):  # imported by app.py, before torch, on ZeroGPU only
    _call = spaces.GPU(duration=lambda _asked, allow: allow)(_work)
