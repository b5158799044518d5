"""Information flow: all windows and paths in few batches, against a whole forward pass for each."""

import copy
from typing import Any

import torch

import interp
from interp.attention.cuts import Cut, cut_off
from interp.models.attend import attending

from .tools import in_turns, random_llava, report


def deep(width: int, layers: int, heads: int) -> interp.Vlm:
    """A random LLaVA of many thin blocks that share their weights, so that 32 of full width fit into memory; each still costs what it costs."""
    vlm = random_llava(width, 1, heads=heads)
    first = vlm.blocks[0]
    weights = {id(weight): weight for weight in first.parameters()}
    for layer in range(1, layers):
        block = copy.deepcopy(first, dict(weights))
        block.self_attn.layer_idx = layer
        vlm.blocks.append(block)
    vlm.model.config.get_text_config().num_hidden_layers = layers
    return vlm


def cut_forwards(trace: interp.Trace, layer_sets: list[frozenset[int]]) -> list[float]:
    """Log-probability of the last token of the answer if its row cannot read the image in some layers: one whole forward pass for each."""
    vlm, last, image = trace.vlm, trace.length - 1, tuple(trace.positions("image"))
    tensors = dict(vlm.prepare(trace.image, trace.prompt).tensors)
    tensors["input_ids"] = torch.tensor([[token.id for token in trace.tokens[:-1]]], device=vlm.model.device)
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    out = []
    for layers in layer_sets:
        with vlm.lock, torch.inference_mode(), attending(vlm, mask=cut_off([Cut((last,), image, layers)], trace)):
            logits = vlm.model(**tensors, use_cache=False, logits_to_keep=1).logits[0, -1]
        out.append(logits.log_softmax(-1)[trace.tokens[-1].id].item())
    return out


def measure(vlm: interp.Vlm, image: Any, prompt: str, answer: str, sample: int, runs: int = 1) -> None:
    """Flow to the answer's last token, 6 paths x as many windows as layers, against a forward pass for each, estimated from `sample` of them."""
    trace, layers = vlm.trace(image, prompt, answer=answer), vlm.n_layers
    token, window = len(trace.tokens) - 1 - trace.answer_start, round(layers / 5)
    centres = [layers * number // sample for number in range(sample)]
    layer_sets = [frozenset(range(max(0, each - window // 2), min(layers, each + (window + 1) // 2))) for each in centres]
    found, alone = interp.information_flow(trace, token), cut_forwards(trace, layer_sets)
    ours = (found.change[found.blocks.index("image→last"), centres] / 100).log1p() + torch.tensor(found.probability).log()
    torch.testing.assert_close(ours, torch.tensor(alone), atol=1e-3, rtol=1e-3)
    functions = {"flow": lambda: interp.information_flow(trace, token), "sample": lambda: cut_forwards(trace, layer_sets)}
    seconds, cells = in_turns(functions, runs), found.change.numel()
    what = f"d={vlm.d_model}, {layers} layers, {trace.length} positions, {len(found.blocks)} paths x {layers} windows in {found.forwards} batches"
    estimated = f"{cells} single forwards, estimated from {sample}"
    report(what, {"flow": seconds["flow"], estimated: seconds["sample"] / sample * cells}, 0.35)
