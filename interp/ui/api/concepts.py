"""`/concepts`, `/concept_shift` and `/learn_concepts`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...service.concept_learning import LIMITS
from ...service.concepts_service import ConceptsService
from ...service.requests import MAX_LEARNED, MAX_NEW_TOKENS, ConceptsRequest, LearnRequest, ShiftRequest
from ..components.inputs import PicturesZip, Text, Whole
from ..files import write_concepts_json, write_concepts_zip
from .endpoint import PROMPT, publish, question


def concepts(finding: ConceptsService) -> None:
    """Add `/concepts` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        request = ConceptsRequest.of(values)
        here = finding.here(finding.service.trace(request), request.dictionary)
        return here.to_dict(), write_concepts_json(here)

    publish(
        "concepts",
        answer,
        [*question(finding.service), Text("", label="dictionary"), Whole(32, label="max_new_tokens")],
        [gr.JSON(label="found"), gr.File(label="json")],
        "What the states of a run are made of: the concepts of a dictionary, and where they are on the picture. Inputs: image (a picture file), prompt, "
        "model (a name from /models), dictionary (one of the model's concepts; empty for the first), max_new_tokens (1 to "
        f"{MAX_NEW_TOKENS}). Returns found: model, prompt, answer, method, layer, where (which states the concepts were learned on) and how many (states), learned_fit and fit "
        "(fvu: the share of variance they leave unexplained, of these states and of this picture's image tokens), left_out (positions that do not count: BOS "
        "and attention sinks) and concepts (each with concept: its number, words, opposite: words of the other sign, for PCA, size: how many of the states have "
        "most of it, stability: how far other seeds find it again, activation: its highest on this picture, places: the image tokens that have most of it, "
        "and map: its activation on each patch of each grid); and a JSON file that also has the dictionary's examples and the activations at all positions.",
    )


def concept_shift(finding: ConceptsService) -> None:
    """Add `/concept_shift` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> dict[str, Any]:
        return finding.shifts.shift(ShiftRequest.of(values)).to_dict()

    publish(
        "concept_shift",
        answer,
        [
            Text(finding.service.default_model, label="model"),
            Text("", label="adapter"),
            Text("", label="other"),
            Text("", label="dictionary"),
        ],
        gr.JSON(label="shift"),
        "How fine-tuning moved the concepts of a model: the model and its fine-tune both answer the pictures of a dictionary. Inputs: model (a name from /models), "
        "adapter (the fine-tune as a PEFT adapter) or other (as a whole model), dictionary (one of the model's concepts; empty for the first). "
        "Returns before, after, layer, where, compared (states that both have), left_out, correlation (of recovery with consistency) and concepts (each with concept, size, "
        "magnitude, relative: the shift's length over that of the states, consistency: 1 if all states move alike, along, match: the concept after that it is "
        "paired with, cosine, shifted_cosine, recovery: 1 if the shift leads exactly to the match, word_recovery, words, words_shifted, words_after, gained, "
        "lost, and answers: before and after, to its pictures).",
    )


def learn_concepts(finding: ConceptsService) -> None:
    """Add `/learn_concepts` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        learned = finding.learning.learn(LearnRequest.of(values))
        made = {"dictionary": learned.name, **learned.concepts.to_dict()}
        for example in (each for concept in made["concepts"] for each in concept["examples"]):
            del example["path"]  # clients take what has a path for a file, and ask for it
        return made, write_concepts_zip(learned.concepts)

    publish(
        "learn_concepts",
        answer,
        [
            PicturesZip(label="pictures"),
            Text("", label="folder"),
            Text(PROMPT, label="prompt"),
            Text(finding.service.default_model, label="model"),
            Whole(label="layer"),
            Text("patches", label="where"),
            Whole(20, label="n"),
            Text("k-means", label="method"),
            Whole(32, label="max_new_tokens"),
        ],
        [gr.JSON(label="learned"), gr.File(label="zip")],
        "Learns a dictionary of concepts from your pictures, where the server allows it. Inputs: pictures (a zip file) or, on a server of your own, folder (a path there), prompt "
        "(asked of each), model (a name from /models), layer (empty for the one that suits the model), where (which states: patches, answer, end, last, image, or a word of the "
        f"answer), n (concepts, at most {MAX_LEARNED}), method (k-means, semi-nmf or pca), max_new_tokens. {LIMITS} Returns learned: dictionary (its name, for /concepts and "
        "/concept_shift on this server, for a while), model, method, layer, where, objective, seed, states, fit (fvu: the share of the variance left unexplained, fvu_zero: of "
        "the size, mean included, used: concepts a state has), overlap, and concepts (each with words, opposite, size, stability, examples); and a zip of what Concepts.load reads.",
        optional="pictures",
        queue="learn",
    )
