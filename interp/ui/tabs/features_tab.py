"""The tab "SAE features": its controls, its view, and what they ask of `Service`. Reads the trace of the last run; runs no model itself."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...errors import InterpError
from ...lens.logit_lens import Lens
from ...saes.features import RANKINGS, Features
from ...service.service import MAX_FEATURES, Service
from ...tracing.select import KINDS
from ...web.payloads.features import feature_payload
from ..api import write_features_csv, write_features_json
from ..components.feature_view import FeatureView
from ..components.inputs import FAILED, QUEUE, address, download_buttons, message, switched

TAB = "SAE features"
_RANK_NAMES = {"mean": "mean activation", "max": "largest activation", "frequency": "share of tokens"}


@dataclass(frozen=True)
class FeaturesTab:
    """What the page needs of this tab."""

    refresh: Any
    """A listener for after a run, with its `inputs` and `outputs`: looks at the new trace if this tab is open."""
    inputs: list[Any]
    outputs: list[Any]
    sae: gr.Dropdown


def features_tab(service: Service, run_key: gr.State, selected: gr.State, controls: dict[str, Any]) -> FeaturesTab:
    """Build the tab. `run_key` names the last run's lens, whose trace this tab looks at; `selected` is the open tab."""
    names = service.saes()
    with gr.Tab(TAB, id="features", elem_id="sae-tab") as tab:
        with gr.Row():
            sae = gr.Dropdown(
                names,
                value=names[0] if names else None,
                label="SAE, or release/id, owner/repository, folder" if service.can_switch else "SAE",
                allow_custom_value=service.can_switch,
                elem_id="sae",
            )
            where = gr.Dropdown([(f"{kind} tokens", kind) for kind in KINDS], value="image", label="Features of", elem_id="where")
            rank_by = gr.Dropdown([(_RANK_NAMES[name], name) for name in RANKINGS], value="mean", label="Ranked by", elem_id="rank-by")
            top_k = gr.Slider(1, MAX_FEATURES, 20, step=1, label="Features in the table", elem_id="sae-top-k")
        told = gr.HTML("", elem_id="sae-message")
        view = FeatureView(server_functions=[service.features_at, service.find_features, service.feature_details])
        found_key = gr.State()
        shown = gr.State()
        downloads = download_buttons(
            [("Download as JSON", "features-json", write_features_json), ("Download as CSV", "features-csv", write_features_csv)],
            lambda key: service.remembered(key, Features),
            found_key,
        )
        with gr.Accordion("Do the same from Python", open=False):
            snippet = gr.Code(language="python", label="gradio_client", interactive=False, show_label=False)
    outputs = [told, view, found_key, shown, snippet, *downloads]
    inputs = [run_key, controls["image"], controls["max_new_tokens"], sae, where, rank_by, top_k, shown]

    def look(
        run: str | None,
        image: str | None,
        max_new_tokens: float,
        sae: str | None,
        where: str,
        rank_by: str,
        top_k: float,
        shown: Any,
        request: gr.Request,
    ) -> Any:
        """Yield what `outputs` become."""
        named = _FeaturesRequest(image, max_new_tokens, request)
        yield from _look(service, named, [run, sae, where, rank_by, top_k], shown, downloads)

    def after_run(
        selected: str,
        run: str | None,
        image: str | None,
        max_new_tokens: float,
        sae: str | None,
        where: str,
        rank_by: str,
        top_k: float,
        shown: Any,
        request: gr.Request,
    ) -> Any:
        """As `look`, but only for a visitor who is looking."""
        if selected == TAB:
            yield from look(run, image, max_new_tokens, sae, where, rank_by, top_k, shown, request)

    def choices(model: str) -> gr.Dropdown:
        known = service.saes(model)
        return gr.Dropdown(known, value=known[0] if known else None)

    quietly = {**QUEUE, "show_progress": "hidden"}
    tab.select(look, inputs, outputs, **quietly)
    for control in (sae, where, rank_by):
        control.input(look, inputs, outputs, **quietly)
    top_k.release(look, inputs, outputs, **quietly)
    controls["model"].change(choices, controls["model"], sae, api_visibility="private", show_progress="hidden")
    return FeaturesTab(after_run, [selected, *inputs], outputs, sae)


@dataclass(frozen=True)
class _FeaturesRequest:
    """What the snippet says of the picture, beside what its trace knows."""

    image: str | None
    max_new_tokens: float
    request: gr.Request


def _look(
    service: Service, picture: _FeaturesRequest, wanted: list[Any], shown: list[Any] | None, buttons: list[gr.Button]
) -> Iterator[tuple[Any, ...]]:
    """Rank what is `wanted` unless it is `shown` already: message, view, key, what is shown now, snippet, download buttons."""
    unchanged = [gr.skip()] * (4 + len(buttons))
    run, sae, where, rank_by, top_k = wanted
    if run is None or wanted == shown:
        yield ("", *unchanged)
        return
    try:
        trace = service.remembered(run, Lens).trace
        if not service.has_sae(sae, trace.model_name):
            yield (message("Loading the SAE; the first one takes some seconds …"), *unchanged)
        found = service.features(trace, sae, where=where, rank_by=rank_by, top_k=top_k)
    except InterpError as error:
        said = message(str(error), error=True)
        if shown and shown[0] == run:  # what is shown is still of this picture: a wrong choice loses nothing
            yield (said, *unchanged)
        else:
            yield (said, None, None, None, "", *switched(buttons, on=False))
        return
    except Exception:
        yield (FAILED, *unchanged)
        raise
    key = service.remember(found)
    code = _snippet(picture, found, sae, where, top_k)
    yield ("", feature_payload(found, run=key), key, wanted, code, *switched(buttons, on=True))


def _snippet(picture: _FeaturesRequest, found: Features, sae: str | None, where: str, top_k: float) -> str:
    """Python lines that get the same result from this server."""
    trace = found.encoding.trace
    return (
        "from gradio_client import Client, handle_file\n\n"
        f"client = Client({address(picture.request)!r})\n"
        "found = client.predict(\n"
        f"    image=handle_file({os.path.basename(picture.image or 'picture.png')!r}),  # your picture\n"  # noqa: PTH119 - a name to show
        f"    prompt={trace.prompt!r},\n"
        f"    model={trace.model_name!r},\n"
        f"    sae={sae or ''!r},\n"
        f"    where={where!r},\n"
        f"    rank_by={found.rank_by!r},\n"
        f"    top_k={int(top_k)},\n"
        f"    max_new_tokens={int(picture.max_new_tokens)},\n"
        '    api_name="/sae_features",\n'
        ")\n"
        'for feature in found["features"]:\n'
        '    print(feature["feature"], feature["label"], feature["score"])\n'
    )
