"""Measure what explains a word: `python -m interp.emoji_world.measure_attention` prints the tables of docs/attention.md.

On scenes of two things that training never used, where it is known which patches show which noun: every map of a noun that the answer says,
knockout and ablation of its patches, the layers through which it flows, and the SAE features that carried it. Each stands beside a control.
"""

import argparse
import functools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

import interp

from ..attribution.margin import NORMS
from ..tracing.select import answer_token
from .architecture import CELLS
from .measure_heads import heads_report
from .measure_steering import PROMPT, Case, Dictionary, cases, read_dictionary
from .world import EMOJI

SCENES = 1  # for each noun
COVERED = 0.25  # a patch counts as the object's if the object covers at least this share of it
CHOSEN_ON = 40  # other scenes, on which the best head is chosen
RESAMPLES = 2000  # of the bootstrap
STRICT = 0.5  # a feature is a noun's own with at least this share of its activation on objects
TOP = 3
WINDOW = 2


@dataclass(frozen=True)
class Told:
    """A scene whose description names both things."""

    case: Case
    trace: interp.Trace
    mask: torch.Tensor
    """The patches of the target: bool [CELLS, CELLS]."""
    token: int
    """The target's number in the answer."""


def told(vlm: interp.Vlm, scenes: Sequence[Case], seed: int = 0) -> list[Told]:
    """The scenes that are described correctly, in which the target is one token and has a patch of its own."""
    out = []
    for case in tqdm(scenes, desc="describing"):
        trace = vlm.trace(case.picture, PROMPT)
        mask = case.covered >= COVERED
        if EMOJI.named(trace.answer) == list(case.nouns) and mask.any():
            out.append(Told(case, trace, mask, answer_token(trace, case.target) - trace.answer_start))
    random.Random(seed).shuffle(out)
    return out


Method = Callable[[Told, interp.Attention], interp.PatchMap]


def methods(best: tuple[int, int]) -> dict[str, Method]:
    """Name → the map of a scene's target. `best`: a layer and head."""

    def made(name: str, values: Callable[[Told], torch.Tensor]) -> Method:
        """A map from values on the patches, [CELLS, CELLS]."""

        def make(each: Told, _rows: interp.Attention) -> interp.PatchMap:
            everywhere = torch.zeros(each.trace.length)
            everywhere[each.trace.grids[0].positions] = values(each)
            return interp.PatchMap(each.trace, each.trace.answer_start + each.token, name, everywhere, "")

        return make

    def lens(each: Told, layers: Sequence[int] | None) -> torch.Tensor:
        found = interp.logit_lens(each.trace, 1, layers).probability(each.case.target)
        return found.amax(0)[each.trace.grids[0].positions]

    centre = torch.tensor([[-((r - (CELLS - 1) / 2) ** 2) - (c - (CELLS - 1) / 2) ** 2 for c in range(CELLS)] for r in range(CELLS)])
    return {
        "attention, mean": lambda each, rows: rows.patch_map(each.token),
        "attention, mean, without sinks": lambda each, rows: rows.patch_map(each.token, sinks=False),
        "attention, maximum": lambda each, rows: rows.patch_map(each.token, over="max"),
        f"attention, layer {best[0]}, head {best[1]}": lambda each, rows: rows.patch_map(each.token, *best),
        "value-weighted attention, mean": lambda each, rows: rows.patch_map(each.token, weighted=True),
        "rollout": lambda each, _: interp.rollout(each.trace, each.token),
        "relevancy": lambda each, _: interp.relevancy(each.trace, each.token),
        "relevancy, rather than the other noun": lambda each, _: interp.relevancy(each.trace, each.token, each.case.other),
        "activation map": lambda each, _: interp.activation_map(each.trace, each.token),
        "knockout, patch by patch": lambda each, _: interp.knockout_map(each.trace, each.token),
        "lens, last layer": made("lens", lambda each: lens(each, [each.trace.n_layers - 1])),
        "lens, maximum over layers": made("lens", lambda each: lens(each, None)),
        "centre": made("centre", lambda _: centre),
        "random": made("random", lambda each: torch.rand(CELLS, CELLS, generator=torch.Generator().manual_seed(each.trace.length))),
    }


