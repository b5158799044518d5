"""What the page and the API both call: models that are loaded, traces that are remembered, lenses that can be asked again.

Plain functions that take plain values and raise InterpError. Knows nothing of gradio.
"""

import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..errors import InterpError
from ..lens import Lens, logit_lens
from ..model import Vlm, load, pick_device
from ..presets import PRESETS
from ..readout import free_bytes
from ..trace import Trace, TraceCache
from .payload import encode, quantise

MAX_NEW_TOKENS = 256
MAX_TOP_K = 50
_REMEMBERED = 8  # lenses that the page can still ask about


class Service:
    """One model at a time, and what was done with it.

    `shared`: others than the machine's owner use it (a Space, a public address). Then `model` takes only the model it was started with, unless
    `any_model` is set.
    """

    def __init__(self, model: str = "emoji-llava", *, quantize: str = "auto", shared: bool = False, any_model: bool = False) -> None:
        self.default_model = model
        self.traces = TraceCache()
        self._quantize = quantize
        self._fixed = shared and not any_model
        self._vlm: Vlm | None = None
        self._loading = threading.Lock()
        self._lenses: OrderedDict[str, Lens] = OrderedDict()

    @property
    def can_switch(self) -> bool:
        """Whether visitors may choose another model."""
        return not self._fixed

    def vlm(self, name: str | None = None) -> Vlm:
        """The model of this name, loading it, and letting go of the one before, if needed."""
        name = (name or self.default_model).strip()
        if self._fixed and name != self.default_model:
            raise InterpError(
                f"This server runs {self.default_model!r} only; {name!r} was asked for. Leave `model` out, or run your own copy "
                f"(python app.py --model {name})."
            )
        with self._loading:
            if self._vlm is None or self._vlm.name != name:
                # The new one is loaded first: if that fails, the old one still serves. A card too small for both says so by itself.
                self._vlm = load(name, quantize=self._quantize)  # type: ignore[arg-type]
            return self._vlm

    def models(self) -> list[dict[str, Any]]:
        """Every preset and whether it fits this machine."""
        loaded = self._vlm.name if self._vlm else None
        free = free_bytes(pick_device("auto")) / 2**30
        return [
            {
                "name": preset.name,
                "checkpoint": preset.checkpoint if "/" in preset.checkpoint and not preset.checkpoint.startswith("/") else preset.name,
                "layers": preset.layers,
                "default_layer": preset.default_layer,
                "saes": [],
                "loaded": preset.name == loaded,
                "fits": preset.memory_gb <= free,
                "memory_gb": preset.memory_gb,
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
        on_text: Callable[[str], None] | None = None,
        on_trace: Callable[[Trace], None] | None = None,
    ) -> Lens:
        """The logit lens of one picture and prompt. `on_text` gets the growing answer, `on_trace` the trace before it is read."""
        if image is None:
            raise InterpError("There is no picture. Choose or upload one first.")
        top_k = whole_number("top_k", top_k, 1, MAX_TOP_K)
        max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1, MAX_NEW_TOKENS)
        trace = self.traces.get(self.vlm(model), image, prompt, max_new_tokens=max_new_tokens, on_text=on_text)
        if on_trace:
            on_trace(trace)
        return logit_lens(trace, top_k=top_k)

    def remember(self, lens: Lens) -> str:
        """A key under which `find_word` can be asked about this lens for a while."""
        run = secrets.token_urlsafe(9)
        with self._loading:
            self._lenses[run] = lens
            while len(self._lenses) > _REMEMBERED:
                self._lenses.popitem(last=False)
        return run

    def remembered(self, run: str) -> Lens:
        """The lens that `remember` returned this key for."""
        lens = self._lenses.get(run)
        if lens is None:
            raise InterpError("This result is no longer kept on the server. Press Run again, then repeat.")
        return lens

    def find_word(self, run: str, word: str) -> dict[str, Any]:
        """A word's probability at every layer and position, as the view wants it."""
        lens = self.remembered(run)
        if not isinstance(word, str) or len(word) > 80:
            raise InterpError("A word to look for has 1 to 80 characters.")
        values = lens.probability(word)
        return {"spellings": list(lens.resolve(word)), "values": encode(quantise(values))}


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int, or an InterpError that says what is wrong with it. JSON clients may send 5.0 for 5."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value != int(value) or not low <= value <= high:
        raise InterpError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
    return int(value)
