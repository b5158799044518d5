"""Find the features that stand for a noun: `python -m interp.emoji_world.find_features dog pizza`.

The finding of llava-interpret on a small scale: features that fire on pictures of a class carry the class's name. For each noun, features are
ranked by `interp.top_features` on the image tokens of unseen scenes that contain it among other things. A feature's score is how much higher its
mean activation is there than on scenes without the noun. Names play no part in the ranking.
"""

import argparse
import dataclasses
import random
from collections import Counter

import interp

from .scenes import Scene, draw_picture, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .words import NOUNS, QUESTIONS

SCENES = 20
TOP = 10
SHOWN = 3
EXAMPLES = ("dog", "cat", "pizza", "car", "tree", "sun", "guitar", "rocket", "owl", "key", "robot", "banana")


def scenes_with(noun: str, count: int) -> list[Scene]:
    """Scenes of one to three things, one of which is `noun`."""
    rng = random.Random(f"find {noun}")
    out: list[Scene] = []
    while len(out) < count:
        scene = sample_scene(rng, range(len(SEEN_VENDORS)), augment=0.0)
        if noun not in scene.nouns:
            at = rng.randrange(len(scene.things))
            things = tuple(dataclasses.replace(thing, noun=noun) if i == at else thing for i, thing in enumerate(scene.things))
            out.append(dataclasses.replace(scene, things=things))
    return out


def table(nouns: list[str], scenes: int) -> str:
    """The table as markdown."""
    vlm, sae = interp.load("emoji-llava"), interp.load_sae("emoji-llava")
    sprites = load_sprites(SEEN_VENDORS)
    means: dict[str, Counter[int]] = {}
    often: dict[str, Counter[int]] = {}
    for noun in nouns:
        means[noun], often[noun] = Counter(), Counter()
        for scene in scenes_with(noun, scenes):
            trace = vlm.trace(draw_picture(scene, sprites), QUESTIONS["describe"][0], max_new_tokens=1)
            found = interp.top_features(trace, sae, k=sae.d_sae)
            means[noun].update({feature.feature: feature.mean / scenes for feature in found.features})
            often[noun].update(feature.feature for feature in found.features[:TOP])
    lines = ["| noun | features that rise most, with their labels | scenes with the first in the top ten |", "|---|---|---|"]
    for noun in nouns:
        others = [other for other in nouns if other != noun]
        rise = {f: mean - sum(means[other][f] for other in others) / max(1, len(others)) for f, mean in means[noun].items()}
        best = sorted(rise, key=lambda f: -rise[f])[:SHOWN]
        named = ", ".join(f"{label.text if (label := sae.labels.get(f)) else '?'} ({f}, +{rise[f]:.2f})" for f in best)
        lines.append(f"| {noun} | {named} | {often[noun][best[0]]} of {scenes} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nouns", nargs="*", default=list(EXAMPLES), help="out of the 120")
    parser.add_argument("--scenes", type=int, default=SCENES)
    args = parser.parse_args()
    unknown = set(args.nouns) - {noun for noun, _ in NOUNS}
    if unknown:
        parser.error(f"emoji-llava does not know {', '.join(sorted(unknown))}")
    print(table(args.nouns, args.scenes))  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
