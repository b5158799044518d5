"""Links that store the state of a page: settings and edits in the address, an uploaded picture as the digest of a copy kept on the server.

Links are untrusted: they are parsed as plain JSON and checked. If one cannot be used, the page says so and opens as usual.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from gradio.utils import get_upload_folder

from ..errors import InterpError
from ..service.requests import SETTINGS, AttributionRequest, ConceptsLook, LensLook, MapRequest, Request, SteerRequest, checked
from ..validation import mapping
from ..vision.images import open_image

PARAMETER = "state"
_KEPT = 200  # pictures; the oldest go first
_LONGEST = 20_000  # bytes of unpacked state
_DIGEST = re.compile(r"[0-9a-f]{64}")
Part = TypeVar("Part", bound=Request)
_EXAMPLE = re.compile(r"[a-z0-9-]{1,60}")


def link(base: str, image: str | None, state: Mapping[str, Any], examples: Path) -> str:
    """An address that opens this state. `image` is the path of the picture shown: an example is stored by name, any other as a copy."""
    picture = None if image is None else _kept(Path(image), examples)
    text = json.dumps({**state, "picture": picture}, separators=(",", ":"), allow_nan=False)
    packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).rstrip(b"=").decode()
    return f"{base.rstrip('/')}/?{urlencode({PARAMETER: packed})}"


def unpack(packed: str) -> dict[str, Any]:
    """The state in a link's parameter. Raises InterpError if `link` did not make it."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), _LONGEST)
        state = json.loads(text) if unpacker.eof else None
    except (binascii.Error, zlib.error, ValueError) as error:
        raise InterpError("This link is damaged: its state cannot be read. The page opens as usual.") from error
    if not isinstance(state, dict):
        raise InterpError("This link is damaged: it has no state. The page opens as usual.")
    return state


def settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a link, by field name of `SteerRequest`. Raises InterpError for invalid values."""
    values = {name: state.get(name) for name in SETTINGS}
    try:
        return checked(SteerRequest, values)
    except InterpError as error:
        raise InterpError(f"This link is damaged: {error} The page opens as usual.") from error


def word_state(prompt: str, model: str, max_new_tokens: int, word: Mapping[str, Any]) -> dict[str, Any]:
    """The state of the tab that explains a word: a run without edits. `word`: {"token", "method"}."""
    return {**_without_edits(prompt, model, max_new_tokens), "word": dict(word)}


def lens_state(prompt: str, model: str, max_new_tokens: int, look: LensLook) -> dict[str, Any]:
    """The state of the tab of lenses: a run without edits, with the lens, the layer and the locked position that are looked at."""
    return {**_without_edits(prompt, model, max_new_tokens), "lens": {"method": look.method, "layer": look.layer, "row": look.row}}


def attribution_state(prompt: str, model: str, max_new_tokens: int, carried: Mapping[str, Any]) -> dict[str, Any]:
    """The state of the tab that attributes a word: a run without edits. `carried`: the fields of an `AttributionRequest`."""
    return {**_without_edits(prompt, model, max_new_tokens), "carried": dict(carried)}


def concepts_state(prompt: str, model: str, max_new_tokens: int, look: ConceptsLook) -> dict[str, Any]:
    """The state of the tab of concepts: a run without edits, with the dictionary, the concept and the step that are looked at."""
    return {**_without_edits(prompt, model, max_new_tokens), "concepts": dataclasses.asdict(look)}


def _without_edits(prompt: str, model: str, max_new_tokens: int) -> dict[str, Any]:
    without = {"temperature": 0, "seed": 0, "words": "", "sweep": False, "edits": [], "swept": 0}
    return {"prompt": prompt, "model": model, "max_new_tokens": max_new_tokens, **without}


def word(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The word that a link explains, {"token", "method"}; None for another link. Raises InterpError for invalid values."""
    asked = _part(state, "word", MapRequest)
    return None if asked is None else {"token": asked.token, "method": asked.method}


def lens(state: Mapping[str, Any]) -> LensLook | None:
    """What a link looks at in the tab of lenses; None for another link. Raises InterpError for invalid values."""
    return _part(state, "lens", LensLook)


def carried(state: Mapping[str, Any]) -> AttributionRequest | None:
    """The word that a link attributes; None for another link. Raises InterpError for invalid values."""
    return _part(state, "carried", AttributionRequest)


def concepts(state: Mapping[str, Any]) -> ConceptsLook | None:
    """What a link looks at in the tab of concepts; None for another link. Raises InterpError for invalid values."""
    return _part(state, "concepts", ConceptsLook)


def _part(state: Mapping[str, Any], name: str, kind: type[Part]) -> Part | None:
    found = state.get(name)
    if found is None:
        return None
    try:
        return kind.of(mapping(f"its {name}", found))
    except InterpError as error:
        raise InterpError(f"This link is damaged: {error} The page opens as usual.") from error


def picture(name: Any, examples: Path) -> str:
    """The path of the picture that a link names. Raises InterpError if it is not (or no longer) there."""
    kind, _, key = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind == "example" and _EXAMPLE.fullmatch(key):
        file = examples / f"{key}.webp"
    elif kind == "kept" and _DIGEST.fullmatch(key):
        file = _folder() / f"{key}.webp"
    else:
        raise InterpError("This link names no picture; an example is shown instead.")
    if not file.is_file():
        raise InterpError("The server no longer keeps this link's picture; an example is shown instead. Upload the picture again.")
    return str(file)


def _kept(image: Path, examples: Path) -> str:
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    for example in examples.glob("*.webp"):
        if hashlib.sha256(example.read_bytes()).hexdigest() == digest:
            return f"example:{example.stem}"
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest}.webp"
    if file.is_file():
        file.touch()
    else:
        upright = open_image(image).image
        upright.save(file, "WEBP", lossless=max(upright.size) <= 512, quality=90)
    for old in sorted(folder.glob("*.webp"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return f"kept:{digest}"


def _folder() -> Path:
    return Path(get_upload_folder()) / "shared-pictures"
