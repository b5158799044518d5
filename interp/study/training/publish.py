"""The finished SAE as a folder that can be published: in the formats of sae-lens and, where it holds such an SAE, sparsify; figures and a model card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...attribution.filters import module_name
from ...files import write_whole
from ...models import hub
from ...saes.loading import load_sae
from ...saes.train import Plan
from ...saes.write import write_figures, write_sparsify
from .collect import CONVERSATION, IMAGE, PASSAGE

FIGURES = "figures.json"
_UNDEFINED = "undefined"
_CARD = """---
library_name: saelens
tags:
- sparse-autoencoder
- interpretability
{base}---

# A sparse autoencoder for {model}, layer {layer}

{features} features for the residual stream after decoder block {layer} (counted from 0), {architecture} with {active:g} active features {per}. Trained with
sae-lens on {tokens:,} states at a learning rate of {rate:.2e}, from a pool of {rows:,} ({image:,} of pictures, {conversation:,} of prompts and answers, {passage:,} of other text) from
{samples:,} samples of `{data}`. BOS, attention sinks (norm over five times the median of their kind) and special tokens are left out.

| held-out tokens | number | explained variance | L0 | features never active |
|---|---|---|---|---|
{kinds}

Of all features, {dead} are active on none of these tokens. Explained variance is 1 - sum|x - x_hat|² / sum|x - mean x|².

| cross-entropy of the model's own answers ({words:,} tokens of {held_out:,} held-out samples) | nats a token |
|---|---|
| as the model is | {plain} |
| with the SAE's reconstruction after block {layer} | {sae} |
| with zeros there | {zero} |
| **loss recovered** | {recovered} |

## Use

```python
import interp

sae = interp.load_sae("{place}")
```

{formats}
"""


def assemble(finished: Path, folder: Path, plan: Plan, figures: Mapping[str, Any], density: torch.Tensor, about: Mapping[str, Any]) -> None:
    """Write the folder, unless it is there. `about`: "model", "checkpoint", "data", "pool" (rows of each kind), "samples" and "held_out"."""
    if folder.is_dir():
        return
    sae, unfinished = load_sae(finished, dtype="float32"), folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    place = unfinished / hook_of(sae.layer)
    shutil.copytree(finished, place)
    trained = {
        kind: {key: figures[kind][key] for key in ("explained_variance", "l0") if figures[kind][key] is not None}
        for kind in ("image", "text")
    }
    folders, formats = [place], f"`{place.name}` is in the format of sae-lens"
    if sae.k is not None:
        folders.append(unfinished / module_name(sae))
        write_sparsify(sae, folders[-1])
        formats += f", `{folders[-1].name}` the same SAE in that of sparsify."
    else:
        formats += "; sparsify's format has no thresholds, so it cannot hold this one."
    for each in folders:
        write_figures(each, trained, density)
    told = {"schema": "llava-microscope/study-sae/1", **figures, **about}
    write_whole(unfinished / FIGURES, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    write_whole(unfinished / "README.md", _card(plan, sae.layer, figures, about, place.name, formats))
    unfinished.replace(folder)


def hook_of(layer: int) -> str:
    """What sae-lens calls the states after a decoder block."""
    return f"blocks.{layer}.hook_resid_post"


def _card(plan: Plan, layer: int, figures: Mapping[str, Any], about: Mapping[str, Any], place: str, formats: str) -> str:
    loss = figures["loss"]
    rows = [
        f"| {kind} | {each['tokens']:,} | {_of(each['explained_variance'])} | {_of(each['l0'], 1)} | {_percent(each['dead'])} |"
        for kind, each in ((kind, figures[kind]) for kind in ("image", "text"))
    ]
    pool = about["pool"]
    return _CARD.format(
        base=f"base_model: {about['checkpoint']}\n" if hub.is_repo(about["checkpoint"]) else "",
        model=about["model"],
        layer=layer,
        features=plan.features,
        architecture={"topk": "TopK", "batchtopk": "BatchTopK (saved as JumpReLU)", "jumprelu": "JumpReLU"}[plan.architecture],
        active=plan.active,
        per="per token" if plan.architecture == "topk" else "per token on average",
        tokens=plan.steps * plan.batch,
        rate=plan.used_rate,
        rows=sum(pool),
        image=pool[IMAGE],
        conversation=pool[CONVERSATION],
        passage=pool[PASSAGE],
        samples=about["samples"],
        held_out=about["held_out"],
        data=about["data"],
        kinds="\n".join(rows),
        dead=_percent(figures["dead"]),
        words=loss["tokens"],
        **{name: _of(loss[name], 4) for name in ("plain", "sae", "zero")},
        recovered=_percent(loss["recovered"]),
        place=f"FOLDER/{place}",
        formats=formats,
    )


def _of(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.1%}"
