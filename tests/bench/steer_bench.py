"""Steering: the pair and the sweep against plain generation, one edit's cost in a decode step, and against a clamp that encodes and decodes."""

import functools
import statistics
import time

import torch

import interp
from interp.steering.batch import prompt_of
from interp.steering.edit_hooks import EditHooks
from interp.tracing.record import greedy

from .sae_bench import FEATURES, WIDTH, random_sae, random_states
from .tools import ROOT, in_turns, random_llava, report

EXAMPLE = ROOT / "assets" / "examples" / "dog-and-pizza.webp"
PROMPT = "Describe the image."
NEW = 32
STRENGTHS = [-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4]


class Endless(interp.Vlm):
    """No answer ends by itself, so that all have the same length."""

    @property
    def end_ids(self) -> set[int]:
        return set()


def endless() -> interp.Vlm:
    loaded = interp.load("emoji-llava", device="cpu")
    loaded.model.generation_config.eos_token_id = None
    return Endless(loaded.model, loaded.processor, name="emoji-llava")


def plain(vlm: interp.Vlm) -> None:
    """What anyone would call: the picture prepared and one answer generated."""
    with greedy(vlm), torch.inference_mode():
        vlm.model.generate(**vlm.prepare(EXAMPLE, PROMPT), max_new_tokens=NEW, do_sample=False)


def pair(runs: int = 9) -> None:
    """(a) A plain and a steered answer, with KL and probabilities, against one plain generation."""
    vlm, sae = endless(), interp.load_sae("emoji-llava")
    edit = interp.Edit(sae=sae, feature=0, strength=-0.1)
    result = interp.steer(vlm, EXAMPLE, PROMPT, [edit], max_new_tokens=NEW)
    assert len(result.plain_answer.ids) == len(result.steered_answer.ids) == NEW
    steer = functools.partial(interp.steer, vlm, EXAMPLE, PROMPT, [edit], max_new_tokens=NEW, words=["dog"])
    report(f"emoji-llava, {NEW} tokens", in_turns({"plain and steered": steer, "plain": lambda: plain(vlm)}, runs), 1.35)


def sweep(runs: int = 5) -> None:
    """(b) Nine strengths in one batch against nine runs: of `steer`, and of plain generation, which has neither edits nor KL."""
    vlm, sae = endless(), interp.load_sae("emoji-llava")
    edits = [interp.Edit(sae=sae, feature=0, strength=strength) for strength in STRENGTHS]
    functions = {
        "sweep of 9": lambda: interp.steer_sweep(vlm, EXAMPLE, PROMPT, edits[0], STRENGTHS, max_new_tokens=NEW),
        "9 plain generations": lambda: [plain(vlm) for _ in edits],
        "9 single steers": lambda: [interp.steer(vlm, EXAMPLE, PROMPT, [edit], max_new_tokens=NEW) for edit in edits],
    }
    seconds = in_turns(functions, runs)
    report(f"emoji-llava, {NEW} tokens", seconds, 0.3)
    print(f"sweep of 9 / 9 plain generations = {seconds['sweep of 9'] / seconds['9 plain generations']:.2f}")


def step(width: int = WIDTH, layers: int = 4, steps: int = 20) -> None:
    """(c) One edit in one decode step of a batch of two, against the step. The model's blocks have a full MLP, as a real decoder's."""
    vlm = random_llava(width, layers, intermediate=11_008 * width // 4096)
    sae = random_sae(width, 4096)
    pixels = torch.randint(256, (336, 336, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    inputs = vlm.prepare(pixels, "what")
    prompt = prompt_of(vlm, inputs)
    edit = interp.Edit(sae=sae, feature=7, target=0.0)
    spent: list[float] = []

    class Timed(EditHooks):
        def _edited(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
            start = time.perf_counter()
            out = super()._edited(layer, hidden)
            spent.append(time.perf_counter() - start)
            return out

    whole = []
    tensors = {name: tensor.repeat(2, *[1] * (tensor.ndim - 1)) for name, tensor in inputs.tensors.items()}
    with Timed(vlm, prompt, [(), (edit,)], {edit.at: None}), torch.inference_mode():
        cache = vlm.model(**tensors, use_cache=True, logits_to_keep=1).past_key_values
        spent.clear()
        token = torch.full((2, 1), 300)
        for _ in range(steps):
            start = time.perf_counter()
            vlm.model(input_ids=token, past_key_values=cache, use_cache=True)
            whole.append(time.perf_counter() - start)
    cost, total = statistics.median(spent), statistics.median(whole)
    share = cost / total
    print(f"one edit in a decode step, d={width}, {layers} blocks: {cost * 1e3:.2f} ms of {total * 1e3:.1f} ms")
    print(f"edit / step = {share:.2%} (target 2 %: {'met' if share <= 0.02 else 'MISSED'})", flush=True)


def clamp(width: int = WIDTH, features: int = FEATURES, runs: int = 5) -> None:
    """(d) Setting one feature of 131 072 on one token: the delta along its decoder row against encode, TopK and decode of them all."""
    sae, states = random_sae(width, features), random_states(1, width)
    only = sae.only(7, torch.device("cpu"))

    def ours() -> torch.Tensor:
        activation, scale = only.read(states)
        return states + (5.0 - activation) / scale * only.W_dec[0]

    def reference() -> torch.Tensor:
        """As multimodal-sae steers: the state is replaced by the reconstruction of its 256 largest features."""
        latents = ((states - sae.b_dec) @ sae.W_enc + sae.b_enc).relu()
        latents[:, 7] = 5.0
        top = latents.topk(sae.k, sorted=False)
        dense = torch.zeros_like(latents).scatter_(1, top.indices, top.values)
        return dense @ sae.W_dec + sae.b_dec

    with torch.inference_mode():
        seconds = in_turns({"reference": reference, "delta": lambda: [ours() for _ in range(100)]}, runs)
    whole, delta = seconds["reference"], seconds["delta"] / 100
    print(f"one token, d={width}, {features} features: reference {whole * 1e3:.1f} ms, delta {delta * 1e3:.4f} ms")
    ratio = whole / delta
    print(f"reference / delta = {ratio:.0f} (target 100: {'met' if ratio >= 100 else 'MISSED'})", flush=True)


PARTS = {"pair": pair, "sweep": sweep, "step": step, "clamp": clamp}
