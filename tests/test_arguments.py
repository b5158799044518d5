"""Whatever is passed to the package, it works or raises InterpError, and the next good call gives what it gave before."""

import dataclasses
import inspect
import itertools
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import interp
from interp import InterpError
from interp.attribution.scores import Scores
from interp.models.vocabulary import Vocabulary
from interp.saes.labels.labels import Label, Labels
from interp.saes.sae import SparseActs
from tests import tiny
from tests.concepts.test_scores import tiny_bert, tiny_clip
from tests.conftest import PROMPT
from tests.lens.test_translators import made
from tests.sae_checkpoints import build
from tests.study.made_index import write_index
from tests.test_validation import Rude

EXAMPLES = 8  # for each parameter of each function; the values of ALWAYS come on top
LONE = "dog\ud83d"
EXEMPT = {
    "Vlm.read": "a pass of the model, for recording and steering, which prepare its tensors",
    "Vlm.read_on": "likewise",
    "Vlm.on_layer": "how recording and steering put their hooks on a layer",
    "Sae.kept": "a step of steering on rows that `Sae.read` checks",
    "Sae.bags": "how `Sae.decode` and `attribute` gather decoder rows",
    "Scores.at": "a step of `attribute`, which finds the positions",
    "Scores.summed": "likewise",
    "PatchGrid.of": "how a family's geometry builds its grid",
    "Trace.store_image_as": "how the cache and `Trace.load` keep a picture they have just opened",
}
FOLDERS = {(name, "folder") for name in ("Translators.save", "ContextualIndex.save", "ConceptStates.save", "Concepts.save", "collect")}
"""What makes a folder of the name it is given."""
CALLED = {"on_text", "on_progress", "run"}
LONGEST = 1500  # characters of a message; some list all presets or SAEs
CONSTRUCTORS = (interp.Edit, interp.Vlm, interp.TraceCache)  # the other classes are results
BESIDE = (Vocabulary, Labels, SparseActs, Scores)  # what public attributes lead to


def public() -> set[str]:
    """Every function and method that a caller can pass something to."""
    out = {cls.__name__ for cls in CONSTRUCTORS}
    for thing in (*(getattr(interp, name) for name in interp.__all__), *BESIDE):
        if inspect.isfunction(thing):
            out.add(thing.__name__)
        elif inspect.isclass(thing) and not issubclass(thing, Exception):
            methods = {name: getattr(thing, name) for name, value in vars(thing).items() if _is_method(name, value)}
            out |= {f"{thing.__name__}.{name}" for name, method in methods.items() if len(_parameters(thing, name, method))}
    return out


def _is_method(name: str, value: object) -> bool:
    return not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, classmethod | staticmethod))


def _parameters(cls: type, name: str, method: Any) -> list[str]:
    own = [*inspect.signature(method).parameters]
    return own[1:] if inspect.isfunction(vars(cls)[name]) else own


@dataclasses.dataclass(frozen=True)
class Call:
    """A good call: what to call and with what. `same`: what of its result must stay the same. `named`: other words for a parameter."""

    call: Callable[..., Any]
    good: dict[str, Any]
    same: Callable[[Any], object] = repr
    named: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arguments")


@pytest.fixture(scope="session")
def sae():
    make = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(64, 12, generator=make), torch.randn(12, 64, generator=make)
    return interp.Sae(
        "random", "", 1, encoder, torch.zeros(12), decoder, torch.zeros(64), "relu", labels=Labels({3: Label("a dog", "me")}, "")
    )


