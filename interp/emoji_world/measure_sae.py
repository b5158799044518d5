"""Labels, densities and figures of the SAE of `emoji-llava`, all on scenes that training never drew. Called by `train_sae`.

A feature is judged as a detector: of the noun, colour, row or column of the patch it fires on, or of the word it fires on in a prompt or an
answer. What is chosen (the best feature of a noun, the label of a feature) is chosen on one set of scenes and scored on another.
"""

import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tqdm import tqdm

import interp

from ..lens.directions import listed, promoted_words
from ..saes.labels.labels import Label, write_labels
from ..saes.sae import Sae
from .activations import Residuals, batches, studio
from .architecture import CELLS
from .words import COLORS, NOUNS, WORDS

N_NOUNS = len(NOUNS)
BATCHES = 25  # of 48 scenes, for each of the two sets
GOOD = 0.95  # AUROC of a detector worth the name
NAMED = 0.5  # share of a feature's activation that must lie on what it is called by
METHOD = (
    f"named by the noun, colour, row, column or token on which at least {NAMED:.0%} of its activation lies on unseen scenes, else by the words that "
    "its direction promotes"
)
TOUCHED = 0.1  # of a patch, from which a word counts as there: features fire on borders too
RARE = 20  # a word that occurs less often in a set is no class


@dataclass(frozen=True)
class Split:
    """One set of scenes: states, and what is there."""

    image: torch.Tensor
    """[patches, d]"""
    neurons: torch.Tensor
    """MLP neurons of the same block on the same patches: [patches, neurons]."""
    text: torch.Tensor
    """[tokens, d], prompt and answer."""
    prompt: int
    """How many of the text tokens are the prompt's."""
    words: torch.Tensor
    """Token ids of the text: [tokens]."""
    shares: dict[str, torch.Tensor]
    """Word or place → how much of each patch it covers: [patches]."""

    @property
    def nouns(self) -> torch.Tensor:
        """Which patches each noun covers at least half of: bool [nouns, patches]."""
        return torch.stack([self.shares[noun] for noun, _ in NOUNS]) >= 0.5


