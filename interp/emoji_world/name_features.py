"""Names for the features of an embedded model's SAE: what each one fires on, in scenes that training never used.

A feature is named by the most specific class of tokens that holds at least half of its activation: one noun, colour, row, column or word; else
one that holds nearly all of its strong activation; else two or three nouns, colours or words; else a coarse class such as the edges of objects.
The class is chosen on one set of scenes and must hold on another, whose share is the label's score. A feature that no class explains is "unnamed".
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

import interp

from ..lens.directions import listed
from ..saes.labels.labels import UNNAMED, Label
from .architecture import CELLS
from .unseen import Split, auroc, dense
from .words import COLORS

NAMED = 0.5  # share of a feature's activation that must lie on what it is named after
STRONG = 0.5  # share of a feature's highest activation on the first set from which an activation is strong
NAMED_STRONG = 0.7  # the same share, of its strong activation
ODDS = 5.0  # how many times the odds of the class itself that share must have: half of all patches hold half of anything
SUPPORT = 5  # tokens of each set that a feature must fire on to be named at all
TOGETHER = 3  # nouns, colours or words that one name may list
EACH = 0.1  # share of the activation that each of these must hold
TOUCHED = 0.1  # share of a patch from which a word counts as present: features fire on borders too
RARE = 20  # a word that occurs less often in a set is not a class
METHOD = (
    f"named after the tokens that hold at least {NAMED:.0%} of a feature's activation on unseen scenes: a noun, colour, row, column or word, two or "
    f"three of them, or a coarse class such as the edges of objects; or after one that holds {NAMED_STRONG:.0%} of its strong activation; else “{UNNAMED}”"
)
NO_CLASS = Label(UNNAMED, f"no class of tokens holds {NAMED:.0%} of its activation on unseen scenes")
TOO_RARE = Label(UNNAMED, f"it fires on fewer than {SUPPORT} tokens of the unseen scenes")

Masks = tuple[torch.Tensor, torch.Tensor]
"""Which tokens of the first and of the second set of scenes belong to each class: two float [classes, tokens]."""


@dataclass(frozen=True)
class Candidates:
    """Classes that compete with each other to name a feature."""

    names: list[str]
    masks: Masks
    together: bool = False
    """Whether two or three of them may form a name together."""
    strong: bool = False
    """Whether only strong activations are looked at."""
    ending: str = ""
    """What follows the names in a label."""


def named(vlm: interp.Vlm, sae: interp.Sae, choose: Split, score: Split) -> dict[int, Label]:
    """A label for every feature; `score` is the share on the second set of scenes, None for unnamed features."""
    firing = {kind: [dense(sae, getattr(split, kind)) for split in (choose, score)] for kind in ("image", "text")}
    means = {kind: acts[0].mean(0) for kind, acts in firing.items()}
    labels = dict.fromkeys(range(sae.d_sae), TOO_RARE)
    for kind, tiers, what in (("image", _patches(choose, score), "patches"), ("text", _tokens(vlm, choose, score), "tokens")):
        acts, other = firing[kind], "text" if kind == "image" else "image"
        often = torch.stack([(z > 0).sum(0) for z in acts]).amin(0) >= SUPPORT
        here = often & ((means[kind] > means[other]) if kind == "image" else (means[kind] >= means[other]))
        labels |= dict.fromkeys(here.nonzero().flatten().tolist(), NO_CLASS)
        for candidates in tiers:
            for feature, classes, share in _named_by(candidates, acts, here):
                member = candidates.masks[1][classes].amax(0)
                area = auroc(acts[1][:, feature : feature + 1], member[None] > 0)[0, 0].item()
                of = "strong activation" if candidates.strong else "activation"
                source = f"{share:.0%} of its {of} on unseen {what} lies there, which are {member.mean():.1%} of them; AUROC {area:.3f}"
                labels[feature] = Label(_joined([candidates.names[c] for c in classes]) + candidates.ending, source, round(share, 4))
                here[feature] = False
    return labels


def _named_by(candidates: Candidates, acts: list[torch.Tensor], wanted: torch.Tensor) -> Iterator[tuple[int, list[int], float]]:
    """(feature, classes, share on the second set) of the wanted features whose classes hold on both sets."""
    if candidates.strong:
        least = STRONG * acts[0].amax(0)
        acts = [z * (z >= least) for z in acts]
    first, second = candidates.masks
    held = first @ acts[0] / acts[0].sum(0).clamp(min=1e-9)
    for feature in wanted.nonzero().flatten().tolist():
        classes = _chosen(candidates, held[:, feature])
        # The union is counted, since a patch may hold two of the nouns.
        shares = [_share(mask[classes].amax(0), z[:, feature]) for mask, z in zip((first, second), acts, strict=True)] if classes else []
        if classes and all(share >= _least(candidates) and odds >= ODDS for share, odds in shares):
            yield feature, classes, shares[1][0]


def _least(candidates: Candidates) -> float:
    """The share that a class must hold."""
    return NAMED_STRONG if candidates.strong else NAMED


def _chosen(candidates: Candidates, held: torch.Tensor) -> list[int]:
    """The classes that a feature may be named by, given the share of its activation that each holds on the first set."""
    if not candidates.together:
        base = candidates.masks[0].mean(1)
        fits = (held >= _least(candidates)) & (held * (1 - base) >= ODDS * (1 - held) * base)
        return [int((held / base).masked_fill(~fits, 0).argmax())] if fits.any() else []
    best = held.topk(TOGETHER)
    for count in range(2, TOGETHER + 1):
        if best.values[:count].sum() >= NAMED and best.values[count - 1] >= EACH:
            return best.indices[:count].tolist()
    return []


def _share(member: torch.Tensor, activation: torch.Tensor) -> tuple[float, float]:
    """The share of a feature's activation on the tokens of a class, and its odds as a multiple of the odds of the class."""
    share, base = float(member @ activation / activation.sum().clamp(min=1e-9)), float(member.mean())
    return share, share * (1 - base) / max((1 - share) * base, 1e-9)


