"""Features as the compact dictionary that the feature view draws. Knows neither gradio nor HTML."""

from typing import Any

from ...saes.features import Feature, Features
from .lens import encode, scene

SCHEMA = "llava-microscope/feature-view/1"
LIMITS = (
    "A feature is one direction of a dictionary that was trained to rebuild the residual stream from few such directions; that it is active is "
    "no proof that the model uses it (steering is the test). Its name says on what it was found to fire, or what others made of its strongest "
    "examples; it may fire on other things too. What the SAE does not rebuild (one minus the explained variance) is in no feature at all, and "
    "another dictionary would cut the same states into other pieces."
)


def feature_payload(found: Features, *, run: str | None = None) -> dict[str, Any]:
    """The view's data. `run` is handed back by the page when it asks for more."""
    encoding = found.encoding
    trace, sae = encoding.trace, encoding.sae
    return {
        "schema": SCHEMA,
        "run": run,
        **scene(trace),
        "left_out": list(encoding.left_out),
        "sae": {"name": sae.name, "layer": sae.layer, "features": sae.d_sae, "notes": encoding.notes, "labels": sae.labels.about},
        "quality": [{"kind": kind, **quality.to_dict()} for kind, quality in found.quality.items()],
        **found_payload(found),
        "rank_by": found.rank_by,
        "limits": LIMITS,
    }


def found_payload(found: Features) -> dict[str, Any]:
    """The part of the view's data that another choice of tokens replaces."""
    return {
        "where": found.where,
        "looked_at": len(found.positions),
        "active": found.active,
        "features": [one_feature(feature) for feature in found.features],
    }


def one_feature(feature: Feature) -> dict[str, Any]:
    """One feature, with the rows on which it is active."""
    rows = feature.activations.nonzero().flatten()
    return {
        "feature": feature.feature,
        "label": feature.label,
        "source": feature.label_source,
        "score": feature.score,
        "mean": feature.mean,
        "max": feature.max,
        "frequency": feature.frequency,
        "density": feature.density,
        "dense": feature.dense,
        "top": list(feature.top_tokens),
        "bottom": list(feature.bottom_tokens),
        "link": feature.link,
        "rows": encode(rows.numpy().astype("<u2")),
        "values": encode(feature.activations[rows].numpy().astype("<f4")),
    }
