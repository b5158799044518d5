"""One model at a time, and what was computed with it: traces, lenses, features, and results that the page can refer to later.

Its methods take the dataclasses of `requests` and raise InterpError.
"""

import functools
import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..attribution.attribute import Attribution
from ..errors import InterpError
from ..lens.lens import Lens
from ..lens.reading import affordable_layers
from ..models.loading import OnProgress, Quantize, fetch
from ..models.vlm import Vlm
from ..presets import PRESETS
from ..saes.features import Encoding, Features, encode
from ..saes.sae import Sae
from ..tracing.cache import TraceCache
from ..tracing.trace import EMBED, Trace
from ..validation import shown
from .catalogue import catalogue
from .lens_shelf import LensShelf
from .model_slot import ModelSlot
from .recent import Recent, Sized
from .requests import LensRequest, Ranking, TraceRequest
from .sae_shelf import SaeShelf
from .study_shelf import StudyShelf
from .zerogpu import on_gpu, remote, seconds

_DERIVED = 256  # maps and other small results
_REMEMBERED = 8  # lenses and encodings; results that the page can refer to: twice this
# For lenses, for encodings and twice for results, each with its traces. Most traces are also in the trace cache, so the total is an upper bound.
# The results have room for the traces of a plain and a steered run of an 8B model, 0.8 GB each.
_MAX_BYTES = 1 << 30
_TFLOP = {"cpu": 1.5, "cuda": 50.0}  # for a lens within a short wait: about ten seconds on two cores, a few on a small GPU
_QUIET = 1.0  # seconds without work before slow preparations start
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Derived:
    """What was computed from a trace. It keeps the trace alive, so that its id stays unique."""

    trace: Trace
    result: Any


