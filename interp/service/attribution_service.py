"""Attribution for the page and the API: what features did for a word, what one feature did for every word, and the answer without some features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..attention.changed import longest_answer
from ..attention.relevancy import baseline_id
from ..attribution.ablate import ablate_features
from ..attribution.attribute import Attribution, explained
from ..attribution.margin import Margin
from ..attribution.removal import Part
from ..errors import InterpError
from ..lens.lens import Lens
from ..saes.features import Encoding, Feature
from ..tracing.replay import Replay
from ..tracing.select import answer_token, content_word
from ..tracing.trace import Trace
from ..validation import sequence, shown
from ..web.payloads.attribution import (
    AttributionPayload,
    FeatureWords,
    OtherWord,
    WithoutFeatures,
    WordAttribution,
    WordScore,
    WordSpec,
    attribution_payload,
    feature_words,
    without_features,
    word_attribution,
    word_score,
)
from .requests import MAX_ATTRIBUTED, AttributionRequest, Ranking
from .service import Service
from .zerogpu import on_gpu, seconds

_OTHERS = 6  # likeliest other words offered for comparison
_ROWS = 8  # of the time that a batch of exact effects is allowed


@dataclass(frozen=True, eq=False)
class Explained:
    """One word's attribution, and the likeliest other words there."""

    found: Attribution
    others: tuple[OtherWord, ...]