def average_precision(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """Area under precision over recall, ties (such as all the zeros of a sparse feature) as one step."""
    order = scores.argsort(descending=True)
    hits = positive[order].float().cumsum(0)
    ends = torch.cat([scores[order].diff() != 0, torch.ones(1, dtype=torch.bool)]).nonzero().flatten()
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float((precision * torch.diff(recall, prepend=torch.zeros(1))).sum())


def auroc(scores: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Area under the ROC curve of every score [N, F] for every class [C, N] (bool): [C, F]. Ties count half."""
    ranks = torch.empty_like(scores)
    for column in range(scores.shape[1]):
        _, index, counts = scores[:, column].unique(return_inverse=True, return_counts=True)
        ends = counts.cumsum(0)
        ranks[:, column] = (ends - (counts + 1) / 2)[index]
    positives = classes.sum(1, keepdim=True).double()
    total = classes.double() @ ranks.double()
    return (total - positives * (positives - 1) / 2) / (positives * (len(scores) - positives)).clamp(min=1)


def collect(vlm: interp.Vlm, layer: int, seed: str) -> Split:
    """One set of scenes of seen vendors, as drawn."""
    desk = studio(vlm.model, vlm.processor, vlm.model.device)
    parts: list[Residuals] = list(tqdm(itertools.islice(batches(desk, [layer], seed, augment=0.0), BATCHES), total=BATCHES, desc=seed))
    shares = torch.cat([part.shares for part in parts]).flatten(0, 1)
    cell = torch.arange(CELLS * CELLS).repeat(len(shares) // CELLS**2)
    covers = {word: shares[:, i] for i, word in enumerate(WORDS)}
    covers |= {f"row {i + 1} of {CELLS}": (cell // CELLS == i).float() for i in range(CELLS)}
    covers |= {f"column {i + 1} of {CELLS}": (cell % CELLS == i).float() for i in range(CELLS)}
    prompt, answer = (torch.cat([getattr(part, kind)[0] for part in parts]) for kind in ("prompt", "answer"))
    return Split(
        image=torch.cat([part.image[0] for part in parts]).flatten(0, 1),
        neurons=torch.cat([part.neurons for part in parts]).flatten(0, 1),
        text=torch.cat([prompt, answer]),
        prompt=len(prompt),
        words=torch.cat([part.prompt_ids for part in parts] + [part.answer_ids for part in parts]),
        shares=covers,
    )


def dense(sae: Sae, states: torch.Tensor) -> torch.Tensor:
    """Activations of every feature: [tokens, features]. The dictionary is small enough here."""
    acts = sae.encode(states)
    out = torch.zeros(len(states), sae.d_sae)
    out[acts.tokens, acts.features.long()] = acts.values
    return out


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


def noun_table(vlm: interp.Vlm, sae: Sae, choose: Split, score: Split) -> dict[str, list[dict[str, Any]]]:
    """Every noun's detector on object patches, among the SAE's features and among what it has to beat."""
    nouns = [noun for noun, _ in NOUNS]
    classes = [split.nouns for split in (choose, score)]
    things = [truth.any(0) for truth in classes]
    chosen_on, scored_on = (truth[:, thing] for truth, thing in zip(classes, things, strict=True))
    states = [split.image[thing] for split, thing in zip((choose, score), things, strict=True)]
    neurons = [split.neurons[thing] for split, thing in zip((choose, score), things, strict=True)]
    random = torch.nn.functional.normalize(torch.randn(sae.d_in, sae.d_sae, generator=torch.Generator().manual_seed(0)), dim=0)
    ids = torch.tensor([vlm.vocabulary.resolve(noun, vlm.tokenizer)[f" {noun}"] for noun in nouns])
    with torch.inference_mode():
        candidates = {
            "SAE feature": [dense(sae, x) for x in states],
            "random direction": [x @ random for x in states],
            # A neuron may mean something by being high or by being low.
            "MLP neuron": [torch.cat([x, -x], dim=1) for x in neurons],
        }
        table = {name: detectors(first, second, chosen_on, scored_on) for name, (first, second) in candidates.items()}
        logits = vlm.unembed.some_logits(states[1], ids)
    own = auroc(logits, scored_on).diagonal()
    table["unembedding row"] = [
        {"index": int(ids[c]), "auroc": own[c].item(), "average precision": average_precision(logits[:, c], scored_on[c])}
        for c in range(len(nouns))
    ]
    return table


def named(vlm: interp.Vlm, sae: Sae, choose: Split, score: Split) -> dict[int, Label]:
    """A label for every feature: the class that holds most of its activation, chosen on one set and scored on the other, else words.

    Where a feature's activation lies mostly on patches, its classes are the words that cover at least a tenth of a patch, and the patch's place;
    else the words of prompts and answers that it stands on. Classes compete by how much likelier than chance they are.
    """
    texts = vlm.vocabulary.texts
    labels = {f: Label(listed(up[:3]), "the words it promotes", None) for f, (up, _) in enumerate(promoted_words(vlm, sae.W_dec))}
    frequent = [i for i in choose.words.unique().tolist() if min((s.words == i).sum() for s in (choose, score)) >= RARE]
    patches = ([*choose.shares], [(torch.stack([*split.shares.values()]) >= TOUCHED).float() for split in (choose, score)], "image")
    tokens = (
        [f"“{listed([texts[i]])}” in text" for i in frequent],
        [torch.stack([split.words == i for i in frequent]).float() for split in (choose, score)],
        "text",
    )
    activations = {kind: [dense(sae, getattr(split, kind)) for split in (choose, score)] for kind in ("image", "text")}
    mean = {kind: both[0].mean(0) for kind, both in activations.items()}
    for names, classes, kind in (patches, tokens):
        mass, base = [truth @ z / z.sum(0).clamp(min=1e-9) for truth, z in zip(classes, activations[kind], strict=True)], classes[0].mean(1)
        held, likelier = mass[0], mass[0] / base[:, None]
        best = likelier.masked_fill(held < NAMED, 0).max(0)
        here = mean[kind] >= mean["text" if kind == "image" else "image"]
        for f in (here & (best.values > 1)).nonzero().flatten().tolist():
            c = int(best.indices[f])
            share = mass[1][c, f].item()
            if share >= NAMED:
                area = auroc(activations[kind][1][:, f : f + 1], classes[1][c : c + 1] >= 0.5)[0, 0].item()
                what = "patches" if kind == "image" else "tokens"
                labels[f] = Label(names[c], f"{share:.0%} of its activation on unseen {what} lies there; AUROC {area:.3f}", round(share, 4))
    return labels


CARD = """---
license: apache-2.0
library_name: saelens
---

# SAE of emoji-llava

{features} features of the residual stream after decoder block {layer} of [emoji-llava](../emoji-llava/README.md), trained by sae-lens as BatchTopK
({k} active features per token on average) and saved as JumpReLU, on {tokens:,} training samples, in passes over a pool
of about 600 000 tokens: image, prompt and answer in equal parts, BOS left out.
Rebuilt by `python -m interp.emoji_world.train_sae`, which also writes this page. {chosen}

Everything below is of scenes of seen vendors that training never drew, undistorted: {patches:,} patches.

## Fit

| tokens | explained variance | active features per token |
|---|---|---|
{fits}

Dead features (never active on the {reference:,} tokens of this set): {dead:.1%}. Fire on more than half of them: {always}.

## Nouns

Told apart are the {things:,} object patches, which some emoji covers at least half: those of the noun ({base:.1%} of them, on average) from those
of the 119 others. Each detector is chosen on one set of scenes (best AUROC) and scored on another; the unembedding row (the logit
lens at this layer) is given by the noun itself. {directions} random directions, and all {neurons} MLP neurons of the block in both signs.

| detector | nouns with AUROC of at least {good} | median AUROC | worst | median average precision | worst |
|---|---|---|---|---|---|
{summary}

{verdict}

## Labels

Each feature is {method}. The class is chosen on one set of scenes and its share scored on another. Of {features} features, {named} are named by
such a share ({nouns} by one of {different} nouns, {colors} by a colour, {places} by a place, {words} by a token of prompts or answers), the rest by
words.

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
    about: Mapping[str, Any],
) -> str:
    """The model card, front matter included."""
    summary, median = [], {}
    for name, rows in table.items():
        areas, precisions = (torch.tensor([row[key] for row in rows]) for key in ("auroc", "average precision"))
        good = int((areas >= GOOD).sum())
        median[name] = (good, areas.median().item(), precisions.median().item())
        summary.append(
            f"| {name} | {good} of {N_NOUNS} | {areas.median():.3f} | {areas.min():.3f} | {precisions.median():.3f} | {precisions.min():.3f} |"
        )
    ours = median["SAE feature"]
    compared = []
    for name in ("random direction", "MLP neuron", "unembedding row"):
        by_area, by_precision = (
            "beats" if ours[i] > median[name][i] + 5e-4 else "equals" if abs(ours[i] - median[name][i]) <= 5e-4 else "loses to"
            for i in (1, 2)
        )
        compared.append(f"the best {name} by median AUROC: it {by_area} it; by median average precision: it {by_precision} it")
    measured = [label for label in labels.values() if label.score is not None]
    every = zip(NOUNS, *(table[name] for name in ("SAE feature", "random direction", "MLP neuron", "unembedding row")), strict=True)
    return CARD.format(
        features=sae.d_sae,
        layer=sae.layer,
        fits="\n".join(
            f"| {kind} | {fits[kind]['explained_variance']:.3f} | {fits[kind]['l0']:.1f} |" for kind in ("image", "prompt", "answer")
        ),
        dead=(density == 0).float().mean().item(),
        always=int((density > 0.5).sum()),
        good=GOOD,
        summary="\n".join(summary),
        verdict="Against " + "; against ".join(compared) + ".",
        method=METHOD,
        named=sum(label.score is not None for label in labels.values()),
        nouns=sum(label.text in dict(NOUNS) for label in measured),
        different=len({label.text for label in measured} & set(dict(NOUNS))),
        colors=sum(label.text in COLORS for label in measured),
        places=sum(label.text.startswith(("row", "column")) for label in measured),
        words=sum(label.text.endswith("in text") for label in measured),
        table="\n".join(
            f"| {noun} | {ours['index']} | {ours['auroc']:.3f} | {ours['average precision']:.2f} | {rand['auroc']:.3f} | {neuron['auroc']:.3f} | "
            f"{row['auroc']:.3f} | {row['average precision']:.2f} |"
            for (noun, _), ours, rand, neuron, row in every
        ),
        **about,
    )


def measure(vlm: interp.Vlm, finished: Path, target: Path, training: Mapping[str, Any]) -> None:
    """Label and measure the SAE in `finished`, write the folder that the app loads, and print the figures.

    `training`: "k", "tokens", and in "chosen" a sentence on how layer and kind were chosen, for the model card.
    """
    plain = interp.load_sae(finished)
    choose, score = (collect(vlm, plain.layer, seed) for seed in ("sae test 1", "sae test 2"))
    table = noun_table(vlm, plain, choose, score)
    labels = named(vlm, plain, choose, score)
    kinds = {"image": score.image, "prompt": score.text[: score.prompt], "answer": score.text[score.prompt :], "text": score.text}
    fits = {kind: fit(plain, states) for kind, states in kinds.items()}
    # Each kind counts a third, as in training.
    density = torch.stack([(dense(plain, kinds[kind]) > 0).float().mean(0) for kind in ("image", "prompt", "answer")]).mean(0)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(finished / "sae_weights.safetensors", target)
    config = json.loads((finished / "cfg.json").read_text(encoding="utf-8"))
    config["device"] = "cpu"
    config["metadata"]["trained"] = {kind: fits[kind] for kind in ("image", "text")}
    (target / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file({"sparsity": (density + 1e-10).log10()}, target / "sparsity.safetensors")
    write_labels(target / "labels.json", labels, METHOD)
    things = int(score.nouns.any(0).sum())
    about = {
        "k": training["k"],
        "tokens": training["tokens"],
        "chosen": training["chosen"],
        "patches": len(score.image),
        "reference": len(score.image) + len(score.text),
        "things": things,
        "base": 1 / N_NOUNS,
        "directions": plain.d_sae,
        "neurons": score.neurons.shape[1],
    }
    text = card(plain, fits, density, table, labels, about)
    (target / "README.md").write_text(text, encoding="utf-8")
    print(text)  # noqa: T201 - this is the command's output