class Service:
    """What the page and the API call.

    `shared`: people other than the machine's owner use it (a Space, a public address). Then requests may use only the model it was started with,
    unless `any_model` is set, and may have concepts learned only if `learn` is. `sae`: the default SAE of `model`, instead of the first one known for it, and `layer`, which of several; `lenses`: folders of its lenses; `studies`: folders of studies, or of their indexes, to look into. `notice`: a message that the page shows from
    the start.
    """

    def __init__(
        self,
        model: str = "emoji-llava",
        *,
        sae: str = "",
        layer: int | None = None,
        lenses: Sequence[str] = (),
        studies: Sequence[str] = (),
        quantize: Quantize = "auto",
        device: str = "auto",
        shared: bool = False,
        any_model: bool = False,
        learn: bool = False,
        notice: str = "",
    ) -> None:
        self.default_model = model
        self.notice = notice
        self._quantize, self._device = quantize, device
        self._fixed = shared and not any_model
        self.own_files = not shared
        """Whether visitors sit at this machine, and may name its files."""
        self._learn = learn or not shared
        self.saes = SaeShelf(model, sae, layer, fixed=self._fixed)
        self.lens_shelf = LensShelf(model, lenses)
        self.studies = StudyShelf(studies)
        self.traces = TraceCache()
        self._slot = ModelSlot(quantize=quantize, device=device, forget=self._forget)
        self._results: Recent[object] = Recent(2 * _REMEMBERED, 2 * _MAX_BYTES, self._parts)
        self._encodings: Recent[Encoding] = Recent(_REMEMBERED, _MAX_BYTES, self._parts)
        self._lenses: Recent[Lens] = Recent(_REMEMBERED, _MAX_BYTES, self._parts)
        self._derived: Recent[_Derived] = Recent(_DERIVED, _MAX_BYTES, self._parts)
        self._last_work: float | None = None

    @property
    def model_name(self) -> str:
        """The model in use; before it is loaded, the app's."""
        return self._slot.name or self.default_model

    @property
    def can_switch(self) -> bool:
        """Whether visitors may choose another model."""
        return not self._fixed

    @property
    def can_learn(self) -> bool:
        """Whether visitors may have concepts learned from their pictures, which takes minutes of computing."""
        return self._learn and not remote()

    @property
    def why_not_learn(self) -> str:
        """What is said where they may not."""
        if remote():
            return "Learning takes longer than a call on ZeroGPU may. Run your own copy: python app.py."
        return "Learning from your own pictures is off on this server, because it takes minutes of computing. Run your own copy (python app.py), or start this one with --learn."

    def models(self) -> list[dict[str, Any]]:
        """Every preset, and whether it fits this machine."""
        return catalogue(self._slot, self._device)

    def vlm(self, name: str = "", on_progress: OnProgress | None = None) -> Vlm:
        """The model of this name, loaded if needed (see `ModelSlot.get`). `on_progress` gets a line about each step of loading."""
        name = name.strip() or self.default_model
        if self._fixed and name != self.default_model:
            raise InterpError(
                f"model is {shown(name)}; this server runs only {self.default_model}. Leave model out, or run your own copy: "
                "python app.py --model NAME."
            )
        return self._slot.get(name, on_progress)

    def holds(self, vlm: Vlm) -> bool:
        """Whether this is still the model in use."""
        return self._slot.name == vlm.name

    def beside(self, vlm: Vlm, name: str, on_progress: OnProgress | None = None) -> Vlm:
        """Another model, loaded beside `vlm`, which stays, and as it is: in 4 bit, or not. It is not kept: it goes with the last reference to it.

        Raises InterpError if it does not fit into the memory that is left, and on ZeroGPU, whose worker knows only models loaded before.
        """
        if remote():
            raise InterpError(f"{name} cannot be loaded here: on ZeroGPU models are loaded before the first request. Run your own copy.")
        quantize: Quantize = "4bit" if getattr(vlm.model, "is_loaded_in_4bit", False) else "none"
        return fetch(name, quantize=quantize, device=self._device, on_progress=on_progress).load(on_progress)

    def _forget(self, name: str) -> None:
        """Drop everything that belongs to the loaded model and not to the next one, which has this name."""
        self.traces = TraceCache()
        for kept in (self._results, self._encodings, self._lenses, self._derived):
            kept.clear()
        self.saes.drop_others(name)
        self.lens_shelf.clear()

    def trace(self, request: TraceRequest, on_text: Callable[[str], None] | None = None) -> Trace:
        """One generation with every layer kept, cached. `on_text` gets the growing answer."""
        new = request.max_new_tokens
        run = functools.partial(on_gpu, allow=seconds(new))
        vlm = self.vlm(request.model)  # first: if it replaces another one, there is a new cache
        return self.traces.get(vlm, request.image, request.prompt, max_new_tokens=new, on_text=on_text, run=run)

    def lens(self, request: LensRequest) -> Lens:
        """A lens of one picture and prompt, cached. One that the model lacks is refused before the model answers."""
        method = self.lens_shelf.meant(request.method, self.vlm(request.model))
        return self.read(self.trace(request), request.top_k, every=request.layers == "all", method=method)

    def read(self, trace: Trace, top_k: int = 5, *, every: bool = False, method: str = "logit") -> Lens:
        """A lens of a trace, cached: of every layer, or of as many as can be read quickly. `method`: see `LensShelf.meant`."""
        vlm = trace.vlm
        best = [known.layer for known in PRESETS[vlm.name].lenses if known.layer is not None] if vlm.name in PRESETS else []
        chosen = None if every else affordable_layers(trace, _TFLOP[vlm.model.device.type], best)
        return self._read(trace, method, top_k, chosen or tuple(range(EMBED, trace.n_layers)))

    def read_again(self, lens: Lens, method: str) -> Lens:
        """The same layers of the same trace through another lens, cached."""
        return self._read(lens.trace, method, lens.ids.shape[-1], lens.layers)

    def _read(self, trace: Trace, method: str, top_k: int, layers: tuple[int, ...]) -> Lens:
        meant = self.lens_shelf.meant(method, trace.vlm)
        key = (id(trace), meant, top_k, layers)  # the lens keeps its trace alive, so the id stays unique
        lens = self._lenses.get(key)
        if lens is None:
            lens = self.lens_shelf.read(trace, meant, top_k, layers)
            self._lenses.put(key, lens)
        self._last_work = time.monotonic()
        return lens

    def features(self, trace: Trace, ranking: Ranking = Ranking()) -> Features:  # noqa: B008 - it is frozen
        """The features that rank highest in a trace. Another ranking of the same trace does not encode it again."""
        sae = self.saes.get(ranking.sae, trace.model_name)
        key = (id(trace), id(sae))  # the encoding keeps both alive, so the ids stay unique
        encoding = self._encodings.get(key)
        ranked = (ranking.top_k, ranking.where, ranking.rank_by)
        if encoding is None:
            found = on_gpu(_top_features, trace, sae, *ranked, allow=seconds())
            self._encodings.put(key, found.encoding)
        else:
            found = on_gpu(encoding.top, *ranked, allow=seconds())
        self._last_work = time.monotonic()
        return found

    def derived(self, trace: Trace, key: Hashable, make: Callable[[], Result]) -> Result:
        """What `make` computes from a trace, cached under the trace and `key`."""
        derived = self._derived.get((id(trace), key))
        if derived is None:
            derived = _Derived(trace, make())
            self._derived.put((id(trace), key), derived)
        self._last_work = time.monotonic()
        result: Result = derived.result
        return result

    def affordable(self, vlm: Vlm, positions: int) -> bool:
        """Whether it is a short wait until so many positions have passed all of the model's blocks."""
        parameters = sum(each.numel() for block in vlm.blocks for each in block.parameters())
        return 2e-12 * parameters * positions <= _TFLOP[vlm.model.device.type]

    def prepare_saes(self) -> None:
        """Import sae_lens and load the model's first SAE as soon as the first visitor has been served. Blocks: run it in a thread.

        The import takes seconds and slows everything else down. Done at this time, it delays neither the first lens nor the first features.
        """
        while self._last_work is None or time.monotonic() - self._last_work < _QUIET:
            time.sleep(_QUIET / 4)
        if self.saes.names():
            self.saes.get(None, self.default_model)

    def _parts(self, result: object) -> tuple[Sized, ...]:
        """What a result keeps in memory. The SAE in use is not counted: it stays anyway. A steered answer is only text and a few numbers."""
        if isinstance(result, Lens):
            return result, result.trace
        if isinstance(result, Features | Attribution):
            return result, *self._parts(result.encoding)
        if isinstance(result, _Derived):
            return result.trace, *(part for value in vars(result.result).values() for part in self._parts(value))
        if isinstance(result, torch.Tensor):
            return (result,)
        if isinstance(result, Encoding):
            return result, result.trace, *(() if self.saes.keeps(result.sae) else (result.sae,))
        return ()

    def remember(self, result: object) -> str:
        """A key by which the page can refer to this result for a while."""
        run = secrets.token_urlsafe(9)
        self._results.put(run, result)
        return run

    def remembered(self, run: str | None, kind: type[Result]) -> Result:
        """The result for which `remember` returned this key."""
        result = self._results.get(run) if isinstance(run, str) else None
        if not isinstance(result, kind):
            raise InterpError("The server no longer keeps this result. Press Run and try again.")
        return result


def _top_features(trace: Trace, sae: Sae, k: int, where: Any, rank_by: Any) -> Features:
    """As `interp.top_features`, at module level so that it can be pickled (see `on_gpu`)."""
    return encode(trace, sae).top(k, where, rank_by)
