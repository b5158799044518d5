"""One model at a time, and what was done with it: traces, lenses, features, and results that the page can ask about again.

Plain functions over the requests of `requests`; they raise InterpError.
"""

import functools
import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InterpError
from ..lens.logit_lens import Lens, affordable_layers, logit_lens
from ..models.loading import OnProgress, Quantize
from ..models.vlm import Vlm
from ..saes.features import Encoding, Features, encode
from ..saes.sae import Sae
from ..tracing.cache import TraceCache
from ..tracing.trace import Trace
from .catalogue import catalogue
from .model_slot import ModelSlot
from .recent import Recent, Sized
from .requests import LensRequest, Ranking, TraceRequest
from .sae_shelf import SaeShelf
from .zerogpu import on_gpu, seconds

_REMEMBERED = 8  # lenses and encodings; twice as many results that the page can still ask about
# For lenses, for encodings and twice for results, each with its traces. Most traces are also in the trace cache, so the total is an upper bound.
# The results have room for the traces of a plain and a steered run of an 8B model, 0.8 GB each.
_MAX_BYTES = 1 << 30
_TFLOP = {"cpu": 1.5, "cuda": 50.0}  # of a lens that nobody waits long for: about ten seconds on two cores, a few on a small GPU
_QUIET = 1.0  # seconds without work before something slow is done ahead of time
Result = TypeVar("Result")


class Service:
    """What the page and the API call.

    `shared`: others than the machine's owner use it (a Space, a public address). Then `model` takes only the model it was started with, unless
    `any_model` is set. `sae`: the SAE used with `model` where none is named, instead of the first that is known for it. `notice`: what visitors
    must be told from the start.
    """

    def __init__(
        self,
        model: str = "emoji-llava",
        *,
        sae: str = "",
        quantize: Quantize = "auto",
        device: str = "auto",
        shared: bool = False,
        any_model: bool = False,
        notice: str = "",
    ) -> None:
        self.default_model = model
        self.notice = notice
        self._device = device
        self._fixed = shared and not any_model
        self.saes = SaeShelf(model, sae, fixed=self._fixed)
        self.traces = TraceCache()
        self._slot = ModelSlot(quantize=quantize, device=device, forget=self._forget)
        self._results: Recent[object] = Recent(2 * _REMEMBERED, 2 * _MAX_BYTES, self._parts)
        self._encodings: Recent[Encoding] = Recent(_REMEMBERED, _MAX_BYTES, self._parts)
        self._lenses: Recent[Lens] = Recent(_REMEMBERED, _MAX_BYTES, self._parts)
        self._last_work: float | None = None

    @property
    def can_switch(self) -> bool:
        """Whether visitors may choose another model."""
        return not self._fixed

    def models(self) -> list[dict[str, Any]]:
        """Every preset, and whether it fits this machine."""
        return catalogue(self._slot, self._device)

    def vlm(self, name: str = "", on_progress: OnProgress | None = None) -> Vlm:
        """The model of this name, in the place of any other (see `ModelSlot.get`). `on_progress` gets a line about each step of loading it."""
        name = name.strip() or self.default_model
        if self._fixed and name != self.default_model:
            raise InterpError(
                f"This server runs {self.default_model!r} only; {name!r} was asked for. Leave `model` out, or run your own copy "
                f"(python app.py --model {name})."
            )
        return self._slot.get(name, on_progress)

    def _forget(self, name: str) -> None:
        """Let go of everything that belongs to the loaded model and not to the next one, of this name."""
        self.traces = TraceCache()
        for kept in (self._results, self._encodings, self._lenses):
            kept.clear()
        self.saes.drop_others(name)

    def trace(self, request: TraceRequest, on_text: Callable[[str], None] | None = None) -> Trace:
        """One generation with every layer kept, from memory where possible. `on_text` gets the growing answer."""
        new = request.max_new_tokens
        run = functools.partial(on_gpu, allow=seconds(new))
        return self.traces.get(self.vlm(request.model), request.image, request.prompt, max_new_tokens=new, on_text=on_text, run=run)

    def lens(self, request: LensRequest) -> Lens:
        """The logit lens of one picture and prompt, from memory where possible."""
        return self.read(self.trace(request), request.top_k, every=request.layers == "all")

    def read(self, trace: Trace, top_k: int = 5, *, every: bool = False) -> Lens:
        """The lens of a trace, from memory where possible: of every layer, or of as many as can be read quickly."""
        chosen = None if every else affordable_layers(trace, _TFLOP[trace.vlm.model.device.type])
        key = (id(trace), top_k, chosen)  # a lens holds its trace, so no other can get its id
        lens = self._lenses.get(key)
        if lens is None:
            lens = on_gpu(logit_lens, trace, top_k=top_k, layers=chosen, allow=seconds())
            self._lenses.put(key, lens)
        self._last_work = time.monotonic()
        return lens

    def features(self, trace: Trace, ranking: Ranking = Ranking()) -> Features:  # noqa: B008 - it is frozen
        """The features that rank highest in a trace. A second ranking of the same trace encodes nothing anew."""
        sae = self.saes.get(ranking.sae, trace.model_name)
        key = (id(trace), id(sae))  # an encoding holds both, so no other object can get their ids
        encoding = self._encodings.get(key)
        ranked = (ranking.top_k, ranking.where, ranking.rank_by)
        if encoding is None:
            found = on_gpu(_top_features, trace, sae, *ranked, allow=seconds())
            self._encodings.put(key, found.encoding)
        else:
            found = on_gpu(encoding.top, *ranked, allow=seconds())
        self._last_work = time.monotonic()
        return found

    def prepare_saes(self) -> None:
        """Import sae_lens and load the model's first SAE, once the first visitor has been served and is only looking. Blocks: run it in a thread.

        The import takes seconds and slows down everything else; so neither the first lens nor the first look at the features waits for it.
        """
        while self._last_work is None or time.monotonic() - self._last_work < _QUIET:
            time.sleep(_QUIET / 4)
        if self.saes.names():
            self.saes.get(None, self.default_model)

    def _parts(self, result: object) -> tuple[Sized, ...]:
        """What a result keeps in memory. The SAE in use is not counted: it stays anyway. A steered answer is only text and a few numbers."""
        if isinstance(result, Lens):
            return result, result.trace
        if isinstance(result, Features):
            return result, *self._parts(result.encoding)
        if isinstance(result, Encoding):
            return result, result.trace, *(() if self.saes.keeps(result.sae) else (result.sae,))
        return ()

    def remember(self, result: object) -> str:
        """A key under which the page can ask more about this result for a while."""
        run = secrets.token_urlsafe(9)
        self._results.put(run, result)
        return run

    def remembered(self, run: str | None, kind: type[Result]) -> Result:
        """The result that `remember` returned this key for."""
        result = self._results.get(run) if isinstance(run, str) else None
        if not isinstance(result, kind):
            raise InterpError("This result is no longer kept on the server. Press Run again, then repeat.")
        return result


def _top_features(trace: Trace, sae: Sae, k: int, where: Any, rank_by: Any) -> Features:
    """As `interp.top_features`; a function of this module, so that it has a name in the worker (see `on_gpu`)."""
    return encode(trace, sae).top(k, where, rank_by)
