"""How well concepts name what their samples show: CLIPScore, BERTScore, and purity against known truth, each beside its controls."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ..devices import pick_device
from ..errors import InterpError
from ..lens.directions import is_word
from ..validation import instance, mapping, sequence, shown, text, whole_number
from ..vision.images import open_image
from .clip import CLIP, Clip, loaded
from .concepts import Concepts, strongest
from .ground import picture_of
from .states import ConceptStates

BERT = "google-bert/bert-base-uncased"
_SCALE = 2.5  # of CLIPScore (Hessel et al. 2021)
_SHUFFLES = 20


@dataclass(frozen=True)
class Score:
    """A mean over samples, and its standard deviation."""

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Score":
        """Of at least one value."""
        return cls(float(np.mean(values)), float(np.std(values)))


@dataclass(frozen=True)
class WordScores:
    """How well the words of the strongest concepts fit the samples, beside controls. See `interp.clip_score` and `interp.bert_score`."""

    kind: str
    """"CLIPScore" (2.5 max(0, cos), from 0 to 2.5) or "BERTScore F1" (from -1 to 1)."""
    model: str
    samples: int
    scores: Mapping[str, Score]
    """"top 1", "top 3": the words of a sample's strongest concepts. "random words": as many words of the vocabulary. "other sample": the words of
    another sample's concept. "noise": the words with a picture of noise (CLIPScore only)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "kind": self.kind,
            "model": self.model,
            "samples": self.samples,
            "scores": {name: vars(each) for name, each in self.scores.items()},
        }


def clip_score(
    concepts: Concepts, states: ConceptStates, model: str = CLIP, *, device: str = "auto", limit: int = 500, seed: int = 0
) -> WordScores:
    """Do the words of a sample's strongest concepts describe its picture?

    The score is the CLIPScore of the picture and "A photo is described by the words a, b, c."
    `states`: of samples that the concepts were not learned on, if it is to say anything about new ones. `model`: a CLIP of transformers, a folder or a
    hub id, loaded from safetensors. At most `limit` samples are scored. The words are those that the model promotes, so `concepts` must have some.

    Raises InterpError for concepts without words, samples without pictures, and a model that is no CLIP or cannot be loaded.
    """
    seed = whole_number("seed", seed, 0)
    chosen = _Chosen.of(concepts, states, limit, seed)
    clip = Clip.load(model, pick_device(device))
    pictures = [_picture(states, sample) for sample in chosen.samples]
    noise = _noise(pictures, seed)
    seen, unseen = (clip.pictures(some) for some in (pictures, noise))
    scores: dict[str, Score] = {}
    for name, words in chosen.lists.items():
        said = clip.texts([f"A photo is described by the words {', '.join(each)}." for each in words])
        scores[name] = Score.of((_SCALE * (seen * said).sum(1).clamp(min=0)).tolist())
        if name == "top 1":
            scores["noise"] = Score.of((_SCALE * (unseen * said).sum(1).clamp(min=0)).tolist())
    return WordScores("CLIPScore", str(model), len(chosen.samples), scores)


def bert_score(
    concepts: Concepts,
    states: ConceptStates,
    model: str = BERT,
    *,
    references: Mapping[str, str] | None = None,
    device: str = "auto",
    limit: int = 500,
    seed: int = 0,
) -> WordScores:
    """Do the words of a sample's strongest concepts say what its caption says?

    The score is the F1 of BERTScore (Zhang et al. 2020), without idf and rescaling.
    `references`: sample id to caption; by default what the model itself answered. `model`: a text encoder of transformers, a folder or a hub id,
    whose last layer is compared. Everything else is as in `clip_score`.
    """
    chosen = _Chosen.of(concepts, states, limit, seed)
    given = None if references is None else mapping("references", references)
    captions = []
    for sample in chosen.samples:
        about = states.samples[sample]
        caption = about.answer if given is None else given.get(about.id)
        if not isinstance(caption, str) or not caption.strip():
            raise InterpError(f"references has no caption for sample {shown(about.id)}; give one for every sample.")
        captions.append(caption)
    place = pick_device(device)
    bert, tokenizer = loaded(model, AutoModel, place), loaded(model, AutoTokenizer, None)
    wanted = _tokens(bert, tokenizer, captions, place)
    scores = {
        name: Score.of(
            [
                f1(own, other)
                for own, other in zip(_tokens(bert, tokenizer, [", ".join(each) for each in words], place), wanted, strict=True)
            ]
        )
        for name, words in chosen.lists.items()
    }
    return WordScores("BERTScore F1", str(model), len(chosen.samples), scores)


