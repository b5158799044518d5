"""`/logit_lens`."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from ...lens.contextual import ContextualLens
from ...lens.lens import Lens
from ...service.requests import MAX_NEW_TOKENS, MAX_TOP_K, LensRequest
from ...service.service import Service
from ...web.payloads.lens import opening_layer
from ...web.payloads.lens_texts import NAMES
from ..components.inputs import Text, Whole
from ..files import write_html, write_json
from .endpoint import publish, question


def logit_lens(service: Service) -> None:
    """Add `/logit_lens` to the current gr.Blocks."""

    def answer(values: Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
        lens = service.lens(LensRequest.of(values))
        return summary(lens), write_html(lens), write_json(lens)

    publish(
        "logit_lens",
        answer,
        [
            *question(service),
            Whole(5, label="top_k"),
            Whole(32, label="max_new_tokens"),
            Text("auto", label="layers"),
            Text("logit", label="method"),
        ],
        [gr.JSON(label="summary"), gr.File(label="html"), gr.File(label="json")],
        "A lens on a picture and a prompt: the words that are read from every layer at every position. "
        f"Inputs: image (a picture file), prompt, model (a name from /models), top_k (words per layer and position, 1 to {MAX_TOP_K}), "
        f'max_new_tokens (maximum length of the answer, 1 to {MAX_NEW_TOKENS}), layers ("all", or "auto" for as many as can be read quickly), '
        f"method (one of {', '.join(NAMES)}, of which every model has logit and embedding; logit and tuned read which token comes next, the others "
        "which one stands at a position). "
        "Returns a summary (model, method, reads, score, answer, layers, where -1 is the embedding, grids, regions, and patch_words: for each grid, "
        "rows of patches with the best word at default_layer, the layer that this lens opens at, and its probability or, for embedding and contextual, "
        "its similarity; for contextual also the context in which the word was found), a standalone interactive HTML file, and a JSON file with "
        "everything (ids, scores and entropy for these layers at all positions).",
    )


def summary(lens: Lens) -> dict[str, Any]:
    """What the endpoint returns besides the files."""
    trace, layer = lens.trace, opening_layer(lens)
    score = lens.score_name.split()[-1]
    return {
        "model": trace.model_name,
        "method": lens.method,
        "reads": lens.reads,
        "score": lens.score_name,
        "answer": trace.answer,
        "finished": trace.finished,
        "notes": list(trace.notes),
        "layers": list(lens.layers),
        "default_layer": layer,
        "grids": [{"name": g.name, "rows": g.rows, "cols": g.cols, "seen": [round(x, 1) for x in g.seen]} for g in trace.grids],
        "regions": [{"name": region.name, "tokens": len(region.positions), "box": list(region.box)} for region in trace.regions],
        "patch_words": [
            [
                [
                    {"word": word, score: float(f"{p:.4g}"), **_context(lens, layer, at)}
                    for (word, p), at in zip(row, positions, strict=True)
                ]
                for row, positions in zip(lens.grid(layer, g), grid.positions.tolist(), strict=True)
            ]
            for g, grid in enumerate(trace.grids)
        ],
    }


def _context(lens: Lens, layer: int, position: int) -> dict[str, Any]:
    """Where the contextual lens found a patch's word: the sentence, with the word in brackets, and the layer of the text's state."""
    if not isinstance(lens, ContextualLens):
        return {}
    found = lens.context(layer, position)
    return {"context": str(found.context), "context_layer": found.layer}
