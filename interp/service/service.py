"""What the page and the API both call: models and SAEs that are loaded, traces that are remembered, results that can be asked again.

Plain functions that take plain values and raise InterpError. Knows nothing of gradio.
"""

import dataclasses
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..devices import free_bytes, pick_devices
from ..errors import InterpError
from ..lens.logit_lens import Lens, affordable_layers, logit_lens
from ..models.loading import OnProgress, Quantize
from ..models.vlm import Vlm
from ..presets import PRESETS
from ..saes.features import Encoding, Features, encode
from ..saes.loading import load_sae
from ..saes.sae import Sae
from ..tracing.cache import TraceCache
from ..tracing.trace import Trace
from ..validation import one_of, whole_number
from ..web.payloads import scene
from ..web.payloads.features import FoundFeatures, found_payload, one_feature
from .model_slot import ModelSlot
from .zerogpu import on_gpu, seconds

MAX_NEW_TOKENS = 256
MAX_TOP_K = 50
MAX_FEATURES = 200
_REMEMBERED = 8  # results that the page can still ask about
_FOUND = 50  # features that a search shows
_TFLOP = {"cpu": 1.5, "cuda": 50.0}  # of a lens that nobody has to wait long for: about ten seconds on two cores, a few on a small GPU
_QUIET = 1.0  # seconds without work before something slow is done ahead
Result = TypeVar("Result")


