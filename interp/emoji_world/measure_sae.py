"""Densities, metrics and the model card of an embedded model's SAE, all on scenes that training never used. Called by `train_sae`.

A feature is judged as a detector of the noun on the patch it fires on. Whatever is chosen (the best feature of a noun, the label of a feature) is
chosen on one set of scenes and scored on another.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import interp

from ..saes.labels.labels import UNNAMED, Label, write_labels
from ..saes.sae import Sae
from .name_features import METHOD, NAMED, NAMED_STRONG, ODDS, SUPPORT, TOO_RARE, named
from .unseen import Split, auroc, average_precision, collect, dense
from .words import COLORS

GOOD = 0.95  # AUROC of a detector worth the name


def fit(sae: Sae, states: torch.Tensor) -> dict[str, float]:
    """Explained variance and L0."""
    acts = sae.encode(states)
    error = (states - sae.decode(acts)).pow(2).sum()
    return {
        "explained_variance": round(1 - (error / (states - states.mean(0)).pow(2).sum()).item(), 4),
        "l0": round(len(acts.features) / len(states), 2),
    }


def detectors(choose: torch.Tensor, score: torch.Tensor, chosen_on: torch.Tensor, scored_on: torch.Tensor) -> list[dict[str, Any]]:
    """For each class the score that detects it best on one set, and how well it does on the other. Scores [N, F], classes [C, N]."""
    best = auroc(choose, chosen_on).argmax(1)
    rows = []
    for c, f in enumerate(best.tolist()):
        column = score[:, f]
        area = auroc(column[:, None], scored_on[c : c + 1])[0, 0].item()
        rows.append({"index": f, "auroc": area, "average precision": average_precision(column, scored_on[c])})
    return rows


def noun_table(vlm: interp.Vlm, sae: Sae, choose: Split, score: Split) -> tuple[list[str], dict[str, list[dict[str, Any]]]]:
    """The nouns that occur in both sets, and the best detector of each on object patches, among the SAE's features and among each baseline."""
    classes = [split.nouns for split in (choose, score)]
    shown = torch.stack([truth.any(1) for truth in classes]).all(0)
    names = [name for name, both in zip(score.names, shown.tolist(), strict=True) if both]
    things = [truth.any(0) for truth in classes]
    chosen_on, scored_on = (truth[shown][:, thing] for truth, thing in zip(classes, things, strict=True))
    states = [split.image[thing] for split, thing in zip((choose, score), things, strict=True)]
    neurons = [split.neurons[thing] for split, thing in zip((choose, score), things, strict=True)]
    random = torch.nn.functional.normalize(torch.randn(sae.d_in, sae.d_sae, generator=torch.Generator().manual_seed(0)), dim=0)
    # The first of its tokens, where a noun has several.
    ids = torch.tensor([found[0] for found in vlm.tokenizer([f" {noun}" for noun in names], add_special_tokens=False).input_ids])
    with torch.inference_mode():
        candidates = {
            "SAE feature": [dense(sae, x) for x in states],
            "random direction": [x @ random for x in states],
            # A neuron may mean something when it is high or when it is low.
            "MLP neuron": [torch.cat([x, -x], dim=1) for x in neurons],
        }
        table = {name: detectors(first, second, chosen_on, scored_on) for name, (first, second) in candidates.items()}
        logits = vlm.unembed.some_logits(states[1], ids)
    own = auroc(logits, scored_on).diagonal()
    table["unembedding row"] = [
        {"index": int(ids[c]), "auroc": own[c].item(), "average precision": average_precision(logits[:, c], scored_on[c])}
        for c in range(len(ids))
    ]
    return names, table


