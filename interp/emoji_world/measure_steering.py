"""Measure whether steering works: `python -m interp.emoji_world.measure_steering` prints the figures of docs/steering.md; `--picture FILE` draws its curves.

On scenes of two things, used neither for training nor for any choice, features of a noun are switched off (does the noun leave the description?),
added, and exchanged for those of another. Every figure comes with that of a control of the same size. Uses only the public API of `interp`.
"""

import argparse
import dataclasses
import functools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

import interp

from .. import Edit
from .architecture import CELLS, IMAGE_SIDE
from .scenes import draw, draw_picture, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .unseen import collect, dense
from .words import QUESTIONS
from .world import EMOJI, WORLDS, World

SCENES = 3  # for each noun
HELD = 0.07  # a feature belongs to a noun with at least this share of its activation on object patches (chance: 1 in 120)
TOUCHED = 0.05  # a patch belongs to a thing that covers at least this share of it
OBJECT = 25  # features that make up a whole thing: those of its noun and those that all things share
REMOVE = "all its features off, on the picture"
BELOW = "best feature as far below 0 as it usually is above, on the picture"
BLOCK = 4  # side of the free block of patches that a thing is added to
ADD = f"a whole object of {OBJECT} features x 1.5, on {BLOCK} x {BLOCK} free patches"
SWAP = "its features off, the new noun's x 1.5, on its patches"
CONTRASTED = 8  # pictures on either side of a contrast vector
CURVE = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
PROMPT = QUESTIONS["describe"][0]


@dataclass(frozen=True)
class Dictionary:
    """The SAE's features as detectors of nouns, chosen on a separate set of scenes."""

    world: World
    sae: interp.Sae
    held: torch.Tensor
    """Share of each feature's activation on object patches that lies on each noun's: [nouns, features]."""
    usual: torch.Tensor
    """Mean activation on the patches of each noun: [nouns, features]."""

    def features(self, noun: str, least: float = HELD) -> list[int]:
        """The noun's features, the most active first."""
        n = self.world.nouns.index(noun)
        mine = ((self.held[n] >= least) & (self.usual[n] > 0.1)).nonzero().flatten()
        return mine[self.usual[n, mine].argsort(descending=True)].tolist()

    def best(self, noun: str) -> int | None:
        """The most active feature with at least half of its activation on this noun."""
        return next(iter(self.features(noun, 0.5)), None)


def read_dictionary(vlm: interp.Vlm, sae: interp.Sae) -> Dictionary:
    """Measure it on scenes of one to three things."""
    split = collect(vlm, sae.layer, "steer choose")
    truth = split.nouns
    things = truth.any(0)
    z, own = dense(sae, split.image[things]), truth[:, things].float()
    mass = own @ z
    return Dictionary(WORLDS[vlm.name], sae, mass / mass.sum(0).clamp(min=1e-9), mass / own.sum(1, keepdim=True).clamp(min=1))


@dataclass(frozen=True)
class Case:
    """One scene of two things."""

    picture: Image.Image
    nouns: tuple[str, str]
    """From left to right."""
    target: str
    other: str
    new: str
    """A noun that is not in the scene."""
    covered: torch.Tensor
    """How much of each patch the target covers: [CELLS, CELLS]."""
    other_covered: torch.Tensor
    """How much of each patch the other thing covers."""
    free: list[list[int]] | None
    """A block of background patches, if there is one."""

    @property
    def patches(self) -> list[list[int]]:
        """The target's patches."""
        return (self.covered >= TOUCHED).nonzero().tolist()


def cases(nouns: Sequence[str], scenes: int, seed: str = "steer test", world: World = EMOJI) -> Iterator[Case]:
    """`scenes` scenes for every noun, each with another random noun to its left or right."""
    sprites, every = load_sprites(SEEN_VENDORS, world=world), list(world.nouns)
    for noun in nouns:
        rng = random.Random(f"{seed} {noun}")
        made = 0
        while made < scenes:
            scene = sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0, nouns=world.nouns)
            if len(scene.things) != 2:
                continue
            at, (other, new) = rng.randrange(2), rng.sample([n for n in every if n != noun], 2)
            names = (noun, other) if at == 0 else (other, noun)
            things = tuple(dataclasses.replace(thing, noun=name) for thing, name in zip(scene.things, names, strict=True))
            scene = dataclasses.replace(scene, things=things)
            shares = draw([scene], sprites, IMAGE_SIDE, CELLS, world.nouns)[1][0].unflatten(0, (CELLS, CELLS))
            covered = shares[..., : len(every)].sum(-1)
            corners = [(r, c) for r in range(CELLS - BLOCK + 1) for c in range(CELLS - BLOCK + 1)]
            empty = [(r, c) for r, c in corners if covered[r : r + BLOCK, c : c + BLOCK].mean() < 0.12]
            free = None
            if empty:
                row, col = rng.choice(empty)
                free = [[row + i, col + j] for i in range(BLOCK) for j in range(BLOCK)]
            picture = draw_picture(scene, sprites, nouns=world.nouns)
            yield Case(picture, names, noun, other, new, shares[..., every.index(noun)], shares[..., every.index(other)], free)
            made += 1


