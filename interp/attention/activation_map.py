"""Which patches say the word themselves: the token activation map (TAM; Li et al. 2025, "Token Activation Map to Visually Explain Multimodal LLMs").

It is the last layer of the logit lens at the image tokens, less what the words before explain already, denoised. It needs no pass of the model.
"""

from typing import Any

import torch

from ..devices import retry_on_oom
from ..tracing.select import answer_token
from ..tracing.trace import Trace
from ..validation import instance
from .maps import PatchMap

_LOWER = "Load the model with quantize='4bit', or choose a smaller model."
_NOTE = (
    "Shows which patches would say this word themselves in the last layer, less what earlier words of the answer explain; it does not show "
    "whether the answer read these patches."
)


def activation_map(trace: Trace, token: Any) -> PatchMap:
    """The token activation map of one token of the answer, given as its number or as a word: logits of at least 0 at the image tokens.

    The maps of earlier, different answer tokens are averaged, each weighted by how strongly the row that emits it would say this word, and
    subtracted with the factor that leaves least (least squares); then each grid is smoothed over 3 x 3 patches. As a softmax ignores a
    constant added to all logits, a model whose logits are all negative has an empty map.

    Raises InterpError for a token that the answer does not have, and for a trace without a model.
    """
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    position = answer_token(trace, token)
    word = _word(trace, position)
    others = [earlier for earlier in range(trace.answer_start, position) if _word(trace, earlier) != word]
    image = trace.positions("image")
    with vlm.lock, torch.no_grad():
        logits = retry_on_oom(lambda _less: activations(trace, image + [earlier - 1 for earlier in others], [position, *others]), _LOWER)
    own, earlier = logits[: len(image), 0], logits[: len(image), 1:]
    values = torch.zeros(trace.length)
    values[image] = without(own, earlier @ _normalized(logits[len(image) :, 0]))
    for grid in trace.grids:
        values[grid.positions] = smoothed(values[grid.positions])
    return PatchMap(trace, position, "activation map", values, _NOTE)


def activations(trace: Trace, rows: list[int], tokens: list[int]) -> torch.Tensor:
    """Logits of `tokens` (positions in `trace.tokens`) that the last layer has at `rows`, negative ones as 0: float32 [rows, tokens] on the CPU."""
    ids = torch.tensor([trace.tokens[token].id for token in tokens])
    return trace.vlm.unembed.some_logits(trace.residual(trace.n_layers - 1)[rows], ids).clamp(min=0).cpu()


def without(values: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """`values` less the multiple of `background` that is nearest to them, and at least 0."""
    size = background.square().sum()
    scale = values @ background / size if size > 0 else 0.0
    return (values - scale * background).clamp(min=0)


def smoothed(values: torch.Tensor) -> torch.Tensor:
    """The rank-Gaussian filter of TAM on a grid of values [rows, cols] of at least 0.

    The nine values around each patch (mirrored at the border) are sorted and averaged with Gaussian weights around their median. Its width,
    in ranks, is the nine values' standard deviation over their mean: where they agree it is a median filter, which removes single outliers.
    """
    rows, cols = (_mirrored(size) for size in values.shape)
    around = values[rows][:, cols].unfold(0, 3, 1).unfold(1, 3, 1).flatten(2).sort(-1).values
    mean = around.mean(-1, keepdim=True)
    width = (around.std(-1, correction=0, keepdim=True) / mean).nan_to_num().clamp(min=1e-3)
    weights = (-torch.arange(-4.0, 5).square() / (2 * width.square())).exp()
    return (around * weights).sum(-1) / weights.sum(-1)


def _mirrored(size: int) -> torch.Tensor:
    """0 to `size` - 1 with one more at each end, mirrored without repeating the border."""
    index = torch.arange(-1, size + 1).abs()
    return torch.minimum(index, 2 * (size - 1) - index).clamp(min=0)


def _normalized(weights: torch.Tensor) -> torch.Tensor:
    return weights / (weights.sum() + 1e-8)


def _word(trace: Trace, position: int) -> str:
    return trace.tokens[position].text.strip().casefold()
