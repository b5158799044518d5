"""Attribution of all features of an SAE, against what it cannot do without, and against a loop over features. A part of the suite `attention`."""

import time

import torch

import interp
from interp.attribution.attribute import estimate, explained
from interp.attribution.margin import Margin
from interp.attribution.scores import Scores
from interp.models.hooks import Hooks
from interp.tracing.replay import Replay

from .sae_bench import FEATURES, random_sae
from .tools import in_turns, report

LOOPED = 16
"""Features of the loop, whose time is extrapolated to all."""


def ours(trace: interp.Trace, sae: interp.Sae) -> Scores:
    """Scores of every feature at every position, from the trace."""
    encoding, margin = interp.encode(trace, sae), Margin.of(trace, 0, None)
    with trace.vlm.lock:
        return estimate(encoding, margin)[1]


def needed(trace: interp.Trace, sae: interp.Sae, margin: Margin) -> torch.Tensor:
    """One forward pass of the whole model, one backward pass down to the SAE's layer, one encode: the gradient [T, d]."""
    vlm, leaves = trace.vlm, []

    def cut(hidden: torch.Tensor) -> torch.Tensor:
        leaves.append(hidden.detach().requires_grad_())
        return leaves[0]

    tensors = dict(vlm.prepare(trace.image, trace.prompt).tensors)
    tensors["input_ids"] = torch.tensor([[token.id for token in trace.tokens[:-1]]])
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    with vlm.lock, Hooks() as hooks:
        vlm.on_layer(hooks, sae.layer, cut)
        logits = vlm.model(**tensors, use_cache=False, logits_to_keep=torch.tensor([margin.row])).logits[0, 0]
        (gradient,) = torch.autograd.grad(logits[margin.said] - logits[margin.other], leaves[0])
    interp.encode(trace, sae)
    return gradient[0]


def looped(trace: interp.Trace, sae: interp.Sae, margin: Margin, features: list[int]) -> torch.Tensor:
    """(x - x') dm/dx' for one feature after the other, x' without it: [features, T]. Kinder than the reference, which runs the whole model twice."""
    states, acts = trace.residual(sae.layer), interp.encode(trace, sae).acts
    out = torch.zeros(len(features), trace.length)
    with trace.vlm.lock:
        replay = Replay.of(trace)
        for row, feature in zip(out, features, strict=True):
            here = acts.features == feature
            without = states.clone()
            without[acts.tokens[here]] -= acts.values[here, None] * sae.W_dec[feature]
            without.requires_grad_()
            m = margin.after(replay, sae.layer, without[None])
            (gradient,) = torch.autograd.grad(m.sum(), without)
            row[:] = ((states - without) * gradient).sum(-1).detach()
    return out


def measure(trace: interp.Trace, sae: interp.Sae, runs: int) -> None:
    """Print the times, after the answers were compared."""
    margin = Margin.of(trace, 0, None)
    found = explained(interp.encode(trace, sae), 0, top=LOOPED, norms="free")
    gradient, features = needed(trace, sae, margin), [feature.feature for feature in found.features]
    for feature in found.features:
        expected = feature.about.activations * (gradient @ sae.W_dec[feature.feature])
        torch.testing.assert_close(feature.scores, expected, atol=1e-4, rtol=1e-2)
    start = time.perf_counter()
    loop = looped(trace, sae, margin, features)
    each = (time.perf_counter() - start) / len(features)
    agreement = torch.corrcoef(torch.stack([loop.flatten(), torch.stack([feature.scores for feature in found.features]).flatten()]))[0, 1]
    what = f"{trace.length} positions, d={sae.d_in}, {trace.n_layers} layers, {sae.d_sae} features of layer {sae.layer}"
    seconds = in_turns({"attribution": lambda: ours(trace, sae), "forward, backward, encode": lambda: needed(trace, sae, margin)}, runs)
    report(what, seconds, 1.3)
    whole = each * sae.d_sae
    print(
        f"{what}: loop over features: {each:.3f} s each, {whole:.0f} s for all, extrapolated from {len(features)}: "
        f"{whole / seconds['attribution']:.0f} x attribution; their scores correlate with {agreement:.4f}"
    )
    start = time.perf_counter()
    explained(interp.encode(trace, sae), 0, top=50)
    print(f"{what}: with the exact effects of 50 features: {time.perf_counter() - start:.3f} s", flush=True)


def sae_for(trace: interp.Trace, features: int = FEATURES) -> interp.Sae:
    """A random TopK dictionary of the last layer but one, about where the largest public one for LLaVA reads."""
    sae = random_sae(trace.states.shape[-1], features, decoder=True)
    return interp.Sae(**{**vars(sae), "layer": trace.n_layers - 2})
