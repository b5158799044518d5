"""Writes results as files to gradio's cache, which gradio cleans up."""

import json
import secrets
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from ..attention.rows import Attention
from ..attribution.attribute import Attribution
from ..attribution.filters import filters
from ..concepts.concepts import Concepts
from ..concepts.here import ConceptsHere
from ..lens.lens import Lens
from ..saes.features import Features
from ..steering.results import SteeringResult
from ..web.payloads.attention import AttentionPayload
from ..web.payloads.attribution import AttributionPayload
from ..web.payloads.concepts import ConceptsPayload
from ..web.payloads.lens import lens_payload
from ..web.standalone import standalone_html


def write_html(lens: Lens, others: Sequence[Lens] = ()) -> str:
    """The standalone view of a lens, in which other lenses of the same run can be chosen."""
    return _write(f"{lens.method}-lens", lens.trace.model_name, "html", standalone_html(lens_payload(lens, others=others)))


def write_json(lens: Lens) -> str:
    """All data of a lens."""
    return _write(f"{lens.method}-lens", lens.trace.model_name, "json", _json(lens.to_dict()))


def write_features_json(found: Features) -> str:
    """All data of the features found."""
    return _write("sae-features", found.encoding.trace.model_name, "json", _json(found.to_dict()))


def write_features_csv(found: Features) -> str:
    """The table of features."""
    return _write("sae-features", found.encoding.trace.model_name, "csv", found.to_csv())


def write_steering_json(steered: SteeringResult) -> str:
    """All data of a steered answer."""
    return _write("steering", steered.model_name, "json", _json(steered.to_dict()))


def write_attention_html(payload: AttentionPayload) -> str:
    """The standalone view of an answer's attention."""
    return _write("attention", payload["model"], "html", standalone_html(payload))


def write_attention_json(found: Attention) -> str:
    """The attention of all tokens of an answer."""
    return _write("attention", found.trace.model_name, "json", _json(found.to_dict()))


def write_attribution_html(payload: AttributionPayload) -> str:
    """The standalone view of attributed words."""
    return _write("attribution", payload["model"], "html", standalone_html(payload))


def write_attribution_json(found: Attribution) -> str:
    """All data of one word's attribution."""
    return _write("attribution", found.trace.model_name, "json", _json(found.to_dict()))


def write_attribution_csv(found: Attribution) -> str:
    """The table of one word's features."""
    return _write("attribution", found.trace.model_name, "csv", found.to_csv())


def write_concepts_html(payload: ConceptsPayload) -> str:
    """The standalone view of concepts in a run."""
    return _write("concepts", payload["model"], "html", standalone_html(payload))


def write_concepts_json(here: ConceptsHere) -> str:
    """How much of each concept is in a run, and the concepts themselves."""
    made = {**here.to_dict(), "dictionary": here.concepts.to_dict(), "codes": here.codes.tolist()}
    return _write("concepts", here.trace.model_name, "json", _json(made))


def write_concepts_zip(concepts: Concepts) -> str:
    """A dictionary as a zip of the folder that `Concepts.load` reads."""
    file = _file("dictionary", concepts.model_name, "zip")
    folder = file.with_suffix("")
    concepts.save(folder)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in sorted(folder.iterdir()):
            packed.write(part, f"{folder.name}/{part.name}")
    shutil.rmtree(folder)
    return str(file)


def write_filters(found: Attribution) -> str:
    """The listed features that raised the word from the picture, as multimodal-sae's filters.json."""
    file = _file("filters", found.trace.model_name, "json")
    filters(found, file, k=len(found.features))
    return str(file)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write(what: str, model: str, kind: str, text: str) -> str:
    file = _file(what, model, kind)
    file.write_text(text, encoding="utf-8")
    return str(file)


def _file(what: str, model: str, kind: str) -> Path:
    """A path for a new file."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in model)[-60:]
    file = Path(get_upload_folder()) / secrets.token_hex(8) / f"{what}-{name}.{kind}"
    file.parent.mkdir(parents=True)
    return file
