"""Are there heads that find objects, and heads that steer what is described next? Two findings about large models, tried on `emoji-llava`.

Localisation heads (Kang et al. 2025, "Your Large Vision-Language Model Only Needs A Few Attention Heads For Visual Grounding") look at little but
the object; gaze heads look at what is being described, and pushing them moves the description elsewhere.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from tqdm import tqdm

import interp

from ..attention.changed import answer_within
from ..models.attend import Heads, attending
from ..tracing.replay import Replay
from ..tracing.select import answer_token
from .measure_steering import Case
from .world import EMOJI

if TYPE_CHECKING:
    from .measure_attention import Told

KEPT = 3  # localisation heads, as in the paper
CANDIDATES = 10  # heads of the lowest spatial entropy in a scene
LEAST = 0.2  # share of its attention that a localisation head has on the image
GAZE = 4  # about 9 % of 48 heads, as in the paper
BIAS = 4.0  # added to the scores of gaze heads on the object they are to look at
RANDOM = 20  # draws of as many random heads
Head = tuple[int, int]


def heads_report(choosing: Sequence["Told"], scenes: Sequence["Told"]) -> str:
    """Both findings, chosen on some scenes and tested on others, as Markdown."""
    return localisation(choosing, scenes) + "\n\n" + gaze(choosing, scenes)


def spatial_entropy(patches: torch.Tensor) -> float:
    """-sum P log P over the 8-connected pieces of {A > mean A}, P a piece's share of these patches: 0 for one blob, log n for n equal ones."""
    left = patches > patches.mean()
    sizes = []
    while left.any():
        piece = torch.zeros_like(left)
        row, col = left.nonzero()[0].tolist()
        piece[row, col] = True
        while not (grown := F.max_pool2d(piece[None, None].float(), 3, 1, 1)[0, 0].bool() & left).equal(piece):
            piece = grown
        sizes.append(int(piece.sum()))
        left = left & ~piece
    shares = torch.tensor(sizes, dtype=torch.float64)
    shares /= shares.sum()
    return float(-(shares * shares.log()).sum())


def localisation(choosing: Sequence["Told"], scenes: Sequence["Told"]) -> str:
    """Heads with much attention on the image and little spatial entropy, against random ones."""
    selected: dict[Head, int] = {}
    image = torch.stack([interp.attention(each.trace, [each.token]).share("image")[..., 0] for each in choosing]).mean(0)
    every = [(layer, head) for layer in range(image.shape[0]) for head in range(image.shape[1])]
    looking = [head for head in every if image[head] >= LEAST]
    for each in tqdm(choosing, desc="localisation heads"):
        maps = interp.attention(each.trace, [each.token]).weights[:, :, 0, each.trace.grids[0].positions]
        blobs = {head: spatial_entropy(maps[head]) for head in looking}
        for head in sorted(looking, key=blobs.__getitem__)[:CANDIDATES]:
            selected[head] = selected.get(head, 0) + 1
    if len(looking) < KEPT:
        return f"Localisation heads: not present. {len(looking)} heads have {LEAST:.0%} of their attention on the image."
    chosen = sorted(selected, key=lambda head: -selected[head])[:KEPT]
    rng = random.Random("heads")
    drawn = [rng.sample(looking, KEPT) for _ in range(RANDOM)]
    own, (pointing, overlap) = _found(scenes, chosen), torch.tensor([_found(scenes, heads) for heads in drawn]).mean(0).tolist()
    told = ", ".join(f"layer {layer} head {head} ({selected[layer, head]} of {len(choosing)})" for layer, head in chosen)
    return (
        f"Localisation heads, chosen by attention on the image (at least {LEAST:.0%}; {len(looking)} of {len(every)} heads) and low spatial entropy, "
        f"without knowing where the objects are: {told}. The sum of their maps points at the noun being said in {own[0]:.1%} of {len(scenes)} scenes, "
        f"IoU {own[1]:.2f}; {KEPT} random ones of the {len(looking)} heads: {pointing:.1%}, {overlap:.2f}."
    )