CARD = """---
license: apache-2.0
library_name: saelens
---

# SAE of {model}

{features} features of the residual stream after decoder block {layer} of [{model}](../{model}/README.md), trained by sae-lens as BatchTopK
({k} active features per token on average) and saved as JumpReLU, on {tokens:,} training samples, in passes over a pool
of about {pool} tokens: {parts}, special tokens left out.
Rebuilt by `python -m interp.emoji_world.train_sae --model {model}`, which also writes this page. {chosen}

All figures below are from scenes of seen vendors that training never used, undistorted: {patches:,} patches.

## Fit

| tokens | explained variance | active features per token |
|---|---|---|
{fits}

Dead features (never active on the {reference:,} tokens of this set): {dead:.1%}. Active on more than half of them: {always}.

## Nouns

Each detector separates the object patches of one noun ({base:.1%} on average) from those of all other nouns; there are {things:,} patches at least
half covered by an emoji, of {shown} of the {every} nouns. It is chosen on one set of scenes (best AUROC) and scored on another; the unembedding row (the logit
lens at this layer) is the noun's own. The baselines are {directions} random directions, and all {neurons} MLP neurons of the block in both signs.

| detector | nouns with AUROC of at least {good} | median AUROC | worst | median average precision | worst |
|---|---|---|---|---|---|
{summary}

{verdict}

## Labels

A feature is named by the most specific class of tokens that holds at least {least:.0%} of its activation, at {odds:g} times the odds of chance: one noun,
colour, row, column or word of the text; else one that holds {least_strong:.0%} of its strong activation (at least half its highest); else two or three of
these together; else a coarse class. Classes are chosen on one set of scenes and must hold on
another; that share is given beside each name. Of {features} features, {named} are named:

| named after | features | median share of the activation | lowest |
|---|---|---|---|
{kinds}

The {nouns} that are named after one noun cover {different} of the {every} nouns. Of the {unnamed} unnamed ones, {rare} fire on fewer than {support} tokens of a set.

## Every noun

| noun | SAE feature | AUROC | average precision | random direction | MLP neuron | unembedding row | its average precision |
|---|---|---|---|---|---|---|---|
{table}

## Licence

Apache-2.0.
"""


def card(
    sae: Sae,
    fits: Mapping[str, Mapping[str, float]],
    density: torch.Tensor,
    table: Mapping[str, list[dict[str, Any]]],
    labels: Mapping[int, Label],
    nouns: Sequence[str],
    about: Mapping[str, Any],
) -> str:
    """The model card, front matter included."""
    summary, median = [], {}
    for name, rows in table.items():
        areas, precisions = (torch.tensor([row[key] for row in rows]) for key in ("auroc", "average precision"))
        good = int((areas >= GOOD).sum())
        median[name] = (good, areas.median().item(), precisions.median().item())
        summary.append(
            f"| {name} | {good} of {len(nouns)} | {areas.median():.3f} | {areas.min():.3f} | {precisions.median():.3f} | {precisions.min():.3f} |"
        )
    ours = median["SAE feature"]
    compared = []
    for name in ("random direction", "MLP neuron", "unembedding row"):
        by_area, by_precision = (
            "beats" if ours[i] > median[name][i] + 5e-4 else "equals" if abs(ours[i] - median[name][i]) <= 5e-4 else "loses to"
            for i in (1, 2)
        )
        compared.append(f"{by_area} the {name} by median AUROC and {by_precision} it by median average precision")
    measured = [label for label in labels.values() if label.text != UNNAMED]
    every = zip(nouns, *(table[name] for name in ("SAE feature", "random direction", "MLP neuron", "unembedding row")), strict=True)
    return CARD.format(
        features=sae.d_sae,
        layer=sae.layer,
        fits="\n".join(f"| {kind} | {fits[kind]['explained_variance']:.3f} | {fits[kind]['l0']:.1f} |" for kind in fits if kind != "text"),
        dead=(density == 0).float().mean().item(),
        always=int((density > 0.5).sum()),
        good=GOOD,
        shown=len(nouns),
        summary="\n".join(summary),
        verdict=f"The SAE feature {', '.join(compared[:-1])}, and {compared[-1]}.",
        least=NAMED,
        least_strong=NAMED_STRONG,
        odds=ODDS,
        support=SUPPORT,
        named=len(measured),
        unnamed=len(labels) - len(measured),
        rare=sum(label == TOO_RARE for label in labels.values()),
        kinds="\n".join(_kinds(measured, set(nouns))),
        nouns=sum(label.text in nouns for label in measured),
        different=len({label.text for label in measured} & set(nouns)),
        table="\n".join(
            f"| {noun} | {ours['index']} | {ours['auroc']:.3f} | {ours['average precision']:.2f} | {rand['auroc']:.3f} | {neuron['auroc']:.3f} | "
            f"{row['auroc']:.3f} | {row['average precision']:.2f} |"
            for noun, ours, rand, neuron, row in every
        ),
        **about,
    )


