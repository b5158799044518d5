"""The one model that is loaded, and how another takes its place. Knows nothing of what was done with it."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from ..devices import release
from ..errors import InterpError
from ..models.loading import OnProgress, Quantize, Ready, fetch
from ..models.vlm import Vlm


class ModelSlot:
    """At most one model in memory.

    `forget(name)` is called before the loaded one is freed, with the name of the next: whatever else holds the model must let go of it.
    """

    def __init__(self, *, quantize: Quantize, device: str, forget: Callable[[str], None]) -> None:
        self._quantize, self._device, self._forget = quantize, device, forget
        self._vlm: Vlm | None = None
        self._switching = threading.Lock()
        self._watching: list[OnProgress] = []
        self._doing = ""

    @property
    def name(self) -> str | None:
        """Of the model that is loaded now."""
        vlm = self._vlm
        return vlm.name if vlm else None

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        vlm = self._vlm
        return sum(weight.nbytes for weight in vlm.model.parameters()) if vlm else 0

    def get(self, name: str, on_progress: OnProgress | None = None) -> Vlm:
        """The model of this name, loading it if needed, and letting go of the one before.

        What can be told to fail beforehand (no such model, no disk, no memory, damaged files) leaves everything as it is; if loading fails after
        that, the one before is loaded again. `on_progress` gets lines about what is done meanwhile, for this caller or for one before it.
        """
        found = self._vlm
        if found is not None and found.name == name:
            return found
        del found  # or this very call would keep it
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
        with self._vlm.lock:  # who runs it now comes to an end first
            self._forget(name)
            self._vlm = None
        release()
        failure = None
        try:
            self._vlm = ready.load(self._tell)
        except InterpError as error:
            failure = str(error)  # the error itself holds on to what was loaded of it
        if failure is not None:
            release()
            self._vlm = self._fetch(former).load(self._tell)
            raise InterpError(f"{failure} {former} was loaded again.")

    def _fetch(self, name: str) -> Ready:
        return fetch(name, quantize=self._quantize, device=self._device, on_progress=self._tell, spare=self.nbytes)

    @contextlib.contextmanager
    def _watched(self, on_progress: OnProgress | None) -> Iterator[None]:
        """Whoever waits hears what is done, whoever asked for it."""
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
