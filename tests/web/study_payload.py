"""Study payloads made up for tests: a feature with everything, and one with markup for its texts.

Written from the contract alone, so that the tests do not lean on the code that makes real payloads.
"""

from __future__ import annotations

from typing import Any

from tests.web.lens_payload import b64, data_url, scene, struct_pack

STUDY = {
    "name": "made-up",
    "model": "emoji-llava",
    "sae": "emoji-llava-sae",
    "layer": 3,
    "features": 2048,
    "alive": 1700,
    "samples": 600,
    "pool": "mean",
}


def picture(boxes: list[list[float]], values: list[float], **fields: Any) -> dict[str, Any]:
    made = {
        "picture": {"src": data_url(scene(96, 96)), "width": 96, "height": 96},
        "id": "0001.png",
        "score": 1.25,
        "boxes": b64(struct_pack("f", [side for box in boxes for side in box])),
        "values": b64(struct_pack("f", values)),
    }
    return made | fields


def feature(number: int = 460, **fields: Any) -> dict[str, Any]:
    made = {
        "feature": number,
        "label": "dog",
        "source": "explained by a model and refined",
        "explanation": "The heads of dogs.",
        "category": "object",
        "scores": [
            {"name": "IoU", "value": 0.8, "controls": [{"name": "random masks", "value": 0.1}, {"name": "random features", "value": None}]},
            {"name": "CLIP score", "value": 27.25, "controls": []},
        ],
        "undefined": ["consistency: not judged"],
        "pictures": 30,
        "tokens": 400,
        "peak": 12.5,
        "histogram": {"edges": [1.0, 2.0, 4.0, 8.0], "on_pictures": [4, 0, 2], "on_text": [0, 1, 2]},
        "neighbours": [{"feature": 7, "cosine": 0.91, "label": "puppy"}, {"feature": 8, "cosine": -0.2, "label": ""}],
        "promotes": ["dog", "puppy"],
        "suppresses": ["cat"],
        "top": [picture([[0, 0, 48, 48], [48, 0, 96, 48]], [12.5, 3.0]), picture([[48, 48, 96, 96]], [6.0], id="0002.png", score=0.5)],
    }
    return made | fields


def part(number: int = 460, **fields: Any) -> dict[str, Any]:
    """What the server answers when another feature is asked for."""
    return {"study": dict(STUDY), "feature": feature(number, **fields)}


def payload(**fields: Any) -> dict[str, Any]:
    """`fields` replace fields at the end."""
    made = {"schema": "llava-microscope/study-view/1", "studies": ["made-up"], **part(), "limits": "Top pictures are those of the study."}
    return made | fields


def found(*features: tuple[int, str]) -> dict[str, Any]:
    return {
        "features": [{"feature": number, "label": label} for number, label in features],
        "note": f"{len(features)} of 1,342 labels match.",
    }


def hand_over(**fields: Any) -> dict[str, Any]:
    return {"sae": "emoji-llava-sae", "layer": 3, "feature": 460, "label": "dog", "max": 12.5} | fields