def _kinds(labels: Sequence[Label], nouns: set[str]) -> Iterator[str]:
    """Rows of the card's table of names."""
    kinds: dict[str, list[float]] = {}
    for label in labels:
        assert label.score is not None
        kinds.setdefault(_kind(label.text, nouns), []).append(label.score)
    for kind, scores in sorted(kinds.items(), key=lambda item: -len(item[1])):
        yield f"| {kind} | {len(scores)} | {torch.tensor(scores).median():.0%} | {min(scores):.0%} |"


def _kind(name: str, nouns: set[str]) -> str:
    """The kind of class that a feature is named after."""
    words = set(name.replace(" or ", ", ").split(", "))
    if name.endswith("in text"):
        return "a word of prompts or answers" if name.count("“") == 1 else "two or three words of prompts or answers"
    for kind, known in (("noun", nouns), ("colour", set(COLORS))):
        if words <= known:
            return f"one {kind}" if len(words) == 1 else f"two or three {kind}s"
    return "a row or column" if name.startswith(("row", "column")) else "a coarse class"


def measure(
    vlm: interp.Vlm, finished: Path, target: Path, training: Mapping[str, Any], others: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Label and measure the SAE in `finished`, write the folder that the app loads, and print the figures.

    `training`: what the model card says of it: "k", "tokens", "pool", "parts" and "chosen". `others`: name → states [N, d] of other tokens, on which
    only the fit is measured.
    """
    plain = interp.load_sae(finished)
    choose, score = (collect(vlm, plain.layer, seed) for seed in ("sae test 1", "sae test 2"))
    names, table = noun_table(vlm, plain, choose, score)
    labels = named(vlm, plain, choose, score)
    kinds = {"image": score.image, "prompt": score.text[: score.prompt], "answer": score.text[score.prompt :], "text": score.text}
    fits = {kind: fit(plain, states) for kind, states in {**kinds, **(others or {})}.items()}
    # Each kind counts a third, as in training.
    density = torch.stack([(dense(plain, kinds[kind]) > 0).float().mean(0) for kind in ("image", "prompt", "answer")]).mean(0)
    target.mkdir(parents=True, exist_ok=True)
    if finished.resolve() != target.resolve():
        shutil.copy(finished / "sae_weights.safetensors", target)
    config = json.loads((finished / "cfg.json").read_text(encoding="utf-8"))
    config["device"] = "cpu"
    config["metadata"]["trained"] = {kind: fits[kind] for kind in ("image", "text")}
    (target / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({"sparsity": (density + 1e-10).log10()}, target / "sparsity.safetensors")
    write_labels(target / "labels.json", labels, METHOD)
    things = int(score.nouns.any(0).sum())
    about = {
        "model": vlm.name,
        **training,
        "patches": len(score.image),
        "reference": len(score.image) + len(score.text),
        "things": things,
        "base": 1 / len(score.names),
        "directions": plain.d_sae,
        "neurons": score.neurons.shape[1],
    }
    text = card(plain, fits, density, table, labels, names, {**about, "every": len(score.names)})
    (target / "README.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - this is the command's output
