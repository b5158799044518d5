"""Steering as its definition reads: one row, no cache, one forward for every token, one position after the other. And SAEs to steer with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from interp import Edit, Sae
from tests import tiny

D = 64


def random_sae(activation: str = "relu", normalisation: str = "none", *, layer: int = 1, seed: int = 0, **fields: Any) -> Sae:
    """48 features without a meaning, each active on about half of the tokens, and decoder rows of different lengths."""
    make = torch.Generator().manual_seed(seed)
    n = 48
    encoder = F.normalize(torch.randn(D, n, generator=make), dim=0)
    tensors = {
        "W_enc": encoder,
        "b_enc": 0.3 * torch.randn(n, generator=make),
        "W_dec": (encoder.T + 0.1 * torch.randn(n, D, generator=make)) * (0.5 + torch.rand(n, 1, generator=make)),
        "b_dec": 0.1 * torch.randn(D, generator=make),
    }
    extra = {
        "relu": {},
        "topk": {"k": 8},
        "jumprelu": {"threshold": 0.5 * torch.rand(n, generator=make)},
        "gated": {"gate": (0.3 * torch.randn(n, generator=make), 0.2 * torch.randn(n, generator=make))},
    }[activation]
    told = {"name": "random", "model_name": "", "layer": layer, "activation": activation, "normalisation": normalisation}
    return Sae(**tensors | extra | told | fields)


def activations(sae: Sae, state: torch.Tensor) -> torch.Tensor:
    """All features of one state [d], and by how much the SAE multiplies the state before it looks at it."""
    x, scale = state, torch.tensor(1.0)
    if sae.normalisation == "constant_norm_rescale":
        scale = D**0.5 / x.norm()
        x = x * scale
    if sae.normalisation == "layer_norm":
        scale = 1 / (x.std() + 1e-5)
        x = (x - x.mean()) * scale
    product = (x - sae.b_dec if sae.subtract_b_dec else x) @ sae.W_enc
    before = product + sae.b_enc
    z = {
        "relu": before.relu,
        "topk": lambda: torch.where(before >= before.topk(sae.k or 1).values[-1], before.relu(), 0.0),
        "jumprelu": lambda: torch.where(before > sae.threshold, before.relu(), 0.0),
        "gated": lambda: torch.where(product + sae.gate[0] > 0, (product * sae.gate[1].exp() + sae.b_enc).relu(), 0.0),
    }[sae.activation]()
    return z, scale


def change(edit: Edit, state: torch.Tensor, size: float) -> torch.Tensor:
    """What an edit adds to one state, where the usual norm is `size`."""
    if edit.sae is None:
        vector = edit.vector if isinstance(edit.vector, torch.Tensor) else edit.vector.vector
        unit = vector / vector.norm()
        return {"strength": lambda v: v * size * unit, "amount": lambda v: v * vector, "target": lambda v: (v - state @ unit) * unit}[
            edit.unit
        ](edit.value)
    written = edit.sae.W_dec[edit.feature]
    if edit.unit == "strength":
        return edit.value * size * written / written.norm()
    z, scale = activations(edit.sae, state)
    return (edit.value if edit.unit == "amount" else edit.value - z[edit.feature]) / scale * written


class Naive:
    """One picture and prompt under some edits: one forward of one row for whatever is asked."""

    @torch.inference_mode()
    def __init__(self, vlm: Any, image: Any, prompt: str, edits: Sequence[Edit]) -> None:
        self.vlm, self.edits = vlm, edits
        self.inputs = vlm.prepare(image, prompt)
        self.asked = self.inputs["input_ids"][0].tolist()
        self.sizes = {edit.at: _medians(vlm, self.asked, _states(vlm, self.inputs, edit.at)) for edit in edits}
        self.lengths: list[list[float]] = [[] for _ in edits]
        """Of each edit's changes, position by position, in the last forward."""
        self.shares: list[list[float]] = [[] for _ in edits]
        """The same as shares of the state's own length."""

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """At the last position of the prompt and at every token of `ids`, which follow it: float32 [1 + ids, vocabulary]."""
        handles = [
            layer.register_forward_hook(lambda _module, _args, output, at=at: self._edited(at, output))
            for at, layer in enumerate(self.vlm.blocks)
        ]
        try:
            tensors = tiny.extend(self.inputs, torch.tensor(ids, dtype=torch.long))
            return self.vlm.model(**tensors, use_cache=False).logits[0, len(self.asked) - 1 :].float()
        finally:
            for handle in handles:
                handle.remove()

    def answer(self, new: int, *, temperature: float = 0, seed: int = 0) -> tuple[list[int], torch.Tensor]:
        """The ids, and the logits that each was chosen by."""
        draws = torch.Generator().manual_seed(seed)
        ids: list[int] = []
        while len(ids) < new and not (ids and ids[-1] in self.vlm.end_ids):
            logits = self.logits(ids)
            chosen = logits[-1].double().cpu()
            if temperature:
                chosen = chosen / temperature - torch.empty_like(chosen).exponential_(generator=draws).log()
            ids.append(int(chosen.argmax()))
        return ids, logits

    def _edited(self, layer: int, output: torch.Tensor) -> torch.Tensor:
        out = output.float().clone()
        for row, edit in enumerate(self.edits):
            if edit.at == layer:
                self.lengths[row], self.shares[row] = [], []
                image_size, text_size, sinks = self.sizes[layer]
                for at in _places(self.vlm, edit.where, self.asked, output.shape[1], sinks):
                    of_image = at < len(self.asked) and self.asked[at] == self.vlm.image_token_id
                    state = output[0, at].float().cpu()
                    delta = change(edit, state, image_size if of_image else text_size)
                    out[0, at] = out[0, at] + delta.to(out.device)
                    self.lengths[row].append(float(delta.norm()))
                    self.shares[row].append(float(delta.norm() / state.norm()))
        return out.to(output.dtype)


