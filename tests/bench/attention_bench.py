"""What an answer used: attention rows of 20 tokens against the same forward pass without them, attribution of all features, information flow."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch

import interp
from interp.tracing.replay import Replay

from . import attribution_bench, flow_bench
from .sae_bench import FEATURES
from .tools import in_turns, peak_extra_mib, random_llava, report, verdict

PROMPT = "Describe the image."
ANSWER = "a dog and a pizza on "  # a token for each of its bytes
TOKENS = 20
WIDTH, LAYERS, HEADS = 4096, 4, 32


def picture() -> Any:
    """Noise, the size of a LLaVA-1.5 view."""
    return torch.randint(256, (336, 336, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()


def traced(width: int, layers: int, heads: int) -> interp.Trace:
    """576 image tokens and an answer, in a random LLaVA whose blocks have the proportions of real ones."""
    vlm = random_llava(width, layers, heads=heads, intermediate=11_008 * width // 4096)
    trace = vlm.trace(picture(), PROMPT, answer=ANSWER)
    assert len(trace.tokens) - trace.answer_start >= TOKENS
    return trace


def plain_forward(trace: interp.Trace) -> None:
    """The model alone over picture, prompt and answer: no hook, no attention function of ours."""
    vlm, inputs = trace.vlm, trace.vlm.prepare(trace.image, trace.prompt)
    ids = [token.id for token in trace.tokens[inputs["input_ids"].shape[1] : -1]]
    with vlm.lock, torch.inference_mode():
        vlm.read(inputs.tensors, ids)


def eager_forward(trace: interp.Trace) -> torch.Tensor:
    """What `output_attentions` costs: the same rows, cut from all weights of all layers. [layers, heads, tokens, T]."""
    vlm, inputs = trace.vlm, trace.vlm.prepare(trace.image, trace.prompt)
    tensors = dict(inputs.tensors)
    tensors["input_ids"] = torch.tensor([[token.id for token in trace.tokens[:-1]]], device=vlm.model.device)
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    own = vlm.decoder.config._attn_implementation
    vlm.decoder.set_attn_implementation("eager")
    try:
        with vlm.lock, torch.inference_mode():
            weights = vlm.model(**tensors, output_attentions=True, logits_to_keep=1).attentions
    finally:
        vlm.decoder.set_attn_implementation(own)
    first = trace.answer_start - 1
    return torch.stack([each[0, :, first : first + TOKENS] for each in weights])


def ways(trace: interp.Trace) -> dict[str, Callable[[], object]]:
    """The rows of the answer, and what they are measured against; the last one is the baseline."""

    def replay() -> None:
        with trace.vlm.lock, torch.no_grad():
            Replay.of(trace)  # with hooks and with our attention function, which reads nothing

    return {
        "rows": lambda: interp.attention(trace, range(TOKENS)),
        "eager, all weights": lambda: eager_forward(trace),
        "replay without rows": replay,
        "plain forward": lambda: plain_forward(trace),
    }


def peak_mib(function: Callable[[], object]) -> float:
    """MiB above what the process holds, of which nothing is free to be used again."""
    ctypes.CDLL(None).malloc_trim(0)
    return peak_extra_mib(function)


def rows(width: int = WIDTH, layers: int = LAYERS, heads: int = HEADS, runs: int = 5) -> None:
    """(a) Attention rows of 20 tokens: time against the same forward without capture, and memory against the size of the rows."""
    trace = traced(width, layers, heads)
    found, functions = interp.attention(trace, range(TOKENS)).weights, ways(trace)
    torch.testing.assert_close(found, eager_forward(trace).float(), atol=1e-5, rtol=1e-3)
    what = f"d={width}, {layers} layers, {heads} heads, {trace.length} positions, {TOKENS} tokens"
    report(what, in_turns(functions, runs), 1.15)
    peaks = {name: peak_mib(function) for name, function in functions.items()}
    for name, peak in peaks.items():
        print(f"{what}: {name}: peak {peak:.1f} MiB")
    size, extra = found.nbytes / 2**20, peaks["rows"] - peaks["replay without rows"]
    print(
        f"{what}: beside the forward pass {extra:.1f} MiB, {extra / size:.2f} x the rows' {size:.1f} MiB (target {verdict(extra / size, 2)})"
    )


def tiny() -> None:
    """(b) The same on a model of emoji-llava's size, where fixed costs weigh most."""
    rows(192, 8, 6, runs=15)


def trace(width: int = WIDTH, layers: int = LAYERS, heads: int = HEADS, runs: int = 5) -> None:
    """(c) A plain trace after attention was read, against the same before: nothing is left in its way."""
    before = traced(width, layers, heads)
    plain = functools.partial(before.vlm.trace, picture(), PROMPT, answer=ANSWER)
    first = in_turns({"before": plain}, runs)
    interp.attention(before)
    after = in_turns({"after": plain}, runs)
    assert plain().states.equal(before.states)
    report(f"plain trace, d={width}, {layers} layers", {**after, **first}, 1.05)


def attribution(width: int = WIDTH, layers: int = LAYERS, heads: int = HEADS, features: int = FEATURES, runs: int = 3) -> None:
    """(d) Scores of all features against one forward pass, one backward pass and one encode; beside it, a loop over features."""
    found = traced(width, layers, heads)
    attribution_bench.measure(found, attribution_bench.sae_for(found, features), runs)


def flow(width: int = WIDTH, layers: int = 32, heads: int = HEADS, sample: int = 2) -> None:
    """(e) Information flow of 32 windows x 6 paths against 192 single forward passes."""
    flow_bench.measure(flow_bench.deep(width, layers, heads), picture(), PROMPT, ANSWER, sample)


def tiny_flow() -> None:
    """(f) The same in a narrow model of as many layers, where fixed costs weigh most."""
    flow(192, 32, 6, sample=4)


PARTS = {"rows": rows, "tiny": tiny, "trace": trace, "attribution": attribution, "flow": flow, "tiny flow": tiny_flow}