Goal = Callable[[Case, list[str]], tuple[bool, bool]]


def removed(case: Case, said: list[str]) -> tuple[bool, bool]:
    """Gone, and the other stays."""
    return case.target not in said, case.other in said


def added(case: Case, said: list[str]) -> tuple[bool, bool]:
    """There, and both others stay."""
    return case.new in said, set(case.nouns) <= set(said)


def swapped(case: Case, said: list[str]) -> tuple[bool, bool]:
    """The new noun in the target's place, and the other stays."""
    return said == [case.new if noun == case.target else noun for noun in case.nouns], case.other in said


class Ways:
    """The ways to steer that are measured, each as the edits for a case; no edits if it cannot be tried."""

    def __init__(self, vlm: interp.Vlm, found: Dictionary) -> None:
        self.vlm, self.found, self.sae, self.world = vlm, found, found.sae, found.world
        self._contrasts: dict[str, interp.Contrast] = {}

    def usual(self, noun: str, feature: int) -> float:
        """Its mean activation on the noun's patches."""
        return float(self.found.usual[self.world.nouns.index(noun), feature])

    def off(self, case: Case, where: Any) -> list[Edit]:
        """All of the target's features switched off."""
        return [Edit(sae=self.sae, feature=f, target=0, where=where) for f in self.found.features(case.target)]

    def best(self, noun: str, where: Any, *, times: float | None = None, strength: float | None = None) -> list[Edit]:
        """The noun's best feature alone, set to `times` its usual activation, or pushed by `strength`."""
        feature = self.found.best(noun)
        if feature is None:
            return []
        target = None if times is None else times * self.usual(noun, feature)
        return [Edit(sae=self.sae, feature=feature, where=where, target=target, strength=strength)]

    def noun(self, case: Case, where: Any) -> list[Edit]:
        """The new noun's features, set to one and a half times what they usually are on its patches."""
        return [Edit(sae=self.sae, feature=f, target=1.5 * self.usual(case.new, f), where=where) for f in self.found.features(case.new)]

    def thing(self, case: Case, where: Any, times: float = 1.5) -> list[Edit]:
        """The features most active on the new noun's patches, including those that all things share, set to `times` their usual activation."""
        top = self.found.usual[self.world.nouns.index(case.new)].topk(OBJECT).indices.tolist()
        return [Edit(sae=self.sae, feature=f, target=times * self.usual(case.new, f), where=where) for f in top]

    def contrast(self, case: Case) -> list[Edit]:
        """No SAE: the projection onto the difference between pictures with and without the target, set to 0."""
        if case.target not in self._contrasts:
            rng, sprites = random.Random(f"contrast {case.target}"), load_sprites(SEEN_VENDORS, world=self.world)
            sets: tuple[list[Any], list[Any]] = ([], [])
            while min(map(len, sets)) < CONTRASTED:
                scene = sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0, nouns=self.world.nouns)
                names = [case.target if len(sets[0]) < CONTRASTED and i == 0 else noun for i, noun in enumerate(scene.nouns)]
                things = tuple(dataclasses.replace(thing, noun=name) for thing, name in zip(scene.things, names, strict=True))
                picture = draw_picture(dataclasses.replace(scene, things=things), sprites, nouns=self.world.nouns)
                sets[case.target not in names].append((picture, PROMPT))
            self._contrasts[case.target] = interp.contrast_vector(self.vlm, *sets, self.sae.layer)
        return [Edit(vector=self._contrasts[case.target], target=0, where="image")]

    def matched(self, case: Case, edits: Sequence[Edit], sign: int) -> list[Edit]:
        """The control: at every position a push of the same length, along a random feature that is active on the target's patches."""
        if not edits:
            return []
        trace = self.vlm.trace(case.picture, PROMPT)
        steered = interp.steered_trace(trace, edits, interp.steer(self.vlm, case.picture, PROMPT, edits).steered_answer)
        at, layer = trace.positions("image"), self.sae.layer
        change = (steered.residual(layer)[at].float() - trace.residual(layer)[at].float()).norm(dim=-1)
        active = interp.encode(trace, self.sae).top(self.sae.d_sae, {"patches": case.patches}, "frequency").features
        own = {edit.feature for edit in edits} | set(self.found.features(case.target))
        others = [f for f in active if f.feature not in own] or list(active)
        choice = [f for f in others if f.frequency >= 0.5] or others
        row = self.sae.W_dec[random.Random(repr(case.patches)).choice(choice).feature].float()
        pushes = zip(at, change.tolist(), strict=True)
        return [Edit(vector=sign * row / row.norm(), layer=layer, amount=by, where={"positions": [i]}) for i, by in pushes if by > 0]

    def all(self) -> dict[str, tuple[Goal, Callable[[Case], list[Edit]]]]:
        """Name → what is counted, and the edits."""

        def swap(case: Case, put: list[Edit]) -> list[Edit]:
            return [*self.off(case, {"patches": case.patches}), *put] if put else []

        def free(case: Case, make: Callable[[Case, Any], list[Edit]]) -> list[Edit]:
            return make(case, {"patches": case.free}) if case.free else []

        def things(times: float) -> Callable[[Case], list[Edit]]:
            return lambda c: free(c, functools.partial(self.thing, times=times))

        return {
            REMOVE: (removed, lambda c: self.off(c, "image")),
            "control of the same size": (removed, lambda c: self.matched(c, self.off(c, "image"), -1)),
            "all its features off, everywhere (text too)": (removed, lambda c: self.off(c, "all")),
            "all its features off, on its patches": (removed, lambda c: self.off(c, {"patches": c.patches})),
            "best feature off, on the picture": (removed, lambda c: self.best(c.target, "image", times=0)),
            BELOW: (removed, lambda c: self.best(c.target, "image", times=-1)),
            "control of the same size ": (removed, lambda c: self.matched(c, self.best(c.target, "image", times=-1), -1)),
            "best feature as far below 0 as it usually is above, on its patches": (
                removed,
                lambda c: self.best(c.target, {"patches": c.patches}, times=-1),
            ),
            "best feature, strength -0.7, on the picture": (removed, lambda c: self.best(c.target, "image", strength=-0.7)),
            "best feature, strength -1, on its patches": (removed, lambda c: self.best(c.target, {"patches": c.patches}, strength=-1)),
            "no SAE: contrast vector, projection set to 0, on the picture": (removed, self.contrast),
            ADD: (added, lambda c: free(c, self.thing)),
            "control of the same size  ": (added, lambda c: self.matched(c, free(c, self.thing), 1)),
            "a whole object x 1, there": (added, things(1)),
            "a whole object x 2, there": (added, things(2)),
            f"the noun's features x 1.5, on {BLOCK} x {BLOCK} free patches": (added, lambda c: free(c, self.noun)),
            "best feature, strength 0.5, on the picture": (added, lambda c: self.best(c.new, "image", strength=0.5)),
            "best feature, strength 0.7, on the picture": (added, lambda c: self.best(c.new, "image", strength=0.7)),
            SWAP: (swapped, lambda c: swap(c, self.noun(c, {"patches": c.patches}))),
            "control of the same size   ": (swapped, lambda c: self.matched(c, swap(c, self.noun(c, {"patches": c.patches})), 1)),
            "its features off, best feature of the new noun at strength 1, there": (
                swapped,
                lambda c: swap(c, self.best(c.new, {"patches": c.patches}, strength=1)),
            ),
            "its features off, a whole object x 1.5, there": (swapped, lambda c: swap(c, self.thing(c, {"patches": c.patches}))),
        }