def _found(scenes: Sequence["Told"], heads: Sequence[Head]) -> tuple[float, float]:
    """Pointing game and IoU of the smoothed sum of these heads' maps."""
    hits, overlaps = 0, 0.0
    for each in scenes:
        rows = interp.attention(each.trace, [each.token])
        summed = rows.weights[[layer for layer, _ in heads], [head for _, head in heads], 0].sum(0)
        grid = each.trace.grids[0].positions
        summed[grid] = _smoothed(summed[grid])
        drawn = interp.PatchMap(each.trace, rows.tokens[0], "heads", summed, "")
        hits, overlaps = hits + interp.pointing_game(drawn, each.mask), overlaps + interp.overlap(drawn, each.mask)
    return hits / len(scenes), overlaps / len(scenes)


def _smoothed(patches: torch.Tensor) -> torch.Tensor:
    """With a Gaussian of one patch."""
    line = (-torch.arange(-2.0, 3).square() / 2).exp()
    kernel = torch.outer(line, line) / line.sum() ** 2
    return F.conv2d(F.pad(patches[None, None], (2, 2, 2, 2), mode="replicate"), kernel[None, None])[0, 0]


def gaze(choosing: Sequence["Told"], scenes: Sequence["Told"]) -> str:
    """Heads that follow what is described, and whether pushing them to the second object makes the description begin with it."""
    following = torch.stack([_following(each) for each in tqdm(choosing, desc="gaze heads")]).mean(0)
    every = [(layer, head) for layer in range(following.shape[0]) for head in range(following.shape[1])]
    ranked = sorted(every, key=lambda head: -following[head])
    rng = random.Random("gaze")
    groups = {f"the {GAZE} that follow most": ranked[:GAZE], f"{GAZE} random ones": rng.sample(ranked[GAZE:], GAZE), "all heads": every}
    lines = []
    for name, heads in groups.items():
        moved = readable = 0
        for each in tqdm(scenes, desc=name):
            said = EMOJI.named(_pushed(each, heads))
            moved += said[:1] == [each.case.nouns[1]]
            readable += set(each.case.nouns) & set(said) != set()
        lines.append(f"{name}: {moved / len(scenes):.1%} ({readable / len(scenes):.1%} still name one of the two)")
    told = ", ".join(f"layer {layer} head {head} ({following[layer, head]:.2f})" for layer, head in ranked[:GAZE])
    return (
        "Gaze heads, by how much more of their attention on the image falls on the noun being said than on the other (share of one less share of "
        f"the other): {told}; mean over all heads {following.mean():.2f}. With {BIAS:g} added to their scores on the second object's patches, the "
        f"description begins with the second object for {'; '.join(lines)}. Without a push it never does, as only scenes described correctly count."
    )


def _on_objects(case: Case, trace: interp.Trace) -> list[torch.Tensor]:
    """Positions of the left and the right object; what is not the target's is the other's, as far as anything is there."""
    positions = trace.grids[0].positions
    own = positions[case.covered >= 0.25]
    rest = positions[case.other_covered >= 0.25]
    return [own, rest] if case.nouns[0] == case.target else [rest, own]


def _following(each: "Told") -> torch.Tensor:
    """Share on the noun being said less that on the other one, mean over both nouns: [layers, heads]."""
    numbers = [answer_token(each.trace, noun) - each.trace.answer_start for noun in each.case.nouns]
    rows = interp.attention(each.trace, numbers)
    regions = _on_objects(each.case, each.trace)
    image = rows.share("image").clamp(min=1e-6)
    shares = torch.stack([rows.weights[..., region].sum(-1) / image for region in regions])  # [objects, layers, heads, nouns]
    return ((shares[0, ..., 0] - shares[1, ..., 0]) + (shares[1, ..., 1] - shares[0, ..., 1])) / 2


def _pushed(each: "Told", chosen: Sequence[Head]) -> str:
    """The description while these heads are pushed to the second object, at every row that emits a word."""
    target = _on_objects(each.case, each.trace)[1]
    first = each.trace.answer_start - 1

    def read(heads: Heads) -> torch.Tensor | None:
        mine = [head for layer, head in chosen if layer == heads.layer]
        if not mine:
            return None
        weights = heads.weights()
        rows = torch.arange(max(0, first - heads.first), weights.shape[2])
        pushed = weights[:, mine][:, :, rows]
        pushed[..., target] *= torch.tensor(BIAS).exp()
        weights[:, torch.tensor(mine)[:, None], rows] = pushed / pushed.sum(-1, keepdim=True)
        return weights

    vlm = each.trace.vlm
    with vlm.lock, torch.no_grad():
        return answer_within(Replay.of(each.trace), attending(vlm, read=read)).text
