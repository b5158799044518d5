"""How often the model, with a feature turned up, names what the feature stands for: `python -m interp.emoji_world.measure_self_explain`.

    python -m interp.emoji_world.scene_files --target SCENES
    python -m interp.study cache STUDY --model emoji-llava --sae emoji-llava --data SCENES/pictures
    python -m interp.study top-images STUDY
    python -m interp.study explain STUDY --explainer self --name self
    python -m interp.emoji_world.measure_self_explain STUDY --scenes SCENES --name self

Features that stand for a noun should get that noun; for others there is no right name, so the share that gets one is given. Beside every strength
stands what the same rule makes of the answers without the feature turned up, and of the answers to another feature's pictures.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..study.cache_files import Cache
from ..study.explain import NAME, named
from ..study.naming import Name, words
from ..study.self_explain import names, strengths_in
from ..study.study import Study
from .study_truth import Truth, truth_of

LEAST = 0.5


def table(folder: Path, truth: Truth, least: float) -> str:
    """The table as markdown. `folder`: of a stage of explaining."""
    single = strengths_in(folder)
    together = [strength for strength in single if strength != "0"]
    rows = [(("plain" if strength == "0" else strength), [strength]) for strength in single]
    rows += [(" and ".join(together[:count]), together[:count]) for count in range(2, len(together) + 1)]
    lines = [
        "| strength | nouns: named | right | right and nothing else | right, names exchanged | others: named |",
        "|---|---|---|---|---|---|",
    ]
    for title, strengths in rows:
        counts = _counts(names(folder, least, strengths), truth)
        lines.append(f"| {title} | {' | '.join(counts)} |")
    return "\n".join(lines)


def _counts(found: Mapping[int, Name], truth: Truth) -> Sequence[str]:
    nouns = [feature for feature in truth.of_kind(color=False) if feature in found]
    said = {feature: words(found[feature].text) for feature in nouns}
    right = [feature for feature in nouns if truth.words[feature] in said[feature]]
    exact = [feature for feature in right if said[feature] == [truth.words[feature]]]
    # Each feature with the name of the one half a list away: a name that fits any feature would be right here too.
    half = len(nouns) // 2
    exchanged = [feature for feature, other in zip(nouns, nouns[half:] + nouns[:half], strict=True) if truth.words[feature] in said[other]]
    others = [feature for feature in found if not truth.words[feature]]
    spoken = [feature for feature in others if found[feature].text]
    return [
        f"{sum(map(bool, said.values()))} of {len(nouns)}",
        _share(len(right), len(nouns)),
        _share(len(exact), len(nouns)),
        _share(len(exchanged), len(nouns)),
        f"{_share(len(spoken), len(others))} of {len(others)}",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--scenes", type=Path, required=True, help="a folder that interp.emoji_world.scene_files wrote")
    parser.add_argument("--name", help="as explain was given it")
    parser.add_argument("--least", type=float, default=LEAST)
    args = parser.parse_args()
    truth = truth_of(Cache.open(Study.open(args.study)), args.scenes)
    print(table(args.study / named(NAME, args.name), truth, args.least))  # noqa: T201 - what the command is for


if __name__ == "__main__":
    main()