def best_head(scenes: Sequence[Told]) -> tuple[int, int]:
    """The layer and head whose map's maximum lies on the target most often."""
    hits = torch.stack([_head_hits(each) for each in tqdm(scenes, desc="choosing a head")]).float().mean(0)
    layer, head = divmod(int(hits.argmax()), hits.shape[1])
    return layer, head


def _head_hits(each: Told) -> torch.Tensor:
    """Whether each head's largest weight on the picture lies on the target: bool [layers, heads]."""
    rows = interp.attention(each.trace, [each.token])
    return each.mask.flatten()[rows.weights[:, :, 0, each.trace.grids[0].positions.flatten()].argmax(-1)]


@dataclass(frozen=True)
class Map:
    """How one method's maps did on every scene: [scenes] each."""

    pointing: torch.Tensor
    overlap: torch.Tensor
    insertion: torch.Tensor
    deletion: torch.Tensor

    def row(self, name: str, chance: "Map") -> str:
        """Means, each with a mark where it is not better than the random map's by a bootstrap over scenes."""
        cells = []
        for field, sign, digits in (
            ("pointing", 1, "{:.1%}"),
            ("overlap", 1, "{:.2f}"),
            ("insertion", 1, "{:.3f}"),
            ("deletion", -1, "{:.3f}"),
        ):
            mine, random_map = getattr(self, field), getattr(chance, field)
            weak = name != "random" and lower_bound(sign * (mine - random_map)) <= 0
            cells.append(digits.format(mine.mean().item()) + (" ✗" if weak else ""))
        return f"| {name} | {' | '.join(cells)} |"


def lower_bound(differences: torch.Tensor) -> float:
    """The 2.5 % quantile of the mean, over resampled scenes."""
    index = torch.randint(len(differences), (RESAMPLES, len(differences)), generator=torch.Generator().manual_seed(0))
    return differences[index].mean(1).quantile(0.025).item()


def map_table(scenes: Sequence[Told], ways: dict[str, Method]) -> str:
    """Every method on all scenes, as Markdown."""
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for each in tqdm(scenes, desc="maps"):
        rows = interp.attention(each.trace, [each.token])
        for name, make in ways.items():
            drawn = make(each, rows)
            scored = interp.faithfulness(drawn)
            found[name].append(
                (interp.pointing_game(drawn, each.mask), interp.overlap(drawn, each.mask), scored.insertion, scored.deletion)
            )
    maps = {name: Map(*torch.tensor(values, dtype=torch.float64).T) for name, values in found.items()}
    head = "| method | pointing game | IoU | insertion | deletion |\n|---|---|---|---|---|"
    return "\n".join([head, *(each.row(name, maps["random"]) for name, each in maps.items())])


def removal_table(scenes: Sequence[Told]) -> str:
    """Knockout and ablation of the target's patches, and of as many others."""

    def others(each: Told) -> list[list[int]]:
        """As many patches that do not touch the target, in this scene."""
        own = each.case.patches
        free = [[r, c] for r in range(CELLS) for c in range(CELLS) if [r, c] not in own]
        return random.Random(repr(own)).sample(free, min(len(own), len(free)))

    def cut(each: Told, patches: list[list[int]], targets: str) -> str:
        answer = interp.knockout(each.trace, {"patches": patches}, targets).answer
        return "" if answer is None else answer.text

    def blank(each: Told, patches: list[list[int]], by: str) -> str:
        answer = interp.ablate(each.trace, {"patches": patches}, by).answer
        return "" if answer is None else answer.text

    ways: dict[str, Callable[[Told, list[list[int]]], str]] = {
        "knockout: no row reads them": functools.partial(cut, targets="all"),
        "knockout: the answer's rows do not read them": functools.partial(cut, targets="last"),
        "knockout: the prompt does not read them": functools.partial(cut, targets="prompt"),
        "replaced by the mean patch": functools.partial(blank, by="mean"),
        "replaced by zeros": functools.partial(blank, by="zero"),
    }
    lines = ["| its patches … | noun gone | other noun stays | as many other patches: noun gone |", "|---|---|---|---|"]
    for name, way in ways.items():
        gone = stays = control = 0
        for each in tqdm(scenes, desc=name):
            said, without = EMOJI.named(way(each, each.case.patches)), EMOJI.named(way(each, others(each)))
            gone, stays = gone + (each.case.target not in said), stays + (each.case.other in said)
            control += each.case.target not in without
        lines.append(f"| {name} | {gone / len(scenes):.1%} | {stays / len(scenes):.1%} | {control / len(scenes):.1%} |")
    return "\n".join(lines)


