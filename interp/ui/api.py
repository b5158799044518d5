"""The public endpoints: named, typed, documented, and not streaming. The page has listeners of its own over the same `Service`."""

import json
import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from ..errors import InterpError
from ..lens.logit_lens import Lens
from ..saes.features import Features
from ..service.service import Service
from ..service.steer_service import SteerService
from ..steering.edits import UNITS
from ..steering.results import SteeringResult
from ..steering.steer import STRENGTHS
from ..web.payloads.lens import lens_payload
from ..web.standalone import standalone_html
from .components.inputs import Edits, Numbers, Picture, Where, reported


def write_html(lens: Lens) -> str:
    """The standalone view as a file in gradio's cache, which gradio cleans up."""
    return _write("logit-lens", lens.trace.model_name, "html", standalone_html(lens_payload(lens)))


def write_json(lens: Lens) -> str:
    """Everything as a file in gradio's cache."""
    return _write("logit-lens", lens.trace.model_name, "json", json.dumps(lens.to_dict(), ensure_ascii=False, allow_nan=False))


def write_features_json(found: Features) -> str:
    """Everything as a file in gradio's cache."""
    text = json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False)
    return _write("sae-features", found.encoding.trace.model_name, "json", text)


def write_features_csv(found: Features) -> str:
    """The table as a file in gradio's cache."""
    return _write("sae-features", found.encoding.trace.model_name, "csv", found.to_csv())


def write_steering_json(steered: SteeringResult) -> str:
    """Everything as a file in gradio's cache."""
    return _write("steering", steered.model_name, "json", json.dumps(steered.to_dict(), ensure_ascii=False, allow_nan=False))


def _write(what: str, model: str, kind: str, text: str) -> str:
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in model)[-60:]
    file = Path(get_upload_folder()) / secrets.token_hex(8) / f"{what}-{name}.{kind}"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return str(file)


def lens_summary(lens: Lens) -> dict[str, Any]:
    """The short answer of `/logit_lens`."""
    trace = lens.trace
    layer = trace.vlm.default_layer
    return {
        "model": trace.model_name,
        "answer": trace.answer,
        "finished": trace.finished,
        "notes": list(trace.notes),
        "layers": list(lens.layers),
        "default_layer": layer,
        "grids": [{"name": g.name, "rows": g.rows, "cols": g.cols, "seen": [round(x, 1) for x in g.seen]} for g in trace.grids],
        "regions": [{"name": region.name, "tokens": len(region.positions), "box": list(region.box)} for region in trace.regions],
        "patch_words": [
            [[{"word": word, "probability": float(f"{p:.4g}")} for word, p in row] for row in lens.grid(layer, g)]
            for g in range(len(trace.grids))
        ],
    }


