"""Which positions the attention that mattered came from: relevancy by gradients (Chefer et al. 2021, "Generic Attention-model Explainability").

In each layer l, C_l is the mean over heads of max(0, A * dy/dA), A the attention weights and y the word's logit. Starting at the row that
emits the word, r <- r + r C_l from the last layer to the first; this is that row of R = (I + C_last) ... (I + C_0).

The states of the trace serve as checkpoints: each layer is run again by itself, with the gradient that came from above. So one backward pass
explains one word, and one layer's weights are held at a time.
"""

from collections.abc import Callable
from typing import Any

import torch

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.attend import Heads
from ..models.vlm import Vlm
from ..tracing.replay import Replay
from ..tracing.select import answer_token
from ..tracing.trace import Trace
from ..validation import instance, text
from .maps import PatchMap

_LOWER = "Take a smaller picture or a shorter answer, or choose a smaller model: one layer's attention weights must fit, heads x T x T."
_NOTE = (
    "Follows attention that raised this word, weighted by its gradient; it shows neither what lowered the word nor what the other parts of "
    "the layers did, and is no proof that the answer needed these patches."
)


def relevancy(trace: Trace, token: Any, baseline: str | None = None) -> PatchMap:
    """Relevancy of every position for one token of the answer, given as its number or as a word; at least 0.

    It explains the token's logit or, with `baseline`, its logit less that of this other word: why this word rather than that one.

    Raises InterpError for a token that the answer does not have, a baseline of several tokens or of the token itself, and a trace without a
    model.
    """
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    position = answer_token(trace, token)
    said = trace.tokens[position].id
    other = None if baseline is None else baseline_id(vlm, baseline, said)

    def target(state: torch.Tensor) -> torch.Tensor:
        logits = vlm.unembed.some_logits(state, torch.tensor([said] if other is None else [said, other]))[0]
        return logits[0] if other is None else logits[0] - logits[1]

    def run(_less: int) -> tuple[torch.Tensor, tuple[int, ...]]:
        replay = Replay.of(trace)
        return relevance(replay, position - 1, target), replay.without_attention

    with vlm.lock:
        values, skipped = retry_on_oom(run, _LOWER)
    note = _NOTE
    if skipped:
        note += f" {len(skipped)} of {trace.n_layers} layers mix positions by other means than attention and are left out."
    method = "relevancy" if other is None else f"relevancy, rather than {vlm.vocabulary.texts[other].strip()!r}"
    return PatchMap(trace, position, method, values, note)


def relevance(replay: Replay, row: int, target: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The row `row` of R: float32 [T] on the CPU. `target` turns the last layer's state there, [1, d], into y. The caller holds the lock."""
    trace = replay.trace
    with torch.enable_grad():
        state = trace.residual(trace.n_layers - 1)[row : row + 1].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(target(state), state)
    above = torch.zeros(1, *trace.states.shape[1:])
    above[0, row] = gradient[0]
    out = torch.zeros(trace.length)
    out[row] = 1
    for layer in reversed(range(trace.n_layers)):
        above, mixed = _one_layer(replay, layer, above)
        if mixed is not None:
            out += (out.to(mixed) @ mixed).cpu()
    if not out.isfinite().all():
        raise InterpError(f"The gradients of {trace.vlm.name} overflow in {trace.states.dtype}. Load it in a wider dtype.")
    return out


def _one_layer(replay: Replay, layer: int, above: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """From the gradient of y at what leaves block `layer`: that at what enters it, and C of the layer, [T, T]; None if it has no attention."""
    kept: list[torch.Tensor] = []

    def read(heads: Heads) -> torch.Tensor:
        kept.append(heads.weights())
        return kept[0]

    with torch.enable_grad():
        entering = replay.entering(layer).detach().requires_grad_()
        leaving = replay.run(entering, layer=layer, stop=layer + 1, read=read)
        below, *gradients = torch.autograd.grad(leaving, [entering, *kept], above.to(leaving))
    if not kept:
        return below, None
    with torch.no_grad():  # in place: these are the largest tensors here
        return below, gradients[0].mul_(kept[0]).clamp_(min=0)[0].mean(0)


def baseline_id(vlm: Vlm, baseline: str, said: int) -> int:
    """The id of a baseline word, with a leading space if the token `said` has one. Raises InterpError unless it is one other token."""
    text("baseline", baseline)
    spellings = vlm.vocabulary.resolve(baseline, vlm.tokenizer)
    spaced = vlm.vocabulary.texts[said].startswith(" ")
    fitting = [number for spelling, number in spellings.items() if spelling.startswith(" ") == spaced]
    found = (fitting or list(spellings.values()))[0]
    if found == said:
        raise InterpError(f"baseline {baseline.strip()!r} is the token itself, so nothing is left to explain. Choose another word.")
    return found
