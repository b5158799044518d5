"""Learned steering vectors: a small network that predicts, from the end of the prompt, how far and where to push for this very input.

After L2S (Parekh et al., NeurIPS 2025): Linear(d -> h), tanh, Linear(h -> d) without bias, trained to give the difference between the states after two
contrasting completions of the same picture and prompt. It trains in seconds on collected states.
"""

import json
import os
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InterpError
from ..steering.edits import Contrast
from ..tracing.trace import Trace
from ..validation import file_path, finite_number, instance, shown, text, whole_number
from .states import ConceptStates
from .xl_vlms import load_plain

SCHEMA = "llava-microscope/learned-vector/1"
SIGN = "its prediction, added to a state, leads from the base completion to the target completion"
_HELD_OUT = 5  # every fifth sample
_BATCH = 32
_TINY = 1e-12
_ROUNDING = 1e-5  # of a state's norm


@dataclass(frozen=True, eq=False)
class LearnedVector:
    """A direction for each input: decoder(tanh(encoder h + bias)) for the state h at the end of its prompt. See `interp.learn_vector`."""

    encoder: torch.Tensor
    """float32 [hidden, d]"""
    bias: torch.Tensor
    """float32 [hidden]"""
    decoder: torch.Tensor
    """float32 [d, hidden]"""
    reads: int
    """The layer of the prompt's last position that it reads."""
    layer: int
    """The layer that its directions are for."""
    model_name: str
    explained: float | None = None
    """On held-out samples, 1 - its squared error / that of the mean difference (the coarse vector): 0 is no better than one vector for all."""
    held_out: int = 0
    """How many samples that was measured on."""

    def predict(self, states: torch.Tensor) -> torch.Tensor:
        """The direction for each of some prompts, whose last positions have these states at layer `reads`: float32 [N, d]."""
        rows = instance("states", states, torch.Tensor, "a tensor [N, d]")
        sound = rows.layout == torch.strided and not rows.is_meta and rows.is_floating_point() and rows.ndim == 2
        if not sound or rows.shape[1] != self.encoder.shape[1] or not rows.isfinite().all():
            raise InterpError(
                f"states is {shown(rows)}; it must hold rows of {self.encoder.shape[1]} finite numbers, of layer {self.reads}."
            )
        return (rows.detach().cpu().float() @ self.encoder.T + self.bias).tanh() @ self.decoder.T

    def vector(self, trace: Trace) -> Contrast:
        """The direction for the picture and prompt of a trace, for `interp.Edit(vector=...)` on the same input."""
        instance("trace", trace, Trace, "a Trace, as Vlm.trace returns")
        if trace.states.shape[2] != self.encoder.shape[1] or max(self.reads, self.layer) >= trace.n_layers:
            raise InterpError(f"trace is of {trace.model_name!r}, and this vector was learned for {self.model_name!r}. Use its own model.")
        last = trace.residual(self.reads)[trace.answer_start - 1]
        return Contrast(self.predict(last[None])[0], self.layer, self.model_name, "one learned direction for this input", None, None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into one safetensors file, with layers, model and sign. Raises InterpError where nothing can be written."""
        file = file_path("path", path)
        about = {"schema": SCHEMA, "sign": SIGN, "reads": self.reads, "layer": self.layer, "model": self.model_name}
        about |= {"explained": self.explained, "held_out": self.held_out}
        tensors = {"encoder.weight": self.encoder, "encoder.bias": self.bias, "decoder.weight": self.decoder}
        try:
            save_file({name: part.contiguous() for name, part in tensors.items()}, file, metadata={"learned_vector": json.dumps(about)})
        except (OSError, SafetensorError) as error:
            raise InterpError(
                f"path is {shown(str(file))}, where nothing can be written ({error}). Name a file that you may write."
            ) from error

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, reads: int | None = None, layer: int | None = None, model_name: str = ""
    ) -> "LearnedVector":
        """Read what `save` wrote, or the weights of learn-to-steer (.pt), which state neither their layers nor their model: name them.

        Raises InterpError for a missing, damaged or foreign file, and for pickles that hold anything but tensors.
        """
        file = file_path("path", path)
        if file.suffix in {".pt", ".pth"}:
            if reads is None or layer is None:
                raise InterpError("A .pt file of learn-to-steer does not state its layers: pass reads= and layer=.")
            tensors = load_plain(file)
            about: Any = {"reads": reads, "layer": layer, "model": text("model_name", model_name), "explained": None, "held_out": 0}
        else:
            tensors, about = _ours(file)
        parts = [tensors.get(name) for name in ("encoder.weight", "encoder.bias", "decoder.weight")]
        encoder, bias, decoder = (
            part.float() if isinstance(part, torch.Tensor) and part.is_floating_point() else torch.empty(0) for part in parts
        )
        sound = encoder.ndim == 2 and decoder.shape == (encoder.shape[1], encoder.shape[0]) and bias.shape == encoder.shape[:1]
        if not sound or not all(part.isfinite().all() for part in (encoder, bias, decoder)):
            raise InterpError(
                f"The file at path {shown(str(file))} holds no encoder.weight [h, d], encoder.bias [h] and decoder.weight [d, h]."
            )
        explained = about.get("explained")
        return cls(
            encoder,
            bias,
            decoder,
            whole_number("reads", about.get("reads"), -1),
            whole_number("layer", about.get("layer"), 0),
            text("model", about.get("model")),
            None if explained is None else float(finite_number("explained", explained)),
            whole_number("held_out", about.get("held_out"), 0),
        )


def _ours(file: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as held:
            about = json.loads((held.metadata() or {}).get("learned_vector", "null"))
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - it is no dict
    except FileNotFoundError as error:
        raise InterpError(f"There is no learned vector at path {shown(str(file))}.") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InterpError(
            f"The file at path {shown(str(file))} is no learned vector, or is damaged: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(about, dict) or about.get("schema") != SCHEMA or about.get("sign") != SIGN:
        raise InterpError(f"The file at path {shown(str(file))} is no learned vector with the sign convention of this version.")
    return tensors, about


def learn_vector(
    context: ConceptStates,
    base: ConceptStates,
    target: ConceptStates,
    *,
    reads: int | None = None,
    layer: int | None = None,
    hidden: int = 100,
    epochs: int = 100,
    rate: float = 1e-3,
    seed: int = 0,
) -> LearnedVector:
    """Learn to predict, for each input, the difference `target` - `base` of its states from its state in `context`.

    All three are collected on the same samples: `context` with where="last" (at the layer `reads`), `base` and `target` with two contrasting answers
    forced (at the layer `layer`), such as where="end" on (picture, prompt, "yes") and (picture, prompt, "no"): states that *emit* these words are
    the same, since they have read neither. Samples are matched by their ids, and those that one of the three lacks are left out. Every fifth is held out, for `explained`; Adam with `rate` fits the others.

    Raises InterpError for fewer than ten samples in common, several states for a sample, and states of different models.
    """
    for name, states in (("context", context), ("base", base), ("target", target)):
        instance(name, states, ConceptStates, "states, as interp.collect(...) returns")
        if len(set(states.ids)) < len(states):
            raise InterpError(f"{name} has several states for one sample; collect one for each, such as where='last' or where='end'.")
        if states.model_name != context.model_name or states.width != context.width:
            raise InterpError(f"{name} is of {states.model_name!r}, context of {context.model_name!r}: use one model.")
        if states.normed:
            raise InterpError(f"The states in {name} lie behind the final norm. Collect those of a decoder layer.")
    hidden, epochs = whole_number("hidden", hidden, 1, 1 << 14), whole_number("epochs", epochs, 1, 10_000)
    rate, seed = float(finite_number("rate", rate, 0, 1)), whole_number("seed", seed, 0)
    from_layer, at = context.layer(reads), target.layer(base.layer(layer))
    places = [{name: row for row, name in enumerate(states.ids)} for states in (context, base, target)]
    common = [name for name in context.ids if all(name in place for place in places)]
    if len(common) < 10:
        raise InterpError(
            f"context, base and target have {len(common)} samples in common; at least ten are needed, a hundred or more to learn from."
        )
    x, low, high = (
        states.residual(number)[[place[name] for name in common]]
        for states, number, place in zip((context, base, target), (from_layer, at, at), places, strict=True)
    )
    y = high - low
    if not (x.isfinite().all() and y.isfinite().all()):
        raise InterpError("context, base or target has values that are not finite. Load the model in a wider dtype.")
    if not (y.norm(dim=1) > _ROUNDING * low.norm(dim=1)).any():
        raise InterpError(
            "base and target hold the same states. Collect them with where='end', behind two different answers, which they must have read."
        )
    held = torch.arange(len(x)) % _HELD_OUT == _HELD_OUT - 1
    encoder, bias, decoder = _fitted(x[~held], y[~held], hidden, epochs, rate, seed)
    found = LearnedVector(encoder, bias, decoder, from_layer, at, context.model_name)
    error, plain = (y[held] - found.predict(x[held])).square().sum(), (y[held] - y[~held].mean(0)).square().sum()
    explained = float(1 - error / plain) if plain > 0 else None
    return LearnedVector(encoder, bias, decoder, from_layer, at, context.model_name, explained, int(held.sum()))


def _fitted(
    x: torch.Tensor, y: torch.Tensor, hidden: int, epochs: int, rate: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights in the states' own units: [hidden, d], [hidden], [d, hidden]. Inputs are standardised and outputs scaled while it learns."""
    make = torch.Generator().manual_seed(seed)
    width = x.shape[1]
    middle, spread = x.mean(0), (x - x.mean(0)).square().mean().sqrt().clamp(min=_TINY)
    mean = y.mean(0)
    scale = (y - mean).square().mean().sqrt().clamp(min=_TINY)
    inputs, wanted = (x - middle) / spread, (y - mean) / scale
    encoder = (torch.randn(hidden - 1, width, generator=make) / width**0.5).requires_grad_()
    bias = torch.zeros(hidden - 1).requires_grad_()
    decoder = torch.zeros(width, hidden - 1).requires_grad_()
    optimiser = torch.optim.Adam([encoder, bias, decoder], lr=rate)
    with torch.enable_grad():
        for _ in range(epochs if hidden > 1 else 0):
            for rows in torch.randperm(len(x), generator=make).split(_BATCH):
                optimiser.zero_grad()
                loss = ((inputs[rows] @ encoder.T + bias).tanh() @ decoder.T - wanted[rows]).square().mean()
                loss.backward()
                optimiser.step()
    # The first unit reads nothing and gives the mean difference, from which the others start.
    weight = torch.cat([torch.zeros(1, width), encoder.detach() / spread])
    biases = torch.cat([torch.ones(1), bias.detach()]) - weight @ middle
    return weight, biases, torch.cat([mean[:, None] / torch.ones(1).tanh(), decoder.detach() * scale], dim=1)
