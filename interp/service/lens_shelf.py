"""The lenses that there are for each model, and reading with them."""

import shlex
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InterpError
from ..lens.context_index import ABOUT, ContextualIndex, load_index
from ..lens.contextual import contextual_lens
from ..lens.embedding_lens import embedding_lens
from ..lens.lens import Lens, Method
from ..lens.logit_lens import logit_lens
from ..lens.translator_files import load_translators
from ..lens.translators import Translators, token_lens, tuned_lens
from ..models.vlm import Vlm
from ..presets import PRESETS, KnownLens
from ..tracing.trace import Trace
from ..validation import shown
from ..web.payloads.lens_texts import NAMES, LensMethod, known_lens, lens_method
from .zerogpu import on_gpu, remote, seconds

Made = Translators | ContextualIndex
"""What a lens reads with, if it needs anything besides the model."""
_PLAIN: dict[str, Callable[..., Lens]] = {"logit": logit_lens, "embedding": embedding_lens}
_TRAINED: dict[str, Callable[..., Lens]] = {"tuned": tuned_lens, "token": token_lens}


class LensShelf:
    """Which lenses a model has: the logit and the embedding lens, those of its preset, and, for `default_model`, those in the folders `sources`.

    Raises InterpError for a source that is no lens.
    """

    def __init__(self, default_model: str, sources: Sequence[str] = ()) -> None:
        self._default_model = default_model
        self._own: dict[str, Made] = {}
        for source in sources:
            made = _load(source)
            self._own["contextual" if isinstance(made, ContextualIndex) else made.kind] = made
        self._held: dict[str, Made] = {}
        self._loading = threading.Lock()

    def methods(self, vlm: Vlm) -> tuple[Method, ...]:
        """The lenses of a model, in the order of the page."""
        return tuple(method for method in NAMES if self._has(vlm, method))

    def _has(self, vlm: Vlm, method: Method) -> bool:
        if method == "embedding":
            return bool(vlm.model.get_input_embeddings().weight.shape[0] >= len(vlm.vocabulary.texts))
        return method in _PLAIN or self._own_for(vlm, method) is not None or known_lens(method, vlm.name) is not None

    def _own_for(self, vlm: Vlm, method: str) -> Made | None:
        return self._own.get(method) if vlm.name == self._default_model else None

    def meant(self, method: str, vlm: Vlm) -> Method:
        """The lens that a name refers to; "" is the one that the model opens with. Raises InterpError for one that this model lacks."""
        there_are = self.methods(vlm)
        preset = PRESETS.get(vlm.name)
        if not method:
            method = preset.opens_with if preset and preset.opens_with in there_are else "logit"
        for known in there_are:
            if known == method:
                return known
        raise InterpError(self.lacking(method, vlm))

    def lacking(self, method: str, vlm: Vlm) -> str:
        """That a model lacks a lens, which ones it has and how to get more."""
        more = self.missing(vlm) if method in NAMES else ""
        return f"method is {shown(method)}; {vlm.name} has these lenses: {', '.join(self.methods(vlm))}. {more}".strip()

    def described(self, vlm: Vlm) -> list[LensMethod]:
        """The lenses of a model, as the page shows them."""
        return [lens_method(method, vlm.name, self._known(vlm, method)) for method in self.methods(vlm)]

    def _known(self, vlm: Vlm, method: Method) -> KnownLens | None:
        """What is known about a lens: of one of the user's own, only on what it was trained."""
        own = self._own_for(vlm, method)
        if own is None:
            return known_lens(method, vlm.name)
        return KnownLens(method, "", own.made_from if isinstance(own, ContextualIndex) else own.trained_on, "")

    def missing(self, vlm: Vlm) -> str:
        """How to get the lenses that this model lacks; "" if it has them all."""
        there_are = self.methods(vlm)
        lacking = [method for method in NAMES if method not in there_are and method not in _PLAIN]
        if not lacking:
            return ""
        model = shlex.quote(vlm.name)
        train = [
            f"python -m interp.lens.train {kind} --model {model} --text FILE --work WORK --target LENS"
            for kind in _TRAINED
            if kind in lacking
        ]
        index = [f"python -m interp.lens.index --model {model} --text FILE --target INDEX"] if "contextual" in lacking else []
        start = f"python app.py --model {model}{' --lens LENS' if train else ''}{' --lens INDEX' if index else ''}"
        names = ", ".join(NAMES[method].lower() for method in lacking)
        return "\n".join(
            [
                f"Not made for this model: {names}. Each takes one command and a text file; then start the app with it:",
                *train,
                *index,
                start,
            ]
        )

    def read(self, trace: Trace, method: Method, top_k: int, layers: Sequence[int]) -> Lens:
        """A trace through one lens, at those of the `layers` that it can read."""
        if method in _PLAIN:
            return on_gpu(_PLAIN[method], trace, top_k=top_k, layers=layers, allow=seconds())
        made = self._get(trace.vlm, method)
        if isinstance(made, ContextualIndex):
            return on_gpu(contextual_lens, trace, made, top_k=top_k, layers=layers, allow=seconds())
        readable = [layer for layer in layers if layer in made.layers] or made.layers
        return on_gpu(_TRAINED[method], trace, made, top_k=top_k, layers=readable, allow=seconds())

    def _get(self, vlm: Vlm, method: Method) -> Made:
        """What a lens reads with, loaded once and kept until another model is loaded."""
        with self._loading:
            if method not in self._held:
                known = known_lens(method, vlm.name)
                made = self._own_for(vlm, method) or (_load(known.source) if known else None)
                if made is None:
                    raise InterpError(self.lacking(method, vlm))
                device = vlm.model.device
                if isinstance(made, ContextualIndex) and device.type == "cuda" and not remote():
                    made = made.to(str(device))
                self._held[method] = made
            return self._held[method]

    def clear(self) -> None:
        """Drop what belongs to the model that was loaded."""
        with self._loading:
            self._held = {}


def _load(source: str) -> Made:
    return load_index(source) if (Path(source) / ABOUT).is_file() else load_translators(source)