def _states(vlm: Any, inputs: Any, layer: int) -> torch.Tensor:
    caught = []
    handle = vlm.blocks[layer].register_forward_hook(lambda _module, _args, output: caught.append(output[0].float()))
    vlm.model(**inputs)
    handle.remove()
    return caught[0]


def _medians(vlm: Any, asked: list[int], states: torch.Tensor) -> tuple[float, float, set[int]]:
    """Median norm of image and of text, and the positions that are BOS or a sink and count for neither."""
    norms = states.norm(dim=-1).tolist()
    image = [at for at, token in enumerate(asked) if token == vlm.image_token_id]
    text = [at for at, token in enumerate(asked) if token != vlm.image_token_id]

    def median(places: list[int]) -> float:
        return sorted(norms[at] for at in places)[(len(places) - 1) // 2]

    sinks = {0} | {at for places in (image, text) for at in places if norms[at] > 5 * median(places)}
    return median([at for at in image if at not in sinks]), median([at for at in text if at not in sinks]), sinks


def _places(vlm: Any, where: Any, asked: list[int], length: int, sinks: set[int]) -> list[int]:
    image = [at for at, token in enumerate(asked) if token == vlm.image_token_id]
    last = len(asked) - 1
    if isinstance(where, dict):
        columns = round(len(image) ** 0.5)
        if "box" in where:
            top, left, bottom, right = where["box"]
            return [image[row * columns + col] for row in range(top, bottom + 1) for col in range(left, right + 1)]
        return where["positions"] if "positions" in where else [image[row * columns + col] for row, col in where["patches"]]
    special = set(vlm.tokenizer.all_special_ids)
    return {
        "image": [at for at in image if at not in sinks],
        "prompt": [at for at, token in enumerate(asked) if at not in sinks and token not in special],
        "answer": [*range(last, length)],
        "all": [at for at in range(length) if at not in sinks or at == last],
    }[where]