@dataclass(frozen=True)
class Row:
    """What one way gave."""

    name: str
    tried: int
    done: float
    stays: float
    kl: float
    readable: float
    """Share of answers that are well-formed descriptions."""


def _judged(world: World, case: Case, goal: Goal, run: interp.SteeringResult) -> tuple[float, ...]:
    """The figures of a `Row`, for one steered answer."""
    return *goal(case, world.named(run.steered)), sum(run.kl) / len(run.kl), world.describes(run.steered)


def measure(vlm: interp.Vlm, ways: Ways, scenes: Sequence[Case]) -> list[Row]:
    """Every way on all scenes that are described correctly without edits."""
    counts: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for case in tqdm(scenes, desc="steering"):
        for name, (goal, edits) in ways.all().items():
            if made := edits(case):
                counts[name].append(_judged(ways.world, case, goal, interp.steer(vlm, case.picture, PROMPT, made)))
    return [Row(name, len(rows), *torch.tensor(rows).double().mean(0).tolist()) for name, rows in counts.items()]


def curve(
    vlm: interp.Vlm, scenes: Sequence[Case], goal: Goal, edit: Callable[[Case], list[Edit]], scale: Callable[[Edit], float]
) -> list[Row]:
    """One edit at the values of `CURVE`, each times the edit's own `scale`."""
    counts: dict[float, list[tuple[float, ...]]] = defaultdict(list)
    for case in tqdm(scenes, desc="curve"):
        for made in edit(case)[:1]:
            sweep = interp.steer_sweep(vlm, case.picture, PROMPT, made, [by * scale(made) for by in CURVE])
            for by, run in zip(CURVE, sweep.runs, strict=True):
                counts[by].append(_judged(WORLDS[vlm.name], case, goal, run))
    return [Row(f"{by:g}", len(rows), *torch.tensor(rows).double().mean(0).tolist()) for by, rows in counts.items()]


