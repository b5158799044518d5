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
from .concepts.collect import collect
from .concepts.concepts import Concepts
from .concepts.learn import learn_concepts
from .concepts.learned import LearnedVector, learn_vector
from .concepts.scores import Purity, WordScores, bert_score, clip_score, purity
from .concepts.shift import ConceptShift, ShiftedConcept, concept_shift
from .concepts.states import ConceptStates
from .concepts.vectors import steering_vector
from .concepts.xl_vlms import read_xl_concepts, read_xl_features, read_xl_vectors, write_xl_vectors
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
from .steering.steer import steer, steer_each, steer_sweep, steered_trace
from .steering.vector_files import load_vector, save_vector
from .study.feature_index import FeatureIndex
from .study.indexed import IndexedFeature
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
    "ConceptShift",
    "ConceptStates",
    "Concepts",
    "ContextualIndex",
    "ContextualLens",
    "Contrast",
    "Edit",
    "Encoding",
    "Evidence",
    "Faithfulness",
    "Feature",
    "FeatureAblation",
    "FeatureIndex",
    "Features",
    "Flow",
    "IndexedFeature",
    "Inputs",
    "Integrated",
    "InterpError",
    "Knockout",
    "LearnedVector",
    "Lens",
    "PatchGrid",
    "PatchMap",
    "Preset",
    "Purity",
    "Region",
    "Sae",
    "ShiftedConcept",
    "Sinks",
    "SteeringResult",
    "Sweep",
    "Token",
    "Trace",
    "TraceCache",
    "Translators",
    "Vlm",
    "WordScores",
    "ablate",
    "ablate_features",
    "activation_map",
    "attention",
    "attribute",
    "bert_score",
    "build_index",
    "clip_score",
    "collect",
    "concept_shift",
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
    "learn_concepts",
    "learn_vector",
    "load",
    "load_index",
    "load_sae",
    "load_translators",
    "load_vector",
    "logit_lens",
    "overlap",
    "pointing_game",
    "purity",
    "read_filters",
    "read_scores",
    "read_xl_concepts",
    "read_xl_features",
    "read_xl_vectors",
    "relevancy",
    "rollout",
    "save_vector",
    "smallest_evidence",
    "steer",
    "steer_each",
    "steer_sweep",
    "steered_trace",
    "steering_vector",
    "token_lens",
    "top_features",
    "tuned_lens",
    "write_scores",
    "write_xl_vectors",
]
