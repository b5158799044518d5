"""What the views look up in a displayed result: words, features elsewhere, details of one feature."""

from typing import Any

from .. import validation
from ..errors import InterpError
from ..lens.lens import Lens
from ..saes.features import Encoding, Features
from ..saes.sae import Sae
from ..web.payloads.features import FoundFeatures, found_payload, one_feature
from ..web.payloads.lens import LensPayload, LensReading, lens_payload, lens_reading, scores
from .service import Service
from .zerogpu import on_gpu, seconds

MAX_QUERY = 80  # characters
_FOUND = 50  # most features listed by a search


class Questions:
    """Look-ups in the results that a service remembers. `run` is the key that `Service.remember` returned."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def lens_view(self, lens: Lens, *, layer: int | None = None, locked: int | None = None) -> LensPayload:
        """A lens for a view that may ask for the others; its "run" is the key by which it does. `layer`, `locked`: see `lens_payload`."""
        shelf, vlm = self._service.lens_shelf, lens.trace.vlm
        key = self._service.remember(lens)
        return lens_payload(lens, run=key, methods=shelf.described(vlm), missing=shelf.missing(vlm), layer=layer, locked=locked)

    def read_lens(self, run: str, method: str) -> LensReading:
        """What another lens reads in the same trace, in the form the view reads."""
        lens = self._service.read_again(self._service.remembered(run, Lens), validation.text("The lens", method))
        return lens_reading(lens)

    def find_word(self, run: str, word: str, method: str = "") -> dict[str, Any]:
        """A word's score at every layer and position, in the form the view reads. `method`: the lens, by default the run's own."""
        lens = self._service.remembered(run, Lens)
        if method:
            lens = self._service.read_again(lens, validation.text("The lens", method))
        word = query("The word to find must have", word)
        spellings = list(lens.resolve(word))
        values, bounds = scores(lens, on_gpu(lens.probability, word, allow=seconds()))
        return {"spellings": spellings, "values": values, "range": bounds}

    def features_at(self, run: str, where: Any) -> FoundFeatures:
        """The features of other tokens of the same trace, in the form the view reads."""
        found = self._service.remembered(run, Features)
        k = min(max(len(found.features), 10), found.encoding.sae.d_sae)
        return found_payload(on_gpu(found.encoding.top, k, where, found.rank_by, allow=seconds()))

    def find_features(self, run: str, text: str) -> dict[str, Any]:
        """All features of the SAE whose number or label matches, active here or not."""
        found = self._service.remembered(run, Features)
        chosen, note = matching(found.encoding.sae, text)
        where = {"positions": list(found.positions)} if found.positions else "all"
        features = on_gpu(found.encoding.some, chosen, where, found.rank_by, allow=seconds())
        features = tuple(sorted(features, key=lambda feature: -feature.score))  # stable, so that inactive ones stay in order of match
        return {"features": [one_feature(feature) for feature in features], "note": note}

    def feature_details(self, run: str, feature: Any) -> dict[str, Any]:
        """Details of one feature, computed only when it is opened."""
        encoding = self._service.remembered(run, Features).encoding
        near = encoding.sae.neighbours(validation.whole_number("feature", feature, 0, encoding.sae.d_sae - 1))
        labels = on_gpu(_labels, encoding, [other for other, _ in near], allow=seconds())
        return {"neighbours": [{"feature": f, "cosine": cosine, "label": label} for (f, cosine), label in zip(near, labels, strict=True)]}


def matching(sae: Sae, text: str) -> tuple[list[int], str]:
    """The features whose number or label matches, and a note with their count."""
    text = query("Search for a feature's number or part of its label, of", text)
    chosen = [sae.check(int(text))] if text.isascii() and text.isdigit() else sae.labels.search(text, _FOUND)
    more = f"; the first {_FOUND} are shown." if len(chosen) >= _FOUND else "."
    return chosen, f"{len(chosen)} of {sae.d_sae} features match {validation.shown(text)}{more}"


def query(what: str, text: object) -> str:
    """The text typed, stripped. `what` begins the error message."""
    text = text.strip() if isinstance(text, str) else ""
    if not 1 <= len(text) <= MAX_QUERY:
        raise InterpError(f"{what} 1 to {MAX_QUERY} characters.")
    return validation.text("The search text", text)


def _labels(encoding: Encoding, features: list[int]) -> list[str]:
    return [encoding.label(feature) for feature in features]
