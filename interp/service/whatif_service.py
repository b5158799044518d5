"""What if some positions could not be read, or held something else? Knockout, ablation and information flow, for the page and the API."""

from typing import Any

from ..attention.ablate import ablate
from ..attention.evidence import Evidence, smallest_evidence
from ..attention.flow import Flow, information_flow
from ..attention.knockout import Knockout, knockout
from ..errors import InterpError
from ..lens.lens import Lens
from ..tracing.select import answer_token
from ..tracing.trace import Trace
from ..validation import mapping, one_of, whole_number
from ..web.payloads.flow import FlowCurves, flow_curves
from ..web.payloads.whatif import Fewest, WhatIf, fewest, what_if
from .requests import KnockoutRequest
from .service import Service
from .zerogpu import on_gpu, seconds

_ROWS = 32  # of a batch: how long information flow or the search for patches may take on ZeroGPU
_PATCHES = 10  # whose removal flips a typical word: for each, all others are tried
WAYS = {
    "knockout": "No token could read these patches, in any layer.",
    "mean": "The mean image token stood in the place of these patches.",
    "zero": "Zeros stood in the place of these patches.",
}
"""What can be done to patches that the model is not to see, in words."""


class WhatIfService:
    """Changed runs of a service's model. `run` is the key that `Service.remember` returned for a lens."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def knockout(self, request: KnockoutRequest) -> Knockout:
        """The answer when some positions cannot be read. Raises InterpError without sources."""
        if request.sources is None or request.sources == "":
            raise InterpError('sources is empty; it must name what cannot be read, such as "image" or {"patches": [[2, 2]]}.')
        trace = self.service.trace(request)
        allow = seconds(request.max_new_tokens, rows=2)
        return on_gpu(knockout, trace, request.sources, request.targets, request.layers, allow=allow)

    def what_if(self, run: str, request: Any) -> WhatIf:
        """For the view: the answer without the image tokens at some positions. `request`: {"positions", "how"}; how: one of `WAYS`."""
        trace, asked = self._trace(run), mapping("The request", request)
        how, where = one_of("how", asked.get("how"), tuple(WAYS)), {"positions": asked.get("positions")}
        allow = seconds(len(trace.tokens) - trace.answer_start, rows=2)
        # "all": a patch that no row reads, its own included, reaches nothing.
        changed = (
            on_gpu(knockout, trace, where, "all", allow=allow) if how == "knockout" else on_gpu(ablate, trace, where, how, allow=allow)
        )
        return what_if(changed, WAYS[how])

    def fewest_patches(self, run: str, token: Any) -> Fewest:
        """For the view: the fewest patches without which a token of the answer is no longer the likeliest, cached.

        Raises InterpError for a model and picture with which the search takes minutes.
        """
        trace = self._trace(run)
        number = answer_token(trace, token) - trace.answer_start
        tries = _PATCHES * len(trace.positions("image"))
        if not self.service.affordable(trace.vlm, tries * trace.length):
            raise InterpError(
                f"With {trace.model_name} the search takes about {tries:,} runs, too many for a page. Search from Python: "
                f"interp.smallest_evidence(trace, {number})."
            )

        def make() -> Evidence:
            return on_gpu(smallest_evidence, trace, number, allow=seconds(rows=_ROWS))

        return fewest(self.service.derived(trace, ("fewest", number), make))

    def word_flow(self, run: str, request: Any) -> FlowCurves:
        """For the view: information flow to a token of the answer. `request`: {"token", "window", "positions"}, the last of an object or empty."""
        trace, asked = self._trace(run), mapping("The request", request)
        number = answer_token(trace, asked.get("token")) - trace.answer_start
        window = whole_number("window", asked.get("window"), 1, trace.n_layers)
        positions = asked.get("positions")
        return flow_curves(self.flow(trace, number, window, {"positions": positions} if positions else None))

    def flow(self, trace: Trace, token: int, window: int, where: Any) -> Flow:
        """Information flow to a token of the answer, given by its number, cached."""

        def make() -> Flow:
            return on_gpu(information_flow, trace, token, window=window, object=where, allow=seconds(rows=_ROWS))

        return self.service.derived(trace, ("flow", token, window, repr(where)), make)

    def _trace(self, run: str) -> Trace:
        return self.service.remembered(run, Lens).trace
