"""The SAE: encoding and ranking against the bare encoder product, decoding against the dense product, and what both need of memory.

All of it with a random TopK dictionary of 131 072 features for a residual stream of 4 096 and 593 tokens, the size of the largest public one
for LLaVA. Each function takes other sizes for a quick look: `python -c "from tests.bench import sae_bench; sae_bench.encoding(1024, 16384)"`.
"""

import functools
import time

import torch

from interp.saes.features import Encoding, encode
from interp.saes.sae import Sae, SparseActs

from .tools import in_fresh_process, in_turns, random_llava, report

WIDTH, FEATURES, KEPT, TOKENS = 4096, 131_072, 256, 593
PEAK = """
from tests.bench.sae_bench import {name}, random_sae, random_states
from tests.bench.tools import peak_extra_mib
sae, states = random_sae({width}, {features}), random_states({tokens}, {width})
print(peak_extra_mib(lambda: {name}(sae, states)))
"""


def random_sae(width: int, features: int, *, decoder: bool = False) -> Sae:
    """TopK, float32. One matrix is real and the other its transposed view: a part holds only the one it multiplies by. `decoder`: that is `W_dec`."""
    torch.manual_seed(0)
    weights = torch.empty((features, width) if decoder else (width, features)).uniform_(-1, 1).div_((width / 3) ** 0.5)
    encoder, directions = (weights.T, weights) if decoder else (weights, weights.T)
    return Sae("random", "", 0, encoder, torch.zeros(features), directions, torch.zeros(width), "topk", k=min(KEPT, features // 8))


def random_states(tokens: int, width: int) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(1))


def ours(sae: Sae, states: torch.Tensor) -> list[int]:
    """The ten features with the highest mean, sparse from the start."""
    encoding = Encoding(None, sae, sae.encode(states), ())
    features, statistics = encoding._statistics([*range(len(states))])
    return features[statistics[:, 0].topk(10).indices].tolist()


def reference(sae: Sae, states: torch.Tensor) -> list[int]:
    """The same as multimodal-sae's cache does it: all activations at once, TopK written back into a second dense tensor, then its entries."""
    dense = (states - sae.b_dec) @ sae.W_enc
    dense = (dense + sae.b_enc).relu()
    top = dense.topk(sae.k, sorted=False)
    masked = torch.zeros_like(dense).scatter_(1, top.indices, top.values)
    locations = (masked.abs() > 1e-5).nonzero()
    values = masked[locations[:, 0], locations[:, 1]]
    return torch.zeros(sae.d_sae).index_add_(0, locations[:, 1], values).topk(10).indices.tolist()


def encoding(width: int = WIDTH, features: int = FEATURES, tokens: int = TOKENS, runs: int = 3) -> None:
    """(a) From states to the top features against the encoder's product into a buffer that exists already; the reference's way beside it."""
    sae, states = random_sae(width, features), random_states(tokens, width)
    buffer = torch.empty(tokens, features)

    def floor() -> None:
        with torch.inference_mode():
            torch.mm(states, sae.W_enc, out=buffer)

    assert set(ours(sae, states)) == set(reference(sae, states)), "the rankings differ"
    functions = {"encode and rank": lambda: ours(sae, states), "reference": lambda: reference(sae, states), "encoder product": floor}
    seconds = in_turns(functions, runs)
    what = f"{tokens} tokens, d={width}, {features} features"
    report(what, seconds, 1.3)
    print(f"{what}: reference / encoder product = {seconds['reference'] / seconds['encoder product']:.2f}")


def memory(width: int = WIDTH, features: int = FEATURES) -> None:
    """(b) Peak memory beside the weights and the states, each in a process of its own."""
    for name, tokens, target in (("ours", TOKENS, 400), ("ours", 2900, 400), ("reference", TOKENS, None)):
        peak = float(in_fresh_process(PEAK.format(name=name, width=width, features=features, tokens=tokens)))
        verdict = "" if target is None else f" (target {target}: {'met' if peak <= target else 'MISSED'})"
        print(f"peak extra memory, {tokens} tokens, {name}: {peak:.0f} MiB{verdict}", flush=True)


def decoding(width: int = WIDTH, features: int = FEATURES, tokens: int = TOKENS, runs: int = 3) -> None:
    """(c) Sparse acts back into states against the dense product."""
    sae = random_sae(width, features, decoder=True)
    kept = sae.k
    make = torch.Generator().manual_seed(2)
    chosen = torch.rand(tokens, features, generator=make).topk(kept).indices.sort().values
    values = torch.rand(tokens, kept, generator=make) + 0.1
    dense = torch.zeros(tokens, features).scatter_(1, chosen, values)
    one = torch.ones(tokens, 1)
    acts = SparseActs(torch.arange(0, tokens * kept + 1, kept, dtype=torch.int32), chosen.flatten().int(), values.flatten(), 0 * one, one)
    off = (sae.decode(acts) - dense @ sae.W_dec).abs().max().item()
    print(f"largest difference from the dense product: {off:.1e} (target 1e-3: {'met' if off <= 1e-3 else 'MISSED'})")
    seconds = in_turns({"decode": lambda: sae.decode(acts), "dense product": lambda: dense @ sae.W_dec}, runs)
    report(f"{tokens} tokens, {kept} features each, d={width}", seconds)
    print(f"decode: {seconds['decode']:.3f} s (target 0.3: {'met' if seconds['decode'] <= 0.3 else 'MISSED'})")


def ranking(width: int = WIDTH, features: int = FEATURES // 8) -> None:
    """(d) With a model, words and maps: the first look at a trace, and other rankings and tokens of the same one after it."""
    pixels = torch.randint(256, (336, 336, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    trace, sae = (
        random_llava(width, 1).trace(pixels, "what", max_new_tokens=1, answer="word1 word2"),
        random_sae(width, features, decoder=True),
    )
    choices = [(where, rank_by) for rank_by in ("max", "frequency") for where in ("image", "prompt", {"box": [4, 4, 9, 9]})]
    encode(trace, sae).top()  # what a model reads once: its vocabulary, its readout
    start = time.perf_counter()
    found = encode(trace, sae)
    found.top()
    first = time.perf_counter() - start
    seconds = in_turns({str(choice): functools.partial(found.top, 10, *choice) for choice in choices}, runs=3)
    start = time.perf_counter()
    quality = found.quality
    print(f"quality of {', '.join(f'{q.tokens} {kind} tokens' for kind, q in quality.items())}: {time.perf_counter() - start:.3f} s")
    report(f"{features} features, top 10", {"slowest second ranking": max(seconds.values()), "first look": first})


PARTS = {"encode": encoding, "memory": memory, "decode": decoding, "page": ranking}
