"""Coarse steering vectors: the difference between the means of two sets of collected states."""

import torch

from ..errors import InterpError
from ..steering.contrast import contrast_of
from ..steering.edits import Contrast
from ..validation import instance
from .states import ConceptStates


def steering_vector(base: ConceptStates, target: ConceptStates, *, layer: int | None = None) -> Contrast:
    """Mean of the `target` states minus mean of the `base` states, for `interp.Edit(vector=...)`: float32 [d].

    Added to a state (`amount=1`), it takes the mean of the base to the mean of the target. `layer`: which, if the states have several. Its `auroc`
    says whether the direction means anything: held-out states are told apart along it (five folds).

    Raises InterpError for fewer than two states on either side, for states of different models or widths, and for states behind the final norm.
    """
    for name, states in (("base", base), ("target", target)):
        instance(name, states, ConceptStates, "states, as interp.collect(...) returns")
        if len(states) < 2:
            raise InterpError(
                f"There are {len(states)} states in {name}; a direction needs at least two, ten or more to be worth steering with."
            )
        if states.normed:
            raise InterpError(f"The states in {name} lie behind the final norm, where no edit acts. Collect those of a decoder layer.")
    at = target.layer(base.layer(layer))
    if (base.model_name, base.width) != (target.model_name, target.width):
        raise InterpError(
            f"base is of {base.model_name!r} (width {base.width}), target of {target.model_name!r} (width {target.width}): use one model."
        )
    where = target.where if target.where == base.where else f"{target.where}, against {base.where}"
    return contrast_of(_finite(target, at), _finite(base, at), at, target.model_name, where)


def _finite(states: ConceptStates, layer: int) -> torch.Tensor:
    rows = states.residual(layer)
    if not rows.isfinite().all():
        raise InterpError("The states have values that are not finite. Load the model in a wider dtype, and collect them again.")
    return rows