@pytest.fixture(scope="session")
def calls(vlm, trace, lens, sae, checkpoint, folder):
    image = tiny.noise(60, 60)
    encoding = interp.encode(trace, sae)
    found = encoding.top(3)
    attributed = interp.attribute(trace, sae, 1, top=2)
    interp.filters(attributed, folder / "filters.json", k=2)
    interp.write_scores(attributed, folder / "good.scores")
    build("standard").save_model(folder / "layers.1")
    edit = interp.Edit(sae=sae, feature=3, strength=0.2)
    result = interp.steer(vlm, trace.image, trace.prompt, [edit], max_new_tokens=2)
    inputs = vlm.prepare(image, PROMPT)
    trace.save(folder / "good.trace")
    tuned, token = (made(vlm, kind, rank=2) for kind in ("tuned", "token"))
    tuned.save(folder / "lens")
    sentences = ["a dog and a cat sat on the mat"]
    contexts = interp.build_index(vlm, sentences)
    contexts.save(folder / "contexts")
    nearby = interp.contextual_lens(trace, contexts, top_k=2)
    asked = {"vlm": vlm, "image": image, "prompt": PROMPT, "max_new_tokens": 2, "on_text": None}
    steering = asked | {"temperature": 0.5, "seed": 1, "words": ["dog"], "stop": threading.Event()}
    picture = {"image": ("picture", "array"), "answer": ("answer", "prompt")}
    answer = {"answer": ("answer", "token")}
    patch_map = interp.PatchMap(trace, trace.answer_start, "rising", torch.arange(float(trace.length)), "Nothing.")
    rows, reduced = interp.attention(trace), {"over": "mean", "sinks": False, "weighted": True}
    mask = torch.eye(4, dtype=torch.bool)
    other = next(word for word in ("dog", "cat") if trace.tokens[trace.answer_start + 1].text.strip() != word)
    examples = [(image, PROMPT), (tiny.noise(60, 60, 1), PROMPT)]
    where = {"where": ("where", "patch", "box", "grid", "position")}
    unit = {"strength": ("strength",), "feature": ("feature",), "vector": ("vector",)}

    several = [(tiny.noise(60, 60, i), PROMPT) for i in range(10)]
    states, plain = (interp.collect(vlm, several, 1, place, max_new_tokens=1) for place in ("image", "last"))
    concepts = interp.learn_concepts(states, 3)
    shift = interp.concept_shift(states, states, concepts)
    coarse = interp.steering_vector(states, plain)
    learned = interp.learn_vector(plain, states, plain, hidden=2, epochs=2)
    interp.save_vector(coarse, folder / "good.vector")
    interp.write_xl_vectors(folder / "good-vectors.pth", coarse)
    learned.save(folder / "good.learned")
    states.save(folder / "states")
    concepts.save(folder / "concepts")
    features = interp.FeatureIndex.open(write_index(folder / "features"))
    torch.save({"hidden_states": [{"layers.1": torch.zeros(1, 1, 64)}]}, folder / "features.pth")
    torch.save({"concepts": torch.ones(2, 64), "activations": torch.ones(3, 2), "decomposition_method": "kmeans"}, folder / "concepts.pth")
    clip, bert = tiny_clip(folder / "clip"), tiny_bert(folder / "bert")
    scored = {"concepts": concepts, "states": states, "device": "cpu", "limit": 2, "seed": 0}

    def positions(kind):
        return trace.positions(kind)

    return {
        "load": Call(interp.load, {"checkpoint": checkpoint("crop"), "quantize": "none", "device": "cpu", "revision": None, "on_progress": None,
                                   "adapter": None},
                     lambda vlm: vlm.name, {"checkpoint": ("checkpoint", "model", "folder", "hub"), "adapter": ("adapter", "folder")}),
        "load_sae": Call(interp.load_sae, {"source": folder / "layers.1", "layer": None, "device": "cpu", "dtype": "auto", "revision": None},
                         lambda sae: sae.name, {"source": ("source", "sae", "folder", "hub"), "layer": ("layer",)}),
        "logit_lens": Call(interp.logit_lens, {"trace": trace, "top_k": 2, "layers": [1, 2], "positions": [0, 4]}, lambda x: x.to_dict()),
        "embedding_lens": Call(interp.embedding_lens, {"trace": trace, "top_k": 2, "layers": [1, 2], "positions": [0, 4]}, lambda x: x.to_dict()),
        "tuned_lens": Call(interp.tuned_lens, {"trace": trace, "translators": tuned, "top_k": 2, "layers": [1, 2], "positions": [0, 4]},
                           lambda x: x.to_dict()),
        "token_lens": Call(interp.token_lens, {"trace": trace, "translators": token, "top_k": 2, "layers": [1, 2], "positions": [0, 4]},
                           lambda x: x.to_dict()),
        "load_translators": Call(interp.load_translators, {"source": folder / "lens"}, lambda x: x.layers,
                                 {"source": ("source", "folder", "hub")}),
        "contextual_lens": Call(interp.contextual_lens, {"trace": trace, "index": contexts, "top_k": 2, "layers": [1, 2], "positions": [0, 4]},
                                lambda x: x.to_dict()),
        "ContextualLens.context": Call(nearby.context, {"layer": 1, "position": 4, "rank": 1}),
        "ContextualLens.resolve": Call(nearby.resolve, {"word": "cat", "first_piece": False}, named={"word": ("word",)}),
        "build_index": Call(interp.build_index, {"vlm": vlm, "texts": sentences, "layers": [1], "size": 5, "per_token": 1, "seed": 0, "words": ["dog"]},
                            lambda x: x.contexts),
        "load_index": Call(interp.load_index, {"source": folder / "contexts", "device": "cpu"}, lambda x: x.contexts),
        "ContextualIndex.entries": Call(contexts.entries, {"word": "cat"}),
        "ContextualIndex.to": Call(contexts.to, {"device": "cpu"}, lambda x: x.contexts),
        "ContextualIndex.check": Call(contexts.check, {"vlm": vlm}),
        "ContextualIndex.save": Call(contexts.save, {"folder": folder / "contexts2"}),
        "Translators.check": Call(tuned.check, {"vlm": vlm}),
        "Translators.save": Call(tuned.save, {"folder": folder / "lens2"}),
        "encode": Call(interp.encode, {"trace": trace, "sae": sae}, lambda x: x.acts.values.tolist()),
        "top_features": Call(interp.top_features, {"trace": trace, "sae": sae, "k": 2, "where": "all", "rank_by": "max"},
                             lambda x: x.to_dict(), where),
        "attribute": Call(interp.attribute, {"trace": trace, "sae": sae, "token": 1, "baseline": other, "top": 2, "where": "all", "norms": "fixed"},
                          lambda x: x.to_dict(), where | {"baseline": ("baseline", "word")}),
        "AttributedFeature.map": Call(attributed.features[0].map, {"grid": 0}, lambda x: x.tolist()),
        "integrated": Call(interp.integrated, {"trace": trace, "sae": sae, "token": 1, "feature": 3, "baseline": other, "steps": 2, "where": "all"},
                           lambda x: x.scores.tolist(), where | {"baseline": ("baseline", "word")}),
        "Integrated.map": Call(interp.integrated(trace, sae, 1, 3, steps=2).map, {"grid": 0}, lambda x: x.tolist()),
        "ablate_features": Call(interp.ablate_features, {"trace": trace, "sae": sae, "features": [3, 4]}, lambda x: x.to_dict()),
        "filters": Call(interp.filters, {"attribution": attributed, "path": folder / "chosen.json", "pool": "max", "k": 2}),
        "read_filters": Call(interp.read_filters, {"path": folder / "filters.json"}),
        "write_scores": Call(interp.write_scores, {"attribution": attributed, "path": folder / "scores"}),
        "read_scores": Call(interp.read_scores, {"path": folder / "good.scores", "sae": sae}, lambda x: x.scores.tolist()),
        "Scores.of": Call(attributed.scores.of, {"feature": 3}, lambda x: x.tolist()),
        "Scores.map": Call(attributed.scores.map, {"feature": 3, "grid": 0}, lambda x: x.tolist()),
        "relevancy": Call(interp.relevancy, {"trace": trace, "token": 1, "baseline": other}, lambda x: x.values.tolist(),
                          {"baseline": ("baseline", "word")}),
        "attention": Call(interp.attention, {"trace": trace, "tokens": [0, 1], "layers": [0, 1]}, lambda x: x.weights.tolist()),
        "Attention.share": Call(rows.share, {"kind": "image"}, lambda x: x.tolist()),
        "Attention.map": Call(rows.map, {"token": 1, "layer": 1, "head": 0, "grid": 0, **reduced}, lambda x: x.tolist()),
        "Attention.patch_map": Call(rows.patch_map, {"token": 1, "layer": 1, "head": 0, **reduced}, lambda x: x.values.tolist()),
        "Attention.readers": Call(rows.readers, {"positions": [3, 4]}, lambda x: x.tolist()),
        "find_sinks": Call(interp.find_sinks, {"trace": trace}),
        "rollout": Call(interp.rollout, {"trace": trace, "token": 1, "start_layer": 1, "over": "mean", "sinks": False}, lambda x: x.values.tolist()),
        "activation_map": Call(interp.activation_map, {"trace": trace, "token": 1}, lambda x: x.values.tolist()),
        "knockout": Call(interp.knockout, {"trace": trace, "sources": "image", "targets": "last", "layers": [0, 2], "token": 1, "heads": [1], "answer": True},
                         lambda x: x.to_dict(), {name: (name[:-1], "where", "patch", "box", "grid", "position") for name in ("sources", "targets")}),
        "knockout_map": Call(interp.knockout_map, {"trace": trace, "token": 1, "layers": [0, 2]}, lambda x: x.values.tolist()),
        "information_flow": Call(interp.information_flow, {"trace": trace, "token": 1, "window": 2, "object": {"box": [0, 0, 1, 1]}},
                                 lambda x: x.to_dict(), {"object": ("object",)}),
        "ablate": Call(interp.ablate, {"trace": trace, "patches": {"patches": [[1, 1]]}, "by": "mean"}, lambda x: x.to_dict(),
                       {"patches": ("patches",), "by": ("by ", "by:")}),
        "smallest_evidence": Call(interp.smallest_evidence, {"trace": trace, "token": 1}, lambda x: x.to_dict()),
        "faithfulness": Call(interp.faithfulness, {"patch_map": patch_map, "steps": 2}, lambda x: x.to_dict()),
        "pointing_game": Call(interp.pointing_game, {"patch_map": patch_map, "mask": mask, "grid": 0}),
        "overlap": Call(interp.overlap, {"patch_map": patch_map, "mask": mask, "grid": 0}),
        "PatchMap.map": Call(patch_map.map, {"grid": 0}, lambda x: x.tolist()),
        "steer": Call(interp.steer, steering | {"edits": [edit]}, lambda x: x.to_dict(), picture),
        "steer_each": Call(interp.steer_each, steering | {"edits": [edit, edit.with_value(0.5)]}, lambda x: [each.to_dict() for each in x], picture),
        "steer_sweep": Call(interp.steer_sweep, steering | {"edit": edit, "strengths": [0.1, 0.2], "others": []}, lambda x: x.to_list(),
                            picture | {"strengths": ("strength",), "others": ("others", "edit")}),
        "steered_trace": Call(interp.steered_trace, {"trace": trace, "edits": [edit], "answer": result.steered_answer},
                              lambda x: x.answer, answer),
        "contrast_vector": Call(interp.contrast_vector, {"vlm": vlm, "positives": examples, "negatives": examples, "layer": 1, "where": "image"},
                                lambda x: x.vector.tolist(), where | dict.fromkeys(("positives", "negatives"), ("tives", "prompt", "picture", "array"))),
        "Edit": Call(interp.Edit, {"sae": sae, "feature": 3, "vector": None, "layer": None, "strength": 0.1, "amount": None, "target": None, "where": "all"},
                     named=where | unit | dict.fromkeys(("sae", "feature", "vector", "layer"), ("sae", "feature", "vector", "layer", "direction"))),
        "Edit.with_value": Call(edit.with_value, {"value": 0.5}, named={"value": ("strength",)}),
        "collect": Call(interp.collect,
                        {"vlm": vlm, "samples": several[:2], "layer": [1], "where": "image", "prompt": PROMPT, "max_new_tokens": 1, "batch": 2,
                         "folder": None, "on_progress": None, "stop": None}, lambda x: x.residual().tolist(), where | {"samples": ("sample",)}),
        "ConceptStates.layer": Call(states.layer, {"layer": 1}),
        "ConceptStates.residual": Call(states.residual, {"layer": 1}),
        "ConceptStates.picture": Call(states.picture, {"sample": 1}, lambda x: x.size),
        "ConceptStates.picture_file": Call(states.picture_file, {"sample": 1}),
        "ConceptStates.take": Call(states.take, {"rows": [1, 2]}, lambda x: x.ids),
        "ConceptStates.check": Call(states.check, {"vlm": vlm}),
        "ConceptStates.save": Call(states.save, {"folder": folder / "states2"}),
        "ConceptStates.load": Call(interp.ConceptStates.load, {"folder": folder / "states", "vlm": vlm}, lambda x: x.ids),
        "learn_concepts": Call(interp.learn_concepts, {"states": states, "n": 3, "method": "k-means", "layer": 1, "seed": 0, "sae": None, "sparsity": 0.1,
                                                       "centred": True, "seeds": 1, "maps": False, "stop": None}, lambda x: x.to_dict()),
        "Concepts.check": Call(concepts.check, {"concept": 1}),
        "Concepts.transform": Call(concepts.transform, {"states": trace}, lambda x: x.tolist()),
        "Concepts.reconstruct": Call(concepts.reconstruct, {"states": states}, lambda x: x.tolist()),
        "Concepts.fit_of": Call(concepts.fit_of, {"states": states}),
        "Concepts.map": Call(concepts.map, {"trace": trace, "concept": 1, "grid": 0}, lambda x: x.tolist()),
        "Concepts.vector": Call(concepts.vector, {"i": 0, "j": 1}, lambda x: x.vector.tolist(), {"i": ("concept", "i"), "j": ("concept", "j")}),
        "Concepts.check_model": Call(concepts.check_model, {"vlm": vlm}),
        "Concepts.save": Call(concepts.save, {"folder": folder / "concepts2"}),
        "Concepts.load": Call(interp.Concepts.load, {"folder": folder / "concepts", "vlm": vlm, "sae": None}, lambda x: x.to_dict()),
        "concept_shift": Call(interp.concept_shift, {"states_before": states, "states_after": states, "concepts": concepts, "after": concepts, "alpha": 1, "maps": True},
                              lambda x: x.to_dict()),
        "ConceptShift.to_html": Call(shift.to_html, {"path": folder / "shift.html"}),
        "steering_vector": Call(interp.steering_vector, {"base": states, "target": plain, "layer": 1}, lambda x: x.vector.tolist()),
        "learn_vector": Call(interp.learn_vector, {"context": plain, "base": states, "target": plain, "reads": 1, "layer": 1, "hidden": 2, "epochs": 2,
                                                   "rate": 0.1, "seed": 0}, lambda x: x.decoder.tolist(), {"reads": ("reads", "layer")}),
        "LearnedVector.predict": Call(learned.predict, {"states": plain.residual()}, lambda x: x.tolist()),
        "LearnedVector.vector": Call(learned.vector, {"trace": trace}, lambda x: x.vector.tolist()),
        "LearnedVector.save": Call(learned.save, {"path": folder / "learned"}),
        "LearnedVector.load": Call(interp.LearnedVector.load, {"path": folder / "good.learned", "reads": None, "layer": None, "model_name": ""},
                                   lambda x: x.decoder.tolist()),
        "save_vector": Call(interp.save_vector, {"vector": coarse, "path": folder / "vector"}),
        "load_vector": Call(interp.load_vector, {"path": folder / "good.vector"}, lambda x: x.vector.tolist()),
        "clip_score": Call(interp.clip_score, scored | {"model": clip}, lambda x: x.to_dict()),
        "bert_score": Call(interp.bert_score, scored | {"model": bert, "references": None}, lambda x: x.to_dict()),
        "purity": Call(interp.purity, {"concepts": concepts, "labels": {str(i): "dog" for i in range(10)}, "states": states, "seed": 0}, lambda x: x.to_dict()),
        "read_xl_features": Call(interp.read_xl_features, {"path": folder / "features.pth", "vlm": vlm, "module": "layers.1", "position": 0},
                                 lambda x: x.residual().tolist()),
        "read_xl_concepts": Call(interp.read_xl_concepts, {"path": folder / "concepts.pth", "vlm": vlm, "layer": 1}, lambda x: x.to_dict()),
        "read_xl_vectors": Call(interp.read_xl_vectors, {"path": folder / "good-vectors.pth", "layer": 1, "model_name": "me"},
                                lambda x: {name: each.vector.tolist() for name, each in x.items()}),
        "write_xl_vectors": Call(interp.write_xl_vectors, {"path": folder / "vectors.pth", "coarse": coarse, "concepts": None}),
        "Vlm": Call(interp.Vlm, {"model": vlm.model, "processor": vlm.processor, "name": "mine"}, lambda vlm: vlm.n_layers,
                    {"processor": ("processor", "tokenizer")}),
        "Vlm.prepare": Call(vlm.prepare, {"image": image, "prompt": PROMPT}, lambda x: x["pixel_values"].tolist(), picture),
        "Vlm.answer_ids": Call(vlm.answer_ids, {"inputs": inputs, "answer": "dog"}),
        "Vlm.check_length": Call(vlm.check_length, {"prompt": 3, "new": 3}, named={"new": ("new", "prompt")}),
        "Vlm.trace": Call(vlm.trace, {key: asked[key] for key in asked if key != "vlm"} | {"answer": None}, lambda x: x.states.tolist(), picture),
        "TraceCache": Call(interp.TraceCache, {"max_bytes": 10**6}, lambda cache: cache.max_bytes),
        "TraceCache.get": Call(interp.TraceCache().get, asked | {"answer": None, "run": None}, lambda x: x.answer, picture),
        "Trace.residual": Call(trace.residual, {"layer": 1}),
        "Trace.positions": Call(positions, {"kind": "image"}),
        "Trace.save": Call(trace.save, {"path": folder / "saved"}, named={"path": ("path", "file", "trace")}),
        "Trace.load": Call(interp.Trace.load, {"path": folder / "good.trace", "vlm": vlm}, lambda x: x.answer, {"path": ("path", "file", "trace")}),
        "Lens.texts": Call(lens.texts, {"layer": 1, "position": 3}),
        "Lens.resolve": Call(lens.resolve, {"word": "dog", "first_piece": False}, named={"word": ("word", "token")}),
        "Lens.probability": Call(lens.probability, {"word": "dog", "first_piece": False}, named={"word": ("word", "token")}),
        "Lens.rank": Call(lens.rank, {"word": "dog", "first_piece": False}, named={"word": ("word", "token")}),
        "Lens.grid": Call(lens.grid, {"layer": 1, "grid": 0}),
        "Lens.to_json": Call(lens.to_json, {"path": folder / "lens.json"}),
        "Lens.to_html": Call(lens.to_html, {"path": folder / "lens.html"}),
        "Sae.notes_for": Call(sae.notes_for, {"names": ["mine"]}),
        "Sae.check": Call(sae.check, {"feature": 3}),
        "Sae.encode": Call(sae.encode, {"states": trace.residual(1)}),
        "Sae.decode": Call(sae.decode, {"acts": encoding.acts}),
        "Sae.only": Call(sae.only, {"feature": 3, "device": torch.device("cpu")}),
        "Sae.read": Call(sae.read, {"states": trace.residual(1)}),
        "Sae.neighbours": Call(sae.neighbours, {"feature": 3, "k": 2}),
        "Sae.nearest": Call(sae.nearest, {"direction": sae.W_dec[3], "k": 2}),
        "SparseActs.rows": Call(encoding.acts.rows, {"rows": torch.tensor([1, 2])}),
        "Encoding.select": Call(encoding.select, {"where": "image"}, named=where),
        "Encoding.top": Call(encoding.top, {"k": 2, "where": "all", "rank_by": "max"}, lambda x: x.to_dict(), where),
        "Encoding.some": Call(encoding.some, {"features": [3, 4], "where": "all", "rank_by": "max"}, lambda x: [f.to_dict() for f in x], where),
        "Encoding.label": Call(encoding.label, {"feature": 3}),
        "Feature.map": Call(found.features[0].map, {"grid": 0}),
        "FeatureIndex.open": Call(interp.FeatureIndex.open, {"folder": folder / "features"}, lambda x: x.about,
                                  {"folder": ("folder", "index")}),
        "FeatureIndex.check": Call(features.check, {"feature": 3}),
        "FeatureIndex.feature": Call(features.feature, {"feature": 3}, lambda x: x.to_dict()),
        "FeatureIndex.search": Call(features.search, {"text": "dog", "limit": 5}),
        "Features.to_json": Call(found.to_json, {"path": folder / "features.json"}),
        "PatchGrid.box": Call(trace.grids[0].box, {"row": 1, "col": 1}, named={"col": ("col",)}),
        "Preset.memory_gb": Call(interp.PRESETS["emoji-llava"].memory_gb, {"cpu": True}),
        "Vocabulary.of": Call(Vocabulary.of, {"tokenizer": vlm.tokenizer, "size": 50}, lambda x: x.texts),
        "Vocabulary.resolve": Call(vlm.vocabulary.resolve, {"word": "dog", "tokenizer": vlm.tokenizer, "first_piece": False},
                                   named={"word": ("word", "token")}),
        "Labels.get": Call(sae.labels.get, {"feature": 3}),
        "Labels.named": Call(sae.labels.named, {"word": "dog"}),
        "Labels.search": Call(sae.labels.search, {"text": "dog", "limit": 5}),
    }  # fmt: skip