class Service:
    """One model at a time, and what was done with it.

    `shared`: others than the machine's owner use it (a Space, a public address). Then `model` takes only the model it was started with, unless
    `any_model` is set. `sae`: the SAE that `model` is looked at with where none is named, instead of the first that is known for it. `notice`:
    what visitors must be told from the start.
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
        folder = Path(sae.strip())
        self._default_sae = {folder.name if folder.is_dir() else sae.strip(): sae.strip()} if sae.strip() else {}
        self._device = device
        self.traces = TraceCache()
        self._fixed = shared and not any_model
        self._model = ModelSlot(quantize=quantize, device=device, forget=self._forget)
        self._loading = threading.Lock()
        self._results: OrderedDict[str, object] = OrderedDict()
        self._saes: dict[str, Sae] = {}
        self._sae_loading = threading.Lock()
        self._encodings: OrderedDict[tuple[int, int], Encoding] = OrderedDict()
        self._lenses: OrderedDict[tuple[Any, ...], Lens] = OrderedDict()
        self._last_work: float | None = None

    @property
    def can_switch(self) -> bool:
        """Whether visitors may choose another model."""
        return not self._fixed

    def vlm(self, name: str | None = None, on_progress: OnProgress | None = None) -> Vlm:
        """The model of this name, in the place of any other (see `ModelSlot.get`). `on_progress` gets lines about what is done meanwhile."""
        name = (name or self.default_model).strip()
        if self._fixed and name != self.default_model:
            raise InterpError(
                f"This server runs {self.default_model!r} only; {name!r} was asked for. Leave `model` out, or run your own copy "
                f"(python app.py --model {name})."
            )
        return self._model.get(name, on_progress)

    def _forget(self, name: str) -> None:
        """Let go of everything that belongs to the loaded model and not to the next one, of this name."""
        with self._loading:
            self.traces = TraceCache()
            self._results.clear()
            self._encodings.clear()
            self._lenses.clear()
        self._saes = {sae: kept for sae, kept in self._saes.items() if sae in self.saes(name)}

    def models(self) -> list[dict[str, Any]]:
        """Every preset and whether it fits this machine, once the loaded one has made room."""
        loaded = self._model.name
        devices = pick_devices(self._device)
        free, cpu = (sum(map(free_bytes, devices)) + self._model.nbytes) / 1e9, devices[0].type == "cpu"
        return [
            {
                "name": preset.name,
                "checkpoint": preset.checkpoint if "/" in preset.checkpoint and not preset.checkpoint.startswith("/") else preset.name,
                "layers": preset.n_layers,
                "default_layer": preset.default_layer,
                "saes": [{"name": sae.name, "layer": sae.layer, "labels": sae.labels, "note": sae.note} for sae in preset.saes],
                "loaded": preset.name == loaded,
                "fits": preset.memory_gb(cpu=cpu) <= free,
                "memory_gb": preset.memory_gb(cpu=cpu),
                "memory_4bit_gb": preset.memory_4bit_gb,
                "memory_16bit_gb": preset.memory_16bit_gb,
                "licence": preset.licence,
                "gated": preset.gated,
                "revision": preset.revision,
                "requires": list(preset.requires),
                "proved": preset.proved,
                "about": preset.about,
            }
            for preset in PRESETS.values()
        ]

    def lens(
        self,
        image: Any,
        prompt: str,
        model: str | None = None,
        *,
        top_k: float = 5,
        max_new_tokens: float = 32,
        layers: str = "auto",
        on_text: Callable[[str], None] | None = None,
        on_trace: Callable[[Trace], None] | None = None,
    ) -> Lens:
        """The logit lens of one picture and prompt, from memory where possible.

        `layers`: "all", or "auto" for as many as can be read quickly. `on_text` gets the growing answer, `on_trace` the trace before it is read.
        """
        top_k = whole_number("top_k", top_k, 1, MAX_TOP_K)
        layers = one_of("layers", layers, ("auto", "all"))
        trace = self.trace(image, prompt, model, max_new_tokens=max_new_tokens, on_text=on_text)
        if on_trace:
            on_trace(trace)
        lens = self.read(trace, top_k, every=layers == "all")
        self._last_work = time.monotonic()
        return lens

    def read(self, trace: Trace, top_k: int = 5, *, every: bool = False) -> Lens:
        """The lens of a trace, from memory where possible: of every layer, or of as many as can be read quickly."""
        chosen = None if every else affordable_layers(trace, _TFLOP[trace.vlm.model.device.type])
        key = (id(trace), top_k, chosen)  # a lens holds its trace, so that no other gets its id
        lens = self._lenses.get(key)
        if lens is None:
            lens = on_gpu(logit_lens, trace, top_k=top_k, layers=chosen, allow=seconds())
            self._keep(self._lenses, key, lens)
        return lens

    def trace(
        self,
        image: Any,
        prompt: str,
        model: str | None = None,
        *,
        max_new_tokens: float = 32,
        on_text: Callable[[str], None] | None = None,
    ) -> Trace:
        """One generation with every layer kept, from memory where possible."""
        image, max_new_tokens = given(image), whole_number("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS)

        def run(*args: Any, **options: Any) -> Trace:
            return on_gpu(*args, allow=seconds(max_new_tokens), **options)

        return self.traces.get(self.vlm(model), image, prompt, max_new_tokens=max_new_tokens, on_text=on_text, run=run)

    def saes(self, model: str | None = None) -> tuple[str, ...]:
        """Names of the SAEs that are known for a model, the one used by default first."""
        return tuple(self._sources(model or self.default_model))

    def _sources(self, model: str) -> dict[str, str]:
        """Name → what `load_sae` takes."""
        preset = PRESETS.get(model)
        known = {sae.name: sae.source for sae in preset.saes} if preset else {}
        first = self._default_sae if model == self.default_model else {}
        return {**{name: known.get(name, source) for name, source in first.items()}, **known}

    def sae(self, name: str | None, model: str) -> Sae:
        """An SAE by its name: "" for the model's first, one of `saes`, or, where visitors may choose models, whatever `load_sae` takes."""
        known, name = self._sources(model), self.sae_name(name, model)
        if not name:
            raise InterpError(
                f"No SAE is known for {model!r}. Choose a model that has one ({', '.join(p.name for p in PRESETS.values() if p.saes)})"
                + ("." if self._fixed else ", or name an SAE yourself: a release of sae-lens with an id, a hub repository, or a folder.")
                + " Without any, contrast vectors steer a model from Python: interp.contrast_vector."
            )
        if name not in known and self._fixed:
            raise InterpError(
                f"{name!r} is no SAE of this server's model; it has {', '.join(known) or 'none'}. Leave `sae` empty for the first."
            )
        with self._sae_loading:
            if name not in self._saes:
                # By the name that it is asked for by: edits carry it, and ask again.
                sae = dataclasses.replace(load_sae(known.get(name, name)), name=name)
                self._saes = {name: sae}  # one at a time: a large one takes gigabytes
            return self._saes[name]

    def has_sae(self, name: str | None, model: str) -> bool:
        """Whether this SAE is in memory already."""
        return self.sae_name(name, model) in self._saes

    def sae_name(self, name: str | None, model: str) -> str:
        """The SAE that a name means for a model: "" or None its first; "" where none is known."""
        return (name or next(iter(self.saes(model)), "")).strip()

    def features(
        self,
        trace: Trace,
        sae: str | None = None,
        *,
        where: Any = "image",
        rank_by: Any = "mean",
        top_k: float = 10,
    ) -> Features:
        """The features that rank highest in a trace. A second ranking of the same trace encodes nothing anew."""
        found_sae = self.sae(sae, trace.model_name)
        top_k = whole_number("top_k", top_k, 1, min(MAX_FEATURES, found_sae.d_sae))
        key = (id(trace), id(found_sae))  # an encoding holds both, so that no other object can get their ids
        encoding = self._encodings.get(key)
        ranked = (top_k, where or "image", rank_by or "mean")
        if encoding is None:
            found = on_gpu(_top_features, trace, found_sae, *ranked, allow=seconds())
            self._keep(self._encodings, key, found.encoding)
        else:
            found = on_gpu(encoding.top, *ranked, allow=seconds())
        self._last_work = time.monotonic()
        return found

    def prepare_saes(self) -> None:
        """Import sae_lens and load the model's first SAE, once the first visitor has been served and is only looking. Blocks: run it in a thread.

        The import takes seconds, in which everything else is slower; so neither the first lens nor the first look at the features waits for it.
        """
        while self._last_work is None or time.monotonic() - self._last_work < _QUIET:
            time.sleep(_QUIET / 4)
        if self.saes():
            self.sae(None, self.default_model)

    def remember(self, result: object) -> str:
        """A key under which the page can ask more about this result for a while."""
        run = secrets.token_urlsafe(9)
        self._keep(self._results, run, result, 2 * _REMEMBERED)
        return run

    def _keep(self, kept: OrderedDict[Any, Any], key: Any, result: object, most: int = _REMEMBERED) -> None:
        with self._loading:
            kept[key] = result
            while len(kept) > most:
                kept.popitem(last=False)

    def remembered(self, run: str, kind: type[Result]) -> Result:
        """The result that `remember` returned this key for."""
        result = self._results.get(run) if isinstance(run, str) else None
        if not isinstance(result, kind):
            raise InterpError("This result is no longer kept on the server. Press Run again, then repeat.")
        return result

    def find_word(self, run: str, word: str) -> dict[str, Any]:
        """A word's probability at every layer and position, as the view wants it."""
        lens = self.remembered(run, Lens)
        if not isinstance(word, str) or len(word) > 80:
            raise InterpError("A word to look for has 1 to 80 characters.")
        spellings = list(lens.resolve(word))
        values = on_gpu(lens.probability, word, allow=seconds())
        return {"spellings": spellings, "values": scene.encode(scene.quantise(values))}

    def features_at(self, run: str, where: Any) -> FoundFeatures:
        """The features of other tokens of the same trace, as the view wants them."""
        found = self.remembered(run, Features)
        k = min(max(len(found.features), 10), found.encoding.sae.d_sae)
        return found_payload(on_gpu(found.encoding.top, k, where, found.rank_by, allow=seconds()))

    def find_features(self, run: str, text: str) -> dict[str, Any]:
        """Features of the whole SAE whose number or label matches, active here or not."""
        found = self.remembered(run, Features)
        chosen, note = matching(found.encoding.sae, text)
        where = {"positions": list(found.positions)} if found.positions else "all"
        features = on_gpu(found.encoding.some, chosen, where, found.rank_by, allow=seconds())
        features = tuple(sorted(features, key=lambda feature: -feature.score))  # stable: the best match first among those not active
        return {"features": [one_feature(feature) for feature in features], "note": note}

    def feature_details(self, run: str, feature: Any) -> dict[str, Any]:
        """What is asked about one feature only when it is looked at."""
        encoding = self.remembered(run, Features).encoding
        near = encoding.sae.neighbours(whole_number("feature", feature, 0, encoding.sae.d_sae - 1))
        labels = on_gpu(_labels, encoding, [other for other, _ in near], allow=seconds())
        return {"neighbours": [{"feature": f, "cosine": cosine, "label": label} for (f, cosine), label in zip(near, labels, strict=True)]}


def matching(sae: Sae, text: str) -> tuple[list[int], str]:
    """The features whose number or label matches, and a note that says how many."""
    text = text.strip() if isinstance(text, str) else ""
    if not 1 <= len(text) <= 80:
        raise InterpError("Search for a feature's number or for 1 to 80 characters of its label.")
    chosen = [sae.check(int(text))] if text.isascii() and text.isdigit() else sae.labels.search(text, _FOUND)
    more = f"; the first {_FOUND} are shown." if len(chosen) >= _FOUND else "."
    return chosen, f"{len(chosen)} of {sae.d_sae} features match {text!r}{more}"


def _top_features(trace: Trace, sae: Sae, k: int, where: Any, rank_by: Any) -> Features:
    """As `interp.top_features`; by this module's `encode`."""
    return encode(trace, sae).top(k, where, rank_by)


def _labels(encoding: Encoding, features: list[int]) -> list[str]:
    return [encoding.label(feature) for feature in features]


def given(image: Any) -> Any:
    """`image`, or an InterpError where there is none."""
    if image is None:
        raise InterpError("There is no picture. Choose or upload one first.")
    return image