def flow_table(scenes: Sequence[Told]) -> str:
    """Mean change of the noun's probability, in percent, for every path and window. A first noun has no answer behind its article to pass."""
    found: dict[str, list[torch.Tensor]] = defaultdict(list)
    for each in tqdm(scenes, desc="flow"):
        flow = interp.information_flow(each.trace, each.token, WINDOW, {"patches": each.case.patches})
        for name, change in zip(flow.blocks, flow.change, strict=True):
            found[name].append(change)
    layers = range(scenes[0].trace.n_layers)
    lines = [f"| path | scenes | {' | '.join(map(str, layers))} |", "|---|---|" + "---|" * len(layers)]
    for name, changes in found.items():
        lines.append(f"| {name} | {len(changes)} | " + " | ".join(f"{value:.0f}" for value in torch.stack(changes).mean(0).tolist()) + " |")
    return "\n".join(lines)


def attribution_report(scenes: Sequence[Told], found: Dictionary) -> str:
    """How often the noun's own feature is among the first, and how well one pass agrees with ablation, for both gradients."""
    own = {noun: set(found.features(noun, STRICT)) for noun in EMOJI.nouns}
    tried = [each for each in scenes if own[each.case.target]]
    lines = [
        f"{len(tried)} scenes, each of another noun with a feature of its own (at least {STRICT:.0%} of its activation on objects).\n",
        f"| norms | feature of the noun in the top {TOP} | of the other noun | Pearson, median | 10 % to 90 % | overlap of the ten largest |",
        "|---|---|---|---|---|---|",
    ]
    for norms in NORMS:
        got = [
            (each, interp.attribute(each.trace, found.sae, each.token, norms=norms)) for each in tqdm(tried, desc=f"attribution, {norms}")
        ]
        first = [({feature.feature for feature in one.features[:TOP]}, each.case) for each, one in got]
        hits = sum(bool(top & own[case.target]) for top, case in first) / len(tried)
        control = sum(bool(top & own[case.other]) for top, case in first) / len(tried)
        low, middle, high = torch.tensor([one.pearson or 0.0 for _, one in got]).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        common = sum(one.overlap or 0.0 for _, one in got) / len(tried)
        lines.append(f"| {norms} | {hits:.1%} | {control:.1%} | {middle:.2f} | {low:.2f} to {high:.2f} | {common:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=SCENES, help="for each noun")
    parser.add_argument("--nouns", type=int, default=len(EMOJI.nouns), help="how many of the 120")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    vlm, sae = interp.load("emoji-llava"), interp.load_sae("emoji-llava")
    nouns = random.Random("attention nouns").sample(EMOJI.nouns, args.nouns)
    drawn = list(cases(nouns, args.scenes, "attention test"))
    scenes = told(vlm, drawn)
    choosing = told(vlm, list(cases(nouns[:CHOSEN_ON], 1, "attention choose")))
    for title, text in (
        (
            "Scenes",
            f"{len(scenes)} of {len(drawn)} scenes of two things are described correctly and count; {len(choosing)} others to choose heads on.",
        ),
        ("Maps", map_table(scenes, methods(best_head(choosing)))),
        ("Removal", removal_table(scenes)),
        (f"Information flow, windows of {WINDOW} layers", flow_table(scenes)),
        ("Attribution", attribution_report(scenes, read_dictionary(vlm, sae))),
        ("Heads", heads_report(choosing, scenes)),
    ):
        print(f"\n## {title}\n\n{text}", flush=True)  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