def f1(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """Greedy matching of unit embeddings [n, d] and [m, d]: the harmonic mean of both mean maxima of their cosines."""
    similar = candidate @ reference.T
    precision, recall = float(similar.max(1).values.mean()), float(similar.max(0).values.mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


@dataclass(frozen=True)
class _Chosen:
    """The samples to score, and the words of each under every name."""

    samples: list[int]
    lists: dict[str, list[tuple[str, ...]]]

    @classmethod
    def of(cls, concepts: Concepts, states: ConceptStates, limit: int, seed: int) -> "_Chosen":
        instance("concepts", concepts, Concepts, "concepts, as interp.learn_concepts(...) returns")
        instance("states", states, ConceptStates, "states, as interp.collect(...) returns")
        limit, seed = whole_number("limit", limit, 1), whole_number("seed", seed, 0)
        if not any(concepts.words):
            raise InterpError("concepts have no words to score: learn them on states that have their model.")
        codes = concepts.transform(states)
        codes = codes.abs() if concepts.method == "pca" else codes
        rows: dict[int, int] = {}
        for row, sample in enumerate(states.sample_of.tolist()):
            if len(rows) < limit and codes[row].max() > 0:
                rows.setdefault(sample, row)
        if not rows:
            raise InterpError("states holds no sample in which a concept is active: there is nothing to score.")
        ranked = {sample: codes[row].argsort(descending=True, stable=True).tolist() for sample, row in rows.items()}
        top_1 = [concepts.words[ranked[sample][0]] for sample in rows]
        top_3 = [tuple(word for k in ranked[sample][:3] for word in concepts.words[k]) for sample in rows]
        rng = random.Random(seed)
        vocabulary = _vocabulary(concepts)
        drawn = [tuple(rng.sample(vocabulary, min(len(words), len(vocabulary)))) for words in top_1]
        others = top_1[1:] + top_1[:1]
        return cls(list(rows), {"top 1": top_1, "top 3": top_3, "random words": drawn, "other sample": others})


def _vocabulary(concepts: Concepts) -> list[str]:
    """The words that a concept could have been given."""
    return sorted({piece.strip() for piece in concepts.vlm.vocabulary.texts if piece[:1].isspace() and is_word(piece)})


def _picture(states: ConceptStates, sample: int) -> Image.Image:
    source = picture_of(states, sample)
    if source is None:
        raise InterpError(f"states has no picture of sample {shown(states.samples[sample].id)}, which CLIPScore compares with the words.")
    return open_image(source).image


def _noise(pictures: Sequence[Image.Image], seed: int) -> list[Image.Image]:
    make = np.random.default_rng(seed)
    return [Image.fromarray(make.integers(0, 256, (each.height, each.width, 3), dtype=np.uint8)) for each in pictures]


def _tokens(bert: Any, tokenizer: Any, texts: Sequence[str], device: torch.device) -> list[torch.Tensor]:
    """Unit embeddings of every token of each text but special ones: float32 [n, d]."""
    out = []
    with torch.inference_mode():
        for text_ in texts:
            inputs = tokenizer(text_, return_tensors="pt", truncation=True, return_special_tokens_mask=True)
            special = inputs.pop("special_tokens_mask")[0].bool()
            rows = normalize(bert(**inputs.to(device)).last_hidden_state[0].float().cpu(), dim=1)
            out.append(rows[~special] if (~special).any() else rows)
    return out


@dataclass(frozen=True)
class ConceptPurity:
    """How purely one concept stands for one label."""

    concept: int
    size: int
    label: str | None
    """The label that most of its samples have; None for a concept without samples."""
    share: float
    """Of its samples that have the label."""
    base: float
    """Of all samples that have it: what a random set of samples would hold."""


@dataclass(frozen=True)
class Purity:
    """See `interp.purity`."""

    each: tuple[ConceptPurity, ...]
    mean: float
    """Mean share, weighted by size: from 0 to 1."""
    shuffled: float
    """The same with the labels given to other samples at random, mean over twenty draws: what chance gives."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"mean": self.mean, "shuffled": self.shuffled, "concepts": [vars(one) for one in self.each]}


def purity(
    concepts: Concepts, labels: Mapping[str, str | Collection[str]], states: ConceptStates | None = None, *, seed: int = 0
) -> Purity:
    """How purely concepts stand for what the samples are known to show.

    `labels`: sample id to its label, or to its several labels, such as the nouns of a scene. `states`: other states than those the concepts were learned
    on. Raises InterpError for a sample without a label.
    """
    instance("concepts", concepts, Concepts, "concepts, as interp.learn_concepts(...) returns")
    named = mapping("labels", labels)
    seed = whole_number("seed", seed, 0)
    if states is None:
        ids, assigned = concepts.ids, concepts.assigned
    else:
        ids = instance("states", states, ConceptStates, "states, as interp.collect(...) returns").ids
        assigned = strongest(concepts.transform(states), concepts.method)
    if missing := [name for name in ids if name not in named]:
        raise InterpError(
            f"labels has none for sample {shown(missing[0])} ({len(missing)} of {len(ids)} samples); give one for every sample."
        )
    sets = [_labels(named[name]) for name in ids]
    if not sets:
        raise InterpError("There are no states to score.")
    each = _purity(len(concepts), assigned, sets)
    rng = random.Random(seed)
    chance = [_mean(_purity(len(concepts), assigned, rng.sample(sets, len(sets)))) for _ in range(_SHUFFLES)]
    return Purity(tuple(each), _mean(each), float(np.mean(chance)))


def _labels(given: Any) -> frozenset[str]:
    some = (
        [given]
        if isinstance(given, str)
        else sequence("labels", list(given) if isinstance(given, set | frozenset) else given, "labels", empty=True)
    )
    return frozenset(text("A label of labels", each) for each in some)


def _purity(count: int, assigned: torch.Tensor, sets: Sequence[frozenset[str]]) -> list[ConceptPurity]:
    known = sorted(frozenset().union(*sets))
    base = {label: sum(label in own for own in sets) / len(sets) for label in known}
    out = []
    for k in range(count):
        rows = (assigned == k).nonzero().flatten().tolist()
        shares = {label: sum(label in sets[row] for row in rows) / len(rows) for label in known} if rows else {}
        # Of labels that as many of its samples have, the one that is rarer elsewhere.
        label = max(shares, key=lambda name: (shares[name], -base[name]), default=None)
        out.append(ConceptPurity(k, len(rows), label, shares[label] if label else 0.0, base[label] if label else 0.0))
    return out


def _mean(each: Sequence[ConceptPurity]) -> float:
    total = sum(one.size for one in each)
    return sum(one.size * one.share for one in each) / total if total else 0.0