ALWAYS: list[Any] = [
    *(None, True, False, 0, -1, 10**40, 10**5000, 0.5, 5.0, float("nan"), float("inf"), 1j),
    *("", "3", "nowhere", LONE, "a\0b", b"", b"dog", "x" * 5000),
    *([], [[]], [[[1]]], [None], ["dog"], [LONE], [10**40], (), {}, {1: 2}, {"patches": [[0]]}, {"box": None}, {"positions": "3"}, {"dog"}),
    *(np.bool_(1), np.int64(3), np.float32("nan"), np.array(2), np.zeros((2, 2)), np.array(["a"]), np.zeros(0)),
    *(torch.tensor(2), torch.tensor(True), torch.zeros(64), torch.zeros(3, 63), torch.full((2, 64), torch.nan), torch.zeros(2, 64).to("meta")),
    *(torch.zeros(2, 64, dtype=torch.int64), torch.zeros(2, 64).to_sparse(), torch.zeros(2, 2, 64), torch.empty(0, 64), torch.tensor([1, 99])),
    *(object(), Rude(), [Rude()], {"positions": [Rude()]}, int, len, lambda: None, range(10**12), itertools.count(), iter([1])),
    *(pathlib.Path("nowhere/x"), threading.Event(), Image.new("RGB", (4, 4)), torch.nn.Linear(2, 2), interp.PRESETS["emoji-llava"]),
]  # fmt: skip
NUMBERS = st.integers() | st.floats() | st.booleans() | st.builds(np.float64, st.floats()) | st.builds(torch.tensor, st.integers(-99, 99))
TEXTS = st.text(st.characters(), max_size=8) | st.binary(max_size=8) | st.sampled_from([LONE, "image", "answer", "dog", "max"])
LEAVES = st.none() | NUMBERS | TEXTS
NAMES = st.sampled_from(["patches", "box", "grid", "positions", "layer", "feature"])
JUNK = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2) | st.tuples(inner, inner), max_leaves=5
)
NO_FILES: list[Any] = [None, True, 3, "", ".", "nowhere/x", "a\0b", LONE, "x" * 5000, b"x", ["x"], {}, object(), Rude(), np.zeros(2)]
"""Instead of any text: what is written lands in a file of that name."""


