"""Trained lenses: an affine map for each layer moves its states to where the model's own norm and head can read them.

The tuned lens (Belrose et al. 2023, arXiv 2303.08112) moves a state towards the final one, so that the head says which token comes next. The
token lens moves it so that the head says which token stands at the position. `train.py` fits both on text, `translator_files.py` keeps them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ..errors import InterpError
from ..models.identity import Fingerprint, mismatch
from ..models.vlm import Vlm
from ..tracing.trace import EMBED, Trace
from ..validation import instance
from .lens import Lens
from .logit_lens import HeadReader, read_distributions
from .reading import asked

Kind = Literal["tuned", "token"]
ANOTHER_MODEL = "It was trained on a model with other weights, so its readings may be off."


@dataclass(frozen=True, eq=False)
class Affine:
    """h -> h + up (down h) + bias, or h -> h + up h + bias where `down` is None. The identity is left out, so that weight decay is towards it."""

    up: torch.Tensor
    """[d, rank], or [d, d] without `down`."""
    bias: torch.Tensor
    """[d]."""
    down: torch.Tensor | None = None
    """[rank, d]."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """The moved states [N, d]: computed in float32, returned in their own dtype."""
        wide = states.float()
        up, bias, down = (None if part is None else part.to(wide) for part in (self.up, self.bias, self.down))
        assert up is not None
        assert bias is not None
        inner = wide if down is None else wide @ down.T
        return torch.addmm(wide + bias, inner, up.T).to(states.dtype)

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """Its tensors by name."""
        return {"up": self.up, "bias": self.bias} | ({} if self.down is None else {"down": self.down})

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(part.nbytes for part in self.parts.values())


@dataclass(frozen=True, eq=False)
class Translators:
    """One trained lens: the maps of its layers and the model that they were trained for."""

    kind: Kind
    maps: Mapping[int, Affine]
    """By layer, `EMBED` (-1) for the input of block 0. A tuned lens has none for the last layer, which it leaves as it is."""
    model_name: str
    width: int
    """Width of the model's residual stream."""
    n_layers: int
    """Number of its decoder blocks."""
    trained_on: str
    """One sentence."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Measured on text that it was not trained on; see `train.py`."""
    weights: Fingerprint | None = field(default=None, repr=False)
    """Of the model; None for checkpoints that do not state it."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that it can read."""
        identity = {self.n_layers - 1} if self.kind == "tuned" else set()
        return tuple(sorted(identity.union(self.maps)))

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(each.nbytes for each in self.maps.values())

    def check(self, vlm: Vlm) -> str:
        """What to know before trusting its readings of this model, "" for nothing. Raises InterpError for another width or depth."""
        instance("vlm", vlm, Vlm, "a Vlm, as interp.load returns")
        if (self.width, self.n_layers) != (vlm.d_model, vlm.n_layers):
            raise InterpError(
                f"This {self.kind} lens was trained for {self.model_name} ({self.n_layers} layers of width {self.width}); {vlm.name} has "
                f"{vlm.n_layers} of width {vlm.d_model}. Load one that was trained for it, or train one: python -m interp.lens.train."
            )
        return ANOTHER_MODEL if self.weights is not None and mismatch(self.weights, vlm) else ""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write lens.safetensors and lens.json into a folder, which is made. Raises InterpError where nothing can be written."""
        from .translator_files import save  # noqa: PLC0415 - the format of the files builds on this class

        save(self, folder)


@dataclass(frozen=True, eq=False)
class TranslatedReader(HeadReader):
    """Logits of the model's own norm and head on moved states."""

    translators: Translators

    def moved(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        """See `HeadReader`."""
        move = self.translators.maps.get(layer)
        return states if move is None else move(states)


def tuned_lens(
    trace: Trace, translators: Translators, top_k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None
) -> Lens:
    """The logit lens after each layer's translator: an estimate of the model's final prediction (Belrose et al. 2023, arXiv 2303.08112).

    Layer l reads head(norm(h + A_l h + b_l)); the last layer has no translator and equals the model's own logits.

    Raises InterpError for translators of the other kind or of another model's shape, and for layers that they do not have; else as `logit_lens`.
    """
    return _translated(trace, translators, "tuned", top_k, layers, positions)


def token_lens(
    trace: Trace, translators: Translators, top_k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None
) -> Lens:
    """The logit lens after maps that were trained, on text alone, to say which token stands at a position.

    On image tokens it says which word the state would stand for in text. Layer l reads head(norm(h + A_l h + b_l)).

    Raises InterpError as `tuned_lens` does.
    """
    return _translated(trace, translators, "token", top_k, layers, positions)


def _translated(
    trace: Trace, translators: Translators, kind: Kind, top_k: int, layers: Sequence[int] | None, positions: Sequence[int] | None
) -> Lens:
    instance("translators", translators, Translators, "a trained lens, as interp.load_translators returns")
    if translators.kind != kind:
        raise InterpError(f"translators are a {translators.kind} lens; read with interp.{translators.kind}_lens, or load a {kind} lens.")
    vlm = instance("trace", trace, Trace, "a Trace, as Vlm.trace returns").vlm
    note = translators.check(vlm)
    want = asked(trace, top_k, translators.layers if layers is None else layers, positions)
    if absent := [layer for layer in want.layers if layer not in translators.layers]:
        held = ", ".join("embed" if layer == EMBED else str(layer) for layer in translators.layers)
        raise InterpError(f"These translators do not have layers {absent[0]}; they have {held}.")
    return read_distributions(want, kind, TranslatedReader(translators), note)