def add_endpoints(service: Service, steering: SteerService) -> None:
    """Put the endpoints into the current gr.Blocks."""

    def models() -> list[dict[str, Any]]:
        """The models that are known by name.

        Returns a list with, for each: name, checkpoint, layers, default_layer, saes, loaded (in memory now), fits (this machine's free memory),
        memory_gb (needed here; memory_4bit_gb and memory_16bit_gb on a GPU), licence, gated (must be accepted on the hub first), revision, requires
        (packages beside requirements.txt), proved ("real weights" if its figures were measured on them, "shape" if only random weights of its classes were run), about.
        """
        return service.models()

    gr.api(models, api_name="models")  # type: ignore[attr-defined]  # public, but not marked so

    @reported
    def logit_lens(
        image: str | None, prompt: str, model: str | None, top_k: float, max_new_tokens: float, layers: str
    ) -> tuple[dict[str, Any], str, str]:
        lens = service.lens(image, prompt, model, top_k=top_k, max_new_tokens=max_new_tokens, layers=layers)
        return lens_summary(lens), write_html(lens), write_json(lens)

    @reported
    def sae_features(
        image: str | None, prompt: str, model: str | None, sae: str | None, where: Any, rank_by: str, top_k: float, max_new_tokens: float
    ) -> dict[str, Any]:
        trace = service.trace(image, prompt, model, max_new_tokens=max_new_tokens)
        return service.features(trace, sae, where=where, rank_by=rank_by, top_k=top_k).to_dict()

    @reported
    def steer(
        image: str | None,
        prompt: str,
        model: str | None,
        sae: str,
        edits: Any,
        max_new_tokens: float,
        temperature: float,
        seed: float,
        words: str,
    ) -> dict[str, Any]:
        made = steering.edits(edits, model, sae)
        return steering.steer(
            image, prompt, model, made, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, words=words
        ).to_dict()

    @reported
    def steer_sweep(
        image: str | None,
        prompt: str,
        model: str | None,
        sae: str,
        feature: float,
        where: Any,
        strengths: Any,
        max_new_tokens: float,
        unit: str,
        temperature: float,
        seed: float,
    ) -> list[dict[str, Any]]:
        if unit not in UNITS:
            raise InterpError(f"unit is {unit!r}; it must be one of {', '.join(UNITS)}.")
        (edit,) = steering.edits([{"feature": feature, unit: 0, "where": where}], model, sae)
        sweep = steering.sweep(image, prompt, model, edit, strengths, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        return sweep.to_list()

    with gr.Group(visible=False):
        image = Picture(label="image", type="filepath")
        prompt = gr.Textbox("Describe the image.", label="prompt")
        model = gr.Textbox(service.default_model, label="model")
        top_k = gr.Number(5, label="top_k")
        max_new_tokens = gr.Number(32, label="max_new_tokens")
        layers = gr.Textbox("auto", label="layers")
        summary = gr.JSON(label="summary")
        html_file = gr.File(label="html")
        json_file = gr.File(label="json")
        gr.Button().click(
            logit_lens,
            [image, prompt, model, top_k, max_new_tokens, layers],
            [summary, html_file, json_file],
            api_name="logit_lens",
            api_description=(
                "Logit lens of a picture and a prompt: the words that the model's own head reads from every layer at every position. "
                "Inputs: image (a picture file), prompt, model (a name from /models), top_k (readings per layer and position, 1 to 50), "
                'max_new_tokens (length of the answer, 1 to 256), layers ("auto": as many as can be read quickly, "all"). Returns a '
                "summary (model, answer, layers with -1 for the embedding, grids, regions, and "
                "patch_words: for each grid its rows of patches with the most probable word at default_layer), a standalone interactive HTML file, "
                "and a JSON file with everything (ids, probabilities and entropy of these layers at all positions)."
            ),
            concurrency_id="model",
            concurrency_limit=1,
        )
        sae = gr.Textbox("", label="sae")
        where = Where("image", label="where")
        rank_by = gr.Textbox("mean", label="rank_by")
        features_k = gr.Number(10, label="top_k")
        found = gr.JSON(label="found")
        gr.Button().click(
            sae_features,
            [image, prompt, model, sae, where, rank_by, features_k, max_new_tokens],
            found,
            api_name="sae_features",
            api_description=(
                "The sparse-autoencoder features that a picture and a prompt light up. Inputs: image (a picture file), prompt, model (a name from "
                '/models), sae (one of that model\'s, empty for the first), where ("image", "prompt", "answer", "all", or an object: '
                '{"patches": [[row, column], …]}, {"box": [top, left, bottom, right]}, each with an optional "grid", or {"positions": [i, …]}), '
                'rank_by ("mean", "max" or "frequency" over these tokens), top_k (1 to 200), max_new_tokens (1 to 256). Returns features (feature, '
                "label, label_source, score, mean, max, frequency, density, dense, top_tokens, bottom_tokens, link, map: for each grid its rows of "
                "patches, activations: by position for all other tokens), quality (for image and text: explained_variance, l0, active_share, the SAE's "
                "own figures in trained, and a verdict where the fit is poor), left_out (positions that are not ranked: BOS and sinks), and tokens."
            ),
            concurrency_id="model",
            concurrency_limit=1,
        )
        edits = Edits(label="edits")
        temperature = gr.Number(0, label="temperature")
        seed = gr.Number(0, label="seed")
        words = gr.Textbox("", label="words")
        steered = gr.JSON(label="steered")
        gr.Button().click(
            steer,
            [image, prompt, model, sae, edits, max_new_tokens, temperature, seed, words],
            steered,
            api_name="steer",
            api_description=(
                "The answer with features turned up or down, beside the plain one. Inputs: image (a picture file), prompt, model (a name from "
                "/models), sae (one of that model's, empty for the first), edits (a list; each has feature, exactly one of strength, amount and "
                "target, and where). strength adds that fraction of the layer's median residual norm along the feature's direction; amount adds "
                "that much activation; target sets the activation, 0 switches the feature off. where is "
                '"all", "image", "prompt", "answer", or an object as for /sae_features; default "all". An edit may name its own sae. '
                "max_new_tokens (1 to 256), temperature (0: greedy; else both answers share the noise of each step), seed, words (to watch, with "
                "commas between them). Returns plain, steered, diff, tokens (of the plain answer), kl (KL(plain || steered) in nats at each of "
                "these tokens, both reading the plain answer), words (probability plain and steered at each token), edits (with fired, the number "
                "of positions changed, and the mean change in absolute and relative size), and notes."
            ),
            concurrency_id="model",
            concurrency_limit=1,
        )
        feature = gr.Number(label="feature", precision=0)
        everywhere = Where("all", label="where")
        strengths = Numbers(list(STRENGTHS), label="strengths")
        unit = gr.Textbox("strength", label="unit")
        sweep = gr.JSON(label="sweep")
        gr.Button().click(
            steer_sweep,
            [image, prompt, model, sae, feature, everywhere, strengths, max_new_tokens, unit, temperature, seed],
            sweep,
            api_name="steer_sweep",
            api_description=(
                "One feature at several strengths, each with its answer, in one batch. Inputs as for /steer, with feature, where, strengths (a list "
                'of up to 16 numbers) and unit (what the numbers are: "strength", "amount" or "target"). Returns a list of {strength (or the '
                "unit asked for), answer, kl (mean KL(plain || steered) in nats over the plain answer), relative (mean |change| / |residual|)}."
            ),
            concurrency_id="model",
            concurrency_limit=1,
        )