def test_every_public_function_is_called(calls):
    """A new one needs a good call above, from which its wrong ones are made."""
    assert set(calls) | set(EXEMPT) == public()
    assert not set(calls) & set(EXEMPT)
    for name, call in calls.items():
        taken = inspect.signature(call.call).parameters
        assert set(taken) == set(call.good), name


def refused_in_words(call: Call, parameter: str, junk: Any) -> None:
    """It works, or it says in a line which parameter is wrong."""
    if parameter in CALLED and callable(junk):
        return  # what it then raises is its own affair
    try:
        call.call(**call.good | {parameter: junk})
    except InterpError as error:
        message = str(error)
        message.encode()
        assert "\n" not in message
        assert len(message) < LONGEST
        names = call.named.get(parameter, (parameter.removesuffix("s"),))
        assert any(name in message.lower() for name in names), f"{message!r} names none of {names}"


@pytest.mark.parametrize("name", sorted(public() - set(EXEMPT)))
def test_wrong_arguments_are_refused_in_words(calls, name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    call = calls[name]
    before = call.same(call.call(**call.good))
    for parameter in call.good:
        writes = (parameter == "path" and name != "Trace.load") or (name, parameter) in FOLDERS
        for junk in NO_FILES if writes else ALWAYS:
            refused_in_words(call, parameter, junk)

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(st.just(parameter), NUMBERS | st.sampled_from(NO_FILES) if writes else JUNK)
        def wrong(parameter, junk):
            refused_in_words(call, parameter, junk)

        wrong()
    assert call.same(call.call(**call.good)) == before
