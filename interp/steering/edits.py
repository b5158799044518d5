"""Edits: a push along one direction, at some positions after one block, and its arithmetic.

An edit adds a multiple of one direction and never replaces the state with a reconstruction, so the SAE's error stays in the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from ..errors import InterpError
from ..saes.sae import Sae
from ..tracing.select import plain_where, select, sinks
from ..tracing.trace import EMBED, Prompt
from ..validation import as_whole, finite_number, instance, shown

Unit = Literal["strength", "amount", "target"]
Kept = tuple[torch.Tensor, torch.Tensor]
"""What `Sae.kept` returns."""
UNITS: tuple[Unit, ...] = ("strength", "amount", "target")


@dataclass(frozen=True, eq=False)
class Contrast:
    """A direction from one set of states to another.

    Between two sets of pictures with prompts, as `interp.contrast_vector` finds it, between collected states (`interp.steering_vector`), between
    two concepts (`Concepts.vector`), or for one input (`LearnedVector.vector`).
    Added to a state, it leads away from the second set (negatives, base, concept i) and towards the first (positives, target, concept j).
    """

    vector: torch.Tensor
    """Mean of the positives minus mean of the negatives, or the difference of two concepts: float32 [d]."""
    layer: int
    model_name: str
    where: str
    """A description of the tokens averaged in each picture, or of the concepts."""
    auroc: float | None
    """How well it separates held-out positives from negatives, cross-validated: 0.5 is chance, 1 is perfect. None if it was not measured."""
    examples: tuple[int, int] | None
    """Number of positives and negatives, if it was made of such."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Edit:
    """One SAE feature (`sae` and `feature`), or any direction (`vector`, with its `layer`), turned up or down.

    Exactly one of:

    - `strength`: adds this fraction of the layer's median residual norm in this prompt (separate for image and text tokens, without BOS and
      sinks; answer tokens count as text) along the unit direction.
    - `amount`: adds this much activation, that is `amount * W_dec[feature]`; for a vector, `amount * vector`.
    - `target`: sets the activation, h + (target - z) * W_dec[feature]; 0 ablates. z is the activation as in `sae.encode`, so a
      feature that a TopK SAE does not keep counts as 0; this reads the whole encoder at every step where the feature is above 0. For a vector,
      sets the projection onto its unit direction.

    `where`: "all", "image", "prompt", "answer", or selected tokens of the prompt as in `tracing.select`: {"patches": [[row, column], ...]},
    {"box": [top, left, bottom, right]}, {"positions": [i, ...]}. "answer" acts on the last prompt position, which predicts the first answer token,
    and on every token of the answer; "all" acts on it and on everything else but BOS and attention sinks; the others act on the prompt only.

    Raises InterpError unless exactly one of the three is given, and for values that are not finite, an invalid vector and the embed layer.
    """

    sae: Sae | None = field(default=None, repr=False)
    feature: int | None = None
    vector: torch.Tensor | Contrast | None = field(default=None, repr=False)
    layer: int | None = None
    """The layer of a `vector`; an SAE and a `Contrast` have their own."""
    strength: float | None = None
    amount: float | None = None
    target: float | None = None
    where: Any = "all"

    def __post_init__(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(given) != 1:
            raise InterpError(
                f"An edit takes exactly one of strength, amount and target; {' and '.join(given) if given else 'none'} was given. "
                "strength -0.3 pushes down by 30 % of the usual residual norm, target 0 switches a feature off."
            )
        self._set(self.unit, finite_number(self.unit, self.value))
        self._set("where", plain_where(self.where))
        if self.sae is not None:
            instance("sae", self.sae, Sae, "an SAE, as interp.load_sae(...) returns")
            if self.feature is None or self.vector is not None or self.layer is not None:
                raise InterpError("An edit of an SAE takes `sae` and `feature`; leave out vector and layer: the SAE has its own layer.")
            self._set("feature", self.sae.check(self.feature))
        elif isinstance(self.vector, Contrast):
            if self.feature is not None or (self.layer is not None and as_whole(self.layer) != self.vector.layer):
                raise InterpError(f"A contrast vector belongs to its own layer, {self.vector.layer}; leave out layer and feature.")
        elif self.vector is None or self.layer is None or self.feature is not None:
            raise InterpError("An edit needs a direction: `sae` and `feature`, or `vector` and `layer`.")
        layer = as_whole(self.at)
        if layer is None:
            raise InterpError(f"layer is {shown(self.at)}; it must be a whole number.")
        if layer == EMBED:
            raise InterpError(f"The embed layer ({EMBED}) can be inspected but not edited. Choose layer 0 or a later one.")
        if self.layer is not None:
            self._set("layer", layer)
        _checked_direction(self.name, self.direction, self.vector.where if isinstance(self.vector, Contrast) else "")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    @property
    def unit(self) -> Unit:
        """Which of strength, amount and target is set."""
        return next(unit for unit in UNITS if getattr(self, unit) is not None)

    @property
    def value(self) -> float:
        """The value of its unit."""
        return getattr(self, self.unit)

    def with_value(self, value: float) -> "Edit":
        """The same edit with another value of its unit."""
        changed: dict[str, Any] = {self.unit: finite_number(self.unit, value)}
        return replace(self, **changed)

    @property
    def at(self) -> int:
        """The layer it acts after."""
        if self.sae is not None:
            return self.sae.layer
        return self.vector.layer if isinstance(self.vector, Contrast) else self.layer  # type: ignore[return-value]

    @property
    def direction(self) -> torch.Tensor:
        """The direction it pushes along, not normalised: [d]."""
        if self.sae is not None:
            return self.sae.W_dec[self.feature]
        return self.vector.vector if isinstance(self.vector, Contrast) else self.vector  # type: ignore[return-value]

    @property
    def model_name(self) -> str:
        """The model that its direction was made for, "" if unknown."""
        made = self.sae if self.sae is not None else self.vector
        return made.model_name if isinstance(made, Sae | Contrast) else ""

    @property
    def name(self) -> str:
        """A description of what is edited."""
        return f"feature {self.feature} of {self.sae.name}" if self.sae is not None else f"a vector at layer {self.at}"


def _checked_direction(name: str, direction: object, contrasted: str) -> None:
    """`contrasted`: which tokens a contrast vector was averaged over."""
    vector = instance("vector", direction, torch.Tensor, "a tensor, or what interp.contrast_vector(...) returns")
    there = vector.layout == torch.strided and not vector.is_meta and vector.is_floating_point() and vector.ndim == 1
    row = vector.float() if there else torch.zeros(1)  # as it is used
    if contrasted and not row.any():
        raise InterpError(
            f"{name} has no direction to push along: positives and negatives have the same mean at their {contrasted}. If the sets differ only "
            f"in the prompt, which most models read after the picture, average where='answer'."
        )
    if not row.isfinite().all() or not row.any():
        raise InterpError(
            f"{name} has no direction to push along: it must be one row of finite numbers that are not all zero; "
            f"it is {vector.dtype} of shape {list(vector.shape)}."
        )


@dataclass(frozen=True)
class Scale:
    """Typical residual norms after one layer for one prompt, which a strength is a fraction of, and the positions left out."""

    norms: torch.Tensor
    """float32 [P]: the median norm of each position's kind (image or text), sinks excluded."""
    text: float
    """The median norm of text, used for answer tokens."""
    left_out: tuple[int, ...]

    @classmethod
    def of(cls, prompt: Prompt, states: torch.Tensor) -> "Scale":
        """From the states [P, d] of an unedited run."""
        states = states.float()
        left_out = sinks(prompt, states)
        each = states.norm(dim=-1).cpu()
        norms = torch.zeros(prompt.length)
        medians = {}
        for kinds in (("image", "separator"), ("prompt", "special")):
            every = prompt.positions(*kinds)
            medians[kinds[0]] = float(each[[i for i in every if i not in left_out] or every].median()) if every else 0.0
            norms[every] = medians[kinds[0]]
        return cls(norms, medians["prompt"], left_out)


def positions_of(edit: Edit, prompt: Prompt, scale: Scale) -> tuple[list[int], bool]:
    """Where in the prompt an edit acts, and whether it acts on the answer too."""
    last = prompt.length - 1
    if isinstance(edit.where, str) and edit.where == "answer":
        return [last], True
    _, found = select(prompt, edit.where, scale.left_out)
    if isinstance(edit.where, str) and edit.where == "all":
        return sorted({*found, last}), True
    if not found:
        raise InterpError(
            f"The edit of {edit.name} would never act: there are no {edit.where} tokens other than BOS and attention sinks. Choose another place."
        )
    return found, False


class Push:
    """One direction at one layer, on the model's device, ready to be added to states."""

    def __init__(self, edit: Edit, device: torch.device) -> None:
        self._unit = edit.unit
        self._only = edit.sae.only(edit.feature, device) if edit.sae is not None and edit.feature is not None else None
        self.topk = edit.sae if edit.unit == "target" and edit.sae is not None and edit.sae.k is not None else None
        """The TopK SAE whose selection decides the activation that a `target` replaces; None for all other edits."""
        self._feature = -1 if edit.feature is None else edit.feature
        direction = edit.direction.to(device, torch.float64)  # squares of float32 can overflow or vanish
        if edit.unit == "strength" or (self._only is None and edit.unit == "target"):
            direction = direction / direction.norm()
        self._direction = direction.float()

    def above(self, states: torch.Tensor) -> torch.Tensor:
        """Where the feature of an SAE is above 0 before any TopK selection: bool [N] for `states` [N, d]."""
        assert self._only is not None
        return self._only.read(states)[0].squeeze(1) > 0

    def delta(self, states: torch.Tensor, values: torch.Tensor, norms: torch.Tensor, kept: Kept | None = None) -> torch.Tensor:
        """What to add to `states` (float32 [rows, n, d]) for `values` [rows], given the typical residual norms `norms` [n].

        `kept`: the result of `kept_by` for these states, if already known.
        """
        by = values[:, None, None]
        if self._unit == "strength":
            return by * norms[:, None] * self._direction
        if self._only is None:
            if self._unit == "amount":
                return (by * self._direction).expand_as(states)
            return (by - (states @ self._direction)[..., None]) * self._direction
        if self._unit == "amount" and self._only.normalisation == "none":
            return (by * self._direction).expand_as(states)
        flat = states.flatten(0, 1)
        activation, scale = self._only.read(flat)
        if self.topk is not None:
            features, activations = kept_by(self.topk, [([self], flat)])[0] if kept is None else kept
            activation = activations.masked_fill(features.ne(self._feature), 0).sum(1)
        activation, scale = (x.view(*states.shape[:2], 1) for x in (activation, scale))
        return (by if self._unit == "amount" else by - activation) / scale * self._direction


def kept_by(sae: Sae, parts: Sequence[tuple[Sequence[Push], torch.Tensor]]) -> list[Kept]:
    """What a TopK SAE keeps of the states [N, d] of each part, as far as the pushes beside them need it.

    Rows where none of their features is above 0 need no selection and stay empty (feature -1); the encoder is read once, for all the others.
    """
    assert sae.k is not None
    rows = [torch.stack([push.above(states) for push in pushes]).any(0).nonzero().flatten() for pushes, states in parts]
    out = [
        (torch.full((len(states), min(sae.k, sae.d_sae)), -1, device=states.device), states.new_zeros(len(states), min(sae.k, sae.d_sae)))
        for _, states in parts
    ]
    if counts := [len(at) for at in rows if len(at)]:
        looked_at = torch.cat([states[at] for at, (_, states) in zip(rows, parts, strict=True)])
        found = zip(*(each.split(counts) for each in sae.kept(looked_at)), strict=True)
        for at, (features, activations) in zip(rows, out, strict=True):
            if len(at):
                features[at], activations[at] = next(found)
    return out