def table(rows: Sequence[Row]) -> str:
    """As markdown."""
    lines = ["| method | scenes | success | others stay | KL, nats | readable |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.name.strip()} | {r.tried} | {r.done:.1%} | {r.stays:.1%} | {r.kl:.2f} | {r.readable:.1%} |" for r in rows]
    return "\n".join(lines)


def drawing(panels: Sequence[tuple[str, str, Sequence[Row]]]) -> str:
    """The curves as one SVG: each panel with shares on the left axis and KL on the right."""
    width, height, left, top = 400, 210, 46, 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {(width + 90) * len(panels)} {height + 110}">',
        "<style>text { font: 12px system-ui, sans-serif; fill: #57606a }</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    lines = (
        ("done", "#0b66c3", "done"),
        ("stays", "#1a7f37", "the others stay"),
        ("readable", "#8250df", "readable"),
        ("kl", "#cf222e", "KL (right)"),
    )
    for p, (title, label, rows) in enumerate(panels):
        x0 = left + p * (width + 90)
        most = max(1.0, *(row.kl for row in rows))
        out.append(f'<text x="{x0}" y="20" style="font-size: 14px; fill: #1f2328">{title}</text>')
        for i in range(5):
            y = top + height * (1 - i / 4)
            out.append(
                f'<line x1="{x0}" x2="{x0 + width}" y1="{y}" y2="{y}" stroke="#d8dee4"/><text x="{x0 - 8}" y="{y + 4}" text-anchor="end">{25 * i} %</text>'
            )
            out.append(f'<text x="{x0 + width + 6}" y="{y + 4}" style="fill: #cf222e">{most * i / 4:.1f}</text>')
        step = width / (len(rows) - 1)
        for i, row in enumerate(rows):
            out.append(f'<text x="{x0 + i * step}" y="{top + height + 18}" text-anchor="middle">{row.name}</text>')
        out.append(f'<text x="{x0 + width / 2}" y="{top + height + 38}" text-anchor="middle">{label}</text>')
        for k, (field, color, name) in enumerate(lines):
            values = [getattr(row, field) / (most if field == "kl" else 1) for row in rows]
            points = " ".join(f"{x0 + i * step:.1f},{top + height * (1 - v):.1f}" for i, v in enumerate(values))
            out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
            out.append(f'<text x="{x0 + k * width / 4}" y="{top + height + 60}" style="fill: {color}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WORLDS, default="emoji-llava")
    parser.add_argument("--scenes", type=int, default=SCENES, help="for each noun")
    parser.add_argument("--nouns", type=int, help="how many of the model's nouns (default: all)")
    parser.add_argument("--picture", type=Path, help="where the curves are drawn, such as assets/steering.svg")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    vlm, sae, world = interp.load(args.model), interp.load_sae(args.model), WORLDS[args.model]
    found = read_dictionary(vlm, sae)
    ways = Ways(vlm, found)
    nouns = [noun for noun in random.Random("steer nouns").sample(world.nouns, args.nouns or len(world.nouns)) if found.features(noun)]
    drawn = list(cases(nouns, args.scenes, world=world))
    right = [case for case in tqdm(drawn, desc="plain") if world.named(vlm.trace(case.picture, PROMPT).answer) == list(case.nouns)]
    sizes = [len(found.features(noun)) for noun in nouns]
    told = (
        f"{len(nouns)} nouns with features of their own ({sum(sizes) / len(sizes):.1f} on average, at most {max(sizes)}); {len(right)} of "
        f"{len(drawn)} scenes of two things are described correctly without edits and count."
    )
    print(told)  # noqa: T201 - this is the command's output
    print(table(measure(vlm, ways, right)))  # noqa: T201 - this is the command's output
    once = right[:: args.scenes]
    panels = [
        (
            "Remove: the best feature set below 0, on the picture",
            "times its usual activation, below 0",
            curve(vlm, once, removed, lambda c: ways.best(c.target, "image", times=-1), lambda edit: edit.value),
        ),
        (
            "Add: the best feature of another noun, on the picture",
            "strength, of the usual residual norm",
            curve(vlm, once, added, lambda c: ways.best(c.new, "image", strength=1), lambda edit: edit.value),
        ),
    ]
    for title, _, rows in panels:
        print(f"\n{title}\n{table(rows)}")  # noqa: T201
    if args.picture:
        args.picture.write_text(drawing(panels), encoding="utf-8")


if __name__ == "__main__":
    main()
