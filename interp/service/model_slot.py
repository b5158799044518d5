"""The one loaded model, and how it is replaced by another."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from ..devices import release
from ..errors import InterpError
from ..models.loading import OnProgress, Quantize, Ready, fetch
from ..models.vlm import Vlm


class ModelSlot:
    """At most one model in memory.

    `forget(name)` is called with the name of the next model before the loaded one is freed; it must drop every other reference to that one.
    """

    def __init__(self, *, quantize: Quantize, device: str, forget: Callable[[str], None]) -> None:
        self._quantize, self._device, self._forget = quantize, device, forget
        self._vlm: Vlm | None = None
        self._switching = threading.Lock()
        self._watching: list[OnProgress] = []
        self._doing = ""

    @property
    def name(self) -> str | None:
        """The loaded model's name."""
        vlm = self._vlm
        return vlm.name if vlm else None

    @property
    def nbytes(self) -> int:
        """Bytes of the loaded weights."""
        vlm = self._vlm
        return sum(weight.nbytes for weight in vlm.model.parameters()) if vlm else 0

    def get(self, name: str, on_progress: OnProgress | None = None) -> Vlm:
        """The model of this name; if another one is loaded, it is replaced.

        A failure found before loading (no such model, no disk space, no memory, damaged files) changes nothing; if loading itself fails, the previous
        model is loaded again. `on_progress` gets a line about each step, even if another caller started the loading.
        """
        found = self._vlm
        if found is not None and found.name == name:
            return found
        del found  # a reference here would keep the old model alive
        with self._watched(on_progress), self._switching:
            try:
                if self.name != name:
                    self._switch(name)
            finally:
                self._doing = ""
            assert self._vlm is not None
            return self._vlm

    def _switch(self, name: str) -> None:
        ready, former = self._fetch(name), self.name
        if former is None or self._vlm is None:
            self._vlm = ready.load(self._tell)
            return
        with self._vlm.lock:  # wait for a run in progress
            self._forget(name)
            self._vlm = None
        release()
        failure = None
        try:
            self._vlm = ready.load(self._tell)
        except InterpError as error:
            failure = str(error)  # the error itself keeps the partly loaded model alive
        if failure is not None:
            release()
            self._vlm = self._fetch(former).load(self._tell)
            raise InterpError(f"{failure} {former} has been loaded again.")

    def _fetch(self, name: str) -> Ready:
        return fetch(name, quantize=self._quantize, device=self._device, on_progress=self._tell, spare=self.nbytes)

    @contextlib.contextmanager
    def _watched(self, on_progress: OnProgress | None) -> Iterator[None]:
        """Report each step to every waiting caller."""
        if on_progress is None:
            yield
            return
        self._watching.append(on_progress)
        if self._doing:
            on_progress(self._doing)
        try:
            yield
        finally:
            self._watching.remove(on_progress)

    def _tell(self, doing: str) -> None:
        self._doing = doing
        for on_progress in tuple(self._watching):
            on_progress(doing)
