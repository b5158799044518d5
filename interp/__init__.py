"""interp: look inside a vision-language model.

    vlm = interp.load("emoji-llava")
    trace = vlm.trace(image, "Describe the image.")
    lens = interp.logit_lens(trace)
    sae = interp.load_sae("emoji-llava")
    found = interp.top_features(trace, sae)
    result = interp.steer(vlm, image, "Describe the image.", [interp.Edit(sae=sae, feature=found.features[0].feature, target=0)])

A picture and a prompt become a `Trace` (one generation, every layer kept); a `Lens` reads its words, `Features` the directions that a sparse
autoencoder finds in it, and `steer` answers with such directions turned up or down.
"""

from .attention.ablate import Ablation, ablate
from .attention.activation_map import activation_map
from .attention.evidence import Evidence, smallest_evidence
from .attention.faithfulness import Faithfulness, faithfulness, overlap, pointing_game
from .attention.flow import Flow, information_flow
from .attention.knockout import Knockout, knockout, knockout_map
from .attention.maps import PatchMap
from .attention.relevancy import relevancy
from .attention.rollout import rollout
from .attention.rows import Attention, attention
from .attention.sinks import Sinks, find_sinks
from .attribution.ablate import FeatureAblation, ablate_features
from .attribution.attribute import AttributedFeature, Attribution, attribute
from .attribution.filters import filters, read_filters
from .attribution.integrated import Integrated, integrated
from .attribution.score_file import read_scores, write_scores
from .errors import InterpError
from .lens.build_index import build_index
from .lens.context_index import ContextualIndex, load_index
from .lens.contextual import ContextualLens, contextual_lens
from .lens.embedding_lens import embedding_lens
from .lens.lens import Lens
from .lens.logit_lens import logit_lens
from .lens.translator_files import load_translators
from .lens.translators import Translators, token_lens, tuned_lens
from .models.loading import load
from .models.vlm import Inputs, Vlm
from .presets import PRESETS, Preset
from .saes.features import Encoding, Feature, Features, encode, top_features
from .saes.loading import load_sae
from .saes.sae import Sae
from .steering.contrast import contrast_vector
from .steering.edits import Contrast, Edit
from .steering.results import SteeringResult, Sweep
from .steering.steer import steer, steer_sweep, steered_trace
from .tracing.cache import TraceCache
from .tracing.trace import EMBED, Token, Trace
from .vision.grids import PatchGrid, Region

__all__ = [
    "EMBED",
    "PRESETS",
    "Ablation",
    "Attention",
    "AttributedFeature",
    "Attribution",
    "ContextualIndex",
    "ContextualLens",
    "Contrast",
    "Edit",
    "Encoding",
    "Evidence",
    "Faithfulness",
    "Feature",
    "FeatureAblation",
    "Features",
    "Flow",
    "Inputs",
    "Integrated",
    "InterpError",
    "Knockout",
    "Lens",
    "PatchGrid",
    "PatchMap",
    "Preset",
    "Region",
    "Sae",
    "Sinks",
    "SteeringResult",
    "Sweep",
    "Token",
    "Trace",
    "TraceCache",
    "Translators",
    "Vlm",
    "ablate",
    "ablate_features",
    "activation_map",
    "attention",
    "attribute",
    "build_index",
    "contextual_lens",
    "contrast_vector",
    "embedding_lens",
    "encode",
    "faithfulness",
    "filters",
    "find_sinks",
    "information_flow",
    "integrated",
    "knockout",
    "knockout_map",
    "load",
    "load_index",
    "load_sae",
    "load_translators",
    "logit_lens",
    "overlap",
    "pointing_game",
    "read_filters",
    "read_scores",
    "relevancy",
    "rollout",
    "smallest_evidence",
    "steer",
    "steer_sweep",
    "steered_trace",
    "token_lens",
    "top_features",
    "tuned_lens",
    "write_scores",
]
