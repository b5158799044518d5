"""The lenses that there are for each model, and reading with them."""

from collections.abc import Callable, Sequence

from ..errors import InterpError
from ..lens.embedding_lens import embedding_lens
from ..lens.lens import Lens, Method
from ..lens.logit_lens import logit_lens
from ..models.vlm import Vlm
from ..presets import PRESETS
from ..tracing.trace import Trace
from ..validation import shown
from ..web.payloads.lens_texts import NAMES, LensMethod, lens_method
from .zerogpu import on_gpu, seconds

_UNTRAINED: dict[str, Callable[..., Lens]] = {"logit": logit_lens, "embedding": embedding_lens}


class LensShelf:
    """Which lenses a model has. The logit and the embedding lens need nothing."""

    def methods(self, vlm: Vlm) -> tuple[Method, ...]:
        """The lenses of a model, in the order of the page."""
        return tuple(method for method in NAMES if self._has(vlm, method))

    def _has(self, vlm: Vlm, method: Method) -> bool:
        if method == "embedding":
            return bool(vlm.model.get_input_embeddings().weight.shape[0] >= len(vlm.vocabulary.texts))
        return method in _UNTRAINED

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
        return [lens_method(method, vlm.name) for method in self.methods(vlm)]

    def missing(self, vlm: Vlm) -> str:  # noqa: ARG002
        """How to get the lenses that this model lacks; "" if it has them all."""
        return ""

    def read(self, trace: Trace, method: Method, top_k: int, layers: Sequence[int]) -> Lens:
        """A trace through one lens, at those of the `layers` that it can read."""
        return on_gpu(_UNTRAINED[method], trace, top_k=top_k, layers=layers, allow=seconds())