class AttributionService:
    """Attribution with a service's model and SAEs. A view's `run` is a lens's key and the name of an SAE, see `payload`."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def attribution(self, trace: Trace, request: AttributionRequest) -> Attribution:
        """What features did for a word of the answer, cached."""
        return self._explained(trace, request).found

    def payload(self, key: str, sae: str, requests: Sequence[AttributionRequest] = ()) -> AttributionPayload:
        """The view's data for the trace of a remembered lens, with these words, of which the first is shown.

        Without any, with the answer's first content word.
        """
        trace = self.service.remembered(key, Lens).trace
        words = [self._word(trace, request) for request in requests or [AttributionRequest(sae)]]
        encoding = self._encoding(trace, sae)
        return attribution_payload(words, encoding, run=f"{key} {sae}", study=self.service.studies.of(encoding.sae))

    def attribute_word(self, run: str, spec: Any) -> WordAttribution:
        """For the view: the attribution that it has not got yet."""
        trace, sae = self._about(run)
        asked = _mapping(spec)
        names = {"token": asked.get("token"), "baseline": asked.get("baseline"), "top_k": asked.get("top")}
        return self._word(trace, AttributionRequest.of({"sae": sae, **names}))

    def feature_words(self, run: str, feature: Any) -> FeatureWords:
        """For the view: what one feature did for every token of the answer, against the likeliest other token there; cached."""
        trace, sae = self._about(run)
        encoding = self._encoding(trace, sae)
        number = encoding.sae.check(feature)
        key = ("feature words", encoding.sae.name, number)
        return self.service.derived(trace, key, lambda: _Kept(on_gpu(_feature_words, encoding, number, allow=seconds(rows=_ROWS)))).value

    def without_features(self, run: str, request: Any) -> WithoutFeatures:
        """For the view: the answer without some features. `request`: {"token", "features"}."""
        (trace, name), asked = self._about(run), _mapping(request)
        sae = self.service.saes.get(name, trace.model_name)
        token = answer_token(trace, asked.get("token"))
        features = [sae.check(feature) for feature in sequence("features", asked.get("features"), "features")]
        if len(features) > MAX_ATTRIBUTED:
            raise InterpError(f"features has {len(features)} entries; at most {MAX_ATTRIBUTED} can be taken away at once.")
        allow = seconds(longest_answer(trace), rows=2)
        return without_features(on_gpu(ablate_features, trace, sae, features, allow=allow), token)

    def _about(self, run: str) -> tuple[Trace, str]:
        """The trace and the SAE's name that a view's `run` stands for."""
        key, _, sae = str(run).partition(" ")
        return self.service.remembered(key, Lens).trace, sae

    def _word(self, trace: Trace, request: AttributionRequest) -> WordAttribution:
        done = self._explained(trace, request)
        spec: WordSpec = {"token": done.found.token - trace.answer_start, "baseline": request.baseline, "top": request.top_k}
        return word_attribution(done.found, spec, done.others)

    def _explained(self, trace: Trace, request: AttributionRequest) -> Explained:
        token = answer_token(trace, content_word(trace) if request.token == "" else request.token) - trace.answer_start
        key = ("attribution", self.service.saes.meant(request.sae, trace.model_name), token, request.baseline, request.top_k)

        def make() -> Explained:
            encoding = self._encoding(trace, request.sae)
            top = min(request.top_k, encoding.sae.d_sae)
            return on_gpu(_explained, encoding, token, request.baseline.strip() or None, top, allow=seconds(rows=_ROWS))

        return self.service.derived(trace, key, make)

    def _encoding(self, trace: Trace, sae: str) -> Encoding:
        return self.service.features(trace, Ranking(sae, where="all", top_k=1)).encoding


@dataclass(frozen=True, eq=False)
class _Kept:
    """A small result."""

    value: FeatureWords


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InterpError(f"The request is {shown(value)}; it must be an object.")
    return value


# Functions at module level, so that they can be pickled (see `on_gpu`).


def _explained(encoding: Encoding, token: int, baseline: str | None, top: int) -> Explained:
    found = explained(encoding, token, baseline, top)
    _ = found.metric  # computed here, where the model is, and kept
    return Explained(found, _likeliest(found.margin))


def _likeliest(margin: Margin) -> tuple[OtherWord, ...]:
    """The likeliest other tokens at the row, as far as they can be asked for by their text; the very likeliest can without."""
    trace = margin.trace
    vlm, texts = trace.vlm, trace.vlm.vocabulary.texts
    chances = _chances(trace, margin.row)
    chances[[margin.said, *vlm.vocabulary.undecodable]] = -1
    ids = chances.topk(min(4 * _OTHERS, len(chances))).indices.tolist()
    asked = [number for i, number in enumerate(ids) if i == 0 or _is_named(margin, number)]
    return tuple({"text": texts[number], "probability": float(chances[number])} for number in asked[:_OTHERS])


def _is_named(margin: Margin, number: int) -> bool:
    try:
        return baseline_id(margin.trace.vlm, margin.trace.vlm.vocabulary.texts[number], margin.said) == number
    except InterpError:
        return False


def _chances(trace: Trace, row: int) -> torch.Tensor:
    """Probabilities of the next token at a row: float32 [V] on the CPU."""
    vlm = trace.vlm
    with vlm.lock, torch.no_grad():
        return vlm.unembed.logits(trace.residual(trace.n_layers - 1)[row : row + 1])[0].float().softmax(-1).cpu()


def _feature_words(encoding: Encoding, feature: int) -> FeatureWords:
    trace = encoding.trace
    (about,) = encoding.some([feature], "all")
    with trace.vlm.lock:
        replay = Replay.of(trace)
        words = [_word_score(encoding, about, replay, number) for number in range(len(trace.tokens) - trace.answer_start)]
    return feature_words(about, words)


def _word_score(encoding: Encoding, about: Feature, replay: Replay, number: int) -> WordScore:
    """As `attribute` scores one feature for one token, without the others."""
    margin = Margin.of(encoding.trace, number, None)
    gradient = margin.gradient(replay, encoding.sae.layer, "fixed")
    part = Part.of_feature(encoding, about.feature, range(margin.row + 1))
    scores = torch.zeros(encoding.trace.length)
    scores[part.positions] = (gradient[part.positions] * part.delta).sum(-1)
    return word_score(number, margin.baseline, scores, encoding.left_out)
