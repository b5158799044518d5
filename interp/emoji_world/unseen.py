"""Scenes that training never used, to measure the SAE of an embedded model on, and metrics of how well a score detects a class.

Scenes come in two sets: what is chosen on one is scored on the other.
"""

import itertools
from dataclasses import dataclass

import torch
from tqdm import tqdm

import interp

from ..saes.sae import Sae
from .activations import Residuals, batches, studio
from .architecture import CELLS

BATCHES = 25  # of 48 scenes, for each of the two sets


@dataclass(frozen=True)
class Split:
    """One set of scenes: states and ground truth."""

    image: torch.Tensor
    """[patches, d]"""
    neurons: torch.Tensor
    """MLP neurons of the same block on the same patches: [patches, neurons]."""
    text: torch.Tensor
    """[tokens, d], prompt and answer."""
    prompt: int
    """How many of the text tokens belong to prompts; these come first."""
    words: torch.Tensor
    """Token ids of the text: [tokens]."""
    names: tuple[str, ...]
    """The nouns."""
    shares: dict[str, torch.Tensor]
    """Word or place → how much of each patch it covers: [patches]."""

    @property
    def nouns(self) -> torch.Tensor:
        """Which patches each noun covers at least half of: bool [nouns, patches]."""
        return torch.stack([self.shares[noun] for noun in self.names]) >= 0.5


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
    desk = studio(vlm)
    parts: list[Residuals] = list(tqdm(itertools.islice(batches(desk, [layer], seed, augment=0.0), BATCHES), total=BATCHES, desc=seed))
    shares = torch.cat([part.shares for part in parts]).flatten(0, 1)
    cell = torch.arange(CELLS * CELLS).repeat(len(shares) // CELLS**2)
    covers = {word: shares[:, i] for i, word in enumerate(desk.world.words)}
    covers |= {f"row {i + 1} of {CELLS}": (cell // CELLS == i).float() for i in range(CELLS)}
    covers |= {f"column {i + 1} of {CELLS}": (cell % CELLS == i).float() for i in range(CELLS)}
    prompt, answer = (torch.cat([getattr(part, kind)[0] for part in parts]) for kind in ("prompt", "answer"))
    return Split(
        image=torch.cat([part.image[0] for part in parts]).flatten(0, 1),
        neurons=torch.cat([part.neurons for part in parts]).flatten(0, 1),
        text=torch.cat([prompt, answer]),
        prompt=len(prompt),
        words=torch.cat([part.prompt_ids for part in parts] + [part.answer_ids for part in parts]),
        names=desk.world.nouns,
        shares=covers,
    )


def dense(sae: Sae, states: torch.Tensor) -> torch.Tensor:
    """Activations of every feature: [tokens, features]. The dictionary is small enough here."""
    acts = sae.encode(states)
    out = torch.zeros(len(states), sae.d_sae)
    out[acts.tokens, acts.features.long()] = acts.values
    return out
