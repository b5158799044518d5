"""What the model answers without some features: they are set to 0 at every position, in the prompt and in the answer as it grows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..attention.changed import Changed, answer_within, figures, scores
from ..saes.features import encode
from ..saes.sae import Sae
from ..steering.batch import prompt_of
from ..steering.edit_hooks import EditHooks
from ..steering.edits import Edit, Scale, positions_of
from ..tracing.replay import Replay
from ..tracing.trace import Trace
from ..validation import sequence
from ..vision.images import OpenedImage
from .removal import Part


@dataclass(frozen=True, eq=False)
class FeatureAblation(Changed):
    """An answer without some features."""

    sae: Sae
    features: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        sae = {"name": self.sae.name, "layer": self.sae.layer}
        return {"schema": "llava-microscope/feature-ablation/1", "sae": sae, "features": list(self.features), **super().to_dict()}


def ablate_features(trace: Trace, sae: Sae, features: Sequence[int]) -> FeatureAblation:
    """Switch these features off together: the probability of every word of the answer behind the trace's own words, and a new answer.

    This is steering by `Edit(sae=sae, feature=f, target=0)` for each of them: the SAE's error stays, BOS and attention sinks are left as they
    are, and nothing takes the place of a feature that a TopK SAE had kept.

    Raises InterpError for no features, features that do not exist, an SAE of another width or layer, and one of the embed layer.
    """
    encoding = encode(trace, sae)
    chosen = tuple(dict.fromkeys(sae.check(feature) for feature in sequence("features", features, "features")))
    edits = tuple(Edit(sae=sae, feature=feature, target=0) for feature in chosen)
    vlm, tokens = trace.vlm, list(range(trace.answer_start, len(trace.tokens)))
    with vlm.lock, torch.no_grad():
        replay = Replay.of(trace)
        prompt = prompt_of(vlm, vlm.prepare(OpenedImage(trace.image, trace.notes), trace.prompt))
        scale = Scale.of(prompt, trace.residual(sae.layer)[: prompt.length])
        positions = [*positions_of(edits[0], prompt, scale)[0], *range(prompt.length, trace.length)]
        hidden = trace.residual(sae.layer).float()
        for feature in chosen:
            part = Part.of_feature(encoding, feature, positions)
            hidden = hidden.index_add(0, part.positions, -part.delta)
        entering = hidden[None].to(trace.states.dtype).to(vlm.model.device)
        states = replay.run(entering, layer=sae.layer + 1)[:, [token - 1 for token in tokens]]
        found = scores(trace, states, tokens)
        answer = answer_within(replay, EditHooks(vlm, prompt, [edits], {sae.layer: scale}))
    return FeatureAblation(
        **figures(trace, tokens, found, answer),
        sae=sae,
        features=chosen,
    )
