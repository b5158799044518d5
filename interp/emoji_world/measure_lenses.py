"""What each lens of an embedded model reads on its patches: `python -m interp.emoji_world.measure_lenses`.

On scenes that no training used, of seen vendors and of the one kept out of training: how often a lens's first word (or one of its first five) is
the noun that covers at least half of an object patch, and how often it is the colour of a background patch. The control takes the nouns of
another picture. Nouns of several tokens are left out. Beside the lenses a linear probe of the same states, which was fitted on other scenes and knows their labels.
"""

import argparse
from collections.abc import Callable, Mapping

import torch
from tqdm import tqdm

import interp
from interp.presets import ASSETS

from .measure import PROBE_FACTOR, Sample, probe_hits, sample
from .sprites import HELD_OUT_VENDOR, SEEN_VENDORS
from .words import QUESTIONS
from .world import WORLDS, World

Read = Callable[[interp.Trace, list[int]], interp.Lens]


def lenses(model: str, every: list[int]) -> dict[str, Read]:
    """The lenses of a model that ships here: the five best words at some layers and positions of a trace."""
    folder = ASSETS / f"{model}-lenses"
    reads: dict[str, Read] = {
        "logit": lambda trace, rows: interp.logit_lens(trace, 5, every, rows),
        "embedding": lambda trace, rows: interp.embedding_lens(trace, 5, every, rows),
    }
    if (folder / "tuned").is_dir():
        tuned = interp.load_translators(folder / "tuned")
        reads["tuned"] = lambda trace, rows: interp.tuned_lens(trace, tuned, 5, every, rows)
    if (folder / "token").is_dir():
        token = interp.load_translators(folder / "token")
        reads["token"] = lambda trace, rows: interp.token_lens(trace, token, 5, every, rows)
    if (folder / "contextual").is_dir():
        index = interp.load_index(folder / "contextual")
        reads["contextual"] = lambda trace, rows: interp.contextual_lens(trace, index, 5, every, rows)
    return reads


def states_and_words(
    vlm: interp.Vlm, data: Sample, every: list[int], reads: Mapping[str, Read]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """States [scenes, layers, patches, d], and each lens's words [scenes, layers, patches, 5]."""
    states: list[torch.Tensor] = []
    ids: dict[str, list[torch.Tensor]] = {name: [] for name in reads}
    for picture in tqdm(data.pictures, desc="pictures"):
        trace = vlm.trace(picture, QUESTIONS["describe"][0], max_new_tokens=1)
        rows = trace.grids[0].positions.flatten().tolist()
        states.append(torch.stack([trace.residual(layer)[rows].float() for layer in every]))
        for name, read in reads.items():
            ids[name].append(read(trace, rows).ids)
    return torch.stack(states), {name: torch.stack(found) for name, found in ids.items()}


def table(vlm: interp.Vlm, world: World, data: Sample, other: Sample, every: list[int]) -> str:
    """Percentages for each lens (or the probe, fitted on `other`) and layer, as Markdown."""
    pieces = vlm.tokenizer([f" {word}" for word in world.words], add_special_tokens=False).input_ids
    word_ids = torch.tensor([ids[0] if len(ids) == 1 else -1 for ids in pieces])
    states, words = states_and_words(vlm, data, every, lenses(vlm.name, every))
    probed, _ = states_and_words(vlm, other, every, {})
    labels = other.shares.argmax(-1).flatten()
    words["probe"] = torch.stack(
        [
            word_ids[probe_hits(probed[:, axis].flatten(0, 1), labels, states[:, axis].flatten(0, 1), len(world.words))]
            for axis in range(states.shape[1])
        ]
    )
    words["probe"] = words["probe"].unflatten(1, data.shares.shape[:2]).transpose(0, 1)
    own = data.shares.argmax(-1)  # [scenes, patches]
    nouns = len(world.nouns)
    thing, ground = (part.amax(-1) >= 0.5 for part in (data.shares[..., :nouns], data.shares[..., nouns:]))
    thing &= word_ids[own] >= 0

    def share(found: torch.Tensor, where: torch.Tensor, label: torch.Tensor, top: int) -> str:
        hits = (found[where][:, :top] == word_ids[label[where]][:, None]).any(-1).float().mean().item()
        return f"{100 * hits:.1f}"

    figures: dict[str, Callable[[torch.Tensor], str]] = {
        "own noun, top 1": lambda found: share(found, thing, own, 1),
        "own noun, top 5": lambda found: share(found, thing, own, 5),
        "background colour, top 1": lambda found: share(found, ground, own, 1),
        "control: another picture's noun, top 1": lambda found: share(found, thing.roll(1, 0), own.roll(1, 0), 1),
    }
    lines = []
    for title, figure in figures.items():
        named = ["embed" if layer == interp.EMBED else str(layer) for layer in every]
        lines += [f"| {title} | {' | '.join(named)} |", f"|---|{'---|' * len(every)}"]
        lines += [f"| {name} | {' | '.join(figure(found[:, axis]) for axis in range(len(every)))} |" for name, found in words.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what the lenses of an embedded model read on patches.")
    parser.add_argument("--model", choices=WORLDS, default="emoji-llava")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--spacing", type=int, default=1, help="read every block (1), every third (3), and always the first and the last")
    args = parser.parse_args()
    vlm, world = interp.load(args.model), WORLDS[args.model]
    every = sorted({interp.EMBED, *range(0, vlm.n_layers, args.spacing), vlm.n_layers - 1})
    other = sample("probe", PROBE_FACTOR * args.scenes, SEEN_VENDORS, world=world)
    for title, vendors in (("Seen vendors", SEEN_VENDORS), ("The vendor kept out of training", [HELD_OUT_VENDOR])):
        read = table(vlm, world, sample("test lens", args.scenes, vendors, world=world), other, every)
        print(f"{title}, {args.scenes} scenes:\n\n{read}\n", flush=True)  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