def _patches(choose: Split, score: Split) -> Iterator[Candidates]:
    """Classes of patches, most specific first."""

    def touched(names: list[str]) -> Masks:
        first, second = ((torch.stack([split.shares[name] for name in names]) >= TOUCHED).float() for split in (choose, score))
        return first, second

    nouns, colors = [*choose.names], [*COLORS]
    every = [*choose.shares]
    yield Candidates(every, touched(every))
    yield Candidates(every, touched(every), strong=True)
    yield Candidates(nouns, touched(nouns), together=True)
    yield Candidates(colors, touched(colors), together=True)
    first, second = _coarse(choose), _coarse(score)
    yield Candidates([*first], (torch.stack([*first.values()]).float(), torch.stack([*second.values()]).float()))


def _coarse(split: Split) -> dict[str, torch.Tensor]:
    """Classes that are not words: bool [patches] each."""
    covered = torch.stack([split.shares[noun] for noun in split.names]).sum(0)
    cell = torch.arange(CELLS * CELLS).repeat(len(covered) // CELLS**2)
    row, column, half = cell // CELLS, cell % CELLS, CELLS // 2
    last = CELLS - 1
    return {
        "edges of objects": (covered >= TOUCHED) & (covered <= 1 - TOUCHED),
        "insides of objects": covered > 1 - TOUCHED,
        "objects": covered >= TOUCHED,
        "background": covered < TOUCHED,
        "border of the picture": (row == 0) | (row == last) | (column == 0) | (column == last),
        "upper left": (row < half) & (column < half),
        "upper right": (row < half) & (column >= half),
        "lower left": (row >= half) & (column < half),
        "lower right": (row >= half) & (column >= half),
        "upper half": row < half,
        "lower half": row >= half,
        "left half": column < half,
        "right half": column >= half,
    }


def _tokens(vlm: interp.Vlm, choose: Split, score: Split) -> Iterator[Candidates]:
    """Classes of the tokens of prompts and answers, most specific first."""
    texts = vlm.vocabulary.texts
    frequent = [i for i in choose.words.unique().tolist() if min(int((s.words == i).sum()) for s in (choose, score)) >= RARE]
    words = [f"“{listed([texts[i]])}”" for i in frequent]
    first, second = (torch.stack([split.words == i for i in frequent]).float() for split in (choose, score))
    yield Candidates(words, (first, second), ending=" in text")
    yield Candidates(words, (first, second), strong=True, ending=" in text")
    yield Candidates(words, (first, second), together=True, ending=" in text")
    prompts = [(torch.arange(len(split.words)) < split.prompt).float() for split in (choose, score)]
    yield Candidates(["prompts", "answers"], (torch.stack([prompts[0], 1 - prompts[0]]), torch.stack([prompts[1], 1 - prompts[1]])))


def _joined(names: list[str]) -> str:
    """Names as a phrase: fox; fox or lion; fox, lion or tiger."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
