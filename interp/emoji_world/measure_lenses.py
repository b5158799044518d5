"""What each lens of `emoji-llava` reads on its patches: `python -m interp.emoji_world.measure_lenses`.

On scenes that no training used, of seen vendors and of the one kept out of training: how often a lens's first word (or one of its first five) is
the noun that covers at least half of an object patch, and how often it is the colour of a background patch. The control takes the nouns of
another picture. Beside the lenses a linear probe of the same states, which was fitted on other scenes and knows their labels.
"""

import argparse
from collections.abc import Callable, Mapping

import torch
from tqdm import tqdm

import interp
from interp.presets import ASSETS

from .measure import N_NOUNS, PROBE_FACTOR, Sample, probe_hits, sample
from .sprites import HELD_OUT_VENDOR, SEEN_VENDORS
from .words import QUESTIONS, WORDS

LENSES = ASSETS / "emoji-llava-lenses"
Read = Callable[[interp.Trace, list[int]], interp.Lens]


def lenses(layers: int) -> dict[str, Read]:
    """The lenses of emoji-llava: the five best words of every layer at some positions of a trace."""
    tuned, token = (interp.load_translators(LENSES / kind) for kind in ("tuned", "token"))
    index = interp.load_index(LENSES / "contextual")
    every = list(range(interp.EMBED, layers))
    return {
        "logit": lambda trace, rows: interp.logit_lens(trace, 5, every, rows),
        "tuned": lambda trace, rows: interp.tuned_lens(trace, tuned, 5, every, rows),
        "token": lambda trace, rows: interp.token_lens(trace, token, 5, every, rows),
        "contextual": lambda trace, rows: interp.contextual_lens(trace, index, 5, every, rows),
        "embedding": lambda trace, rows: interp.embedding_lens(trace, 5, every, rows),
    }


def states_and_words(vlm: interp.Vlm, data: Sample, reads: Mapping[str, Read]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """States [scenes, layers, patches, d], and each lens's words [scenes, layers, patches, 5]."""
    states: list[torch.Tensor] = []
    ids: dict[str, list[torch.Tensor]] = {name: [] for name in reads}
    for picture in tqdm(data.pictures, desc="pictures"):
        trace = vlm.trace(picture, QUESTIONS["describe"][0], max_new_tokens=1)
        rows = trace.grids[0].positions.flatten().tolist()
        states.append(trace.states[:, rows].float())
        for name, read in reads.items():
            ids[name].append(read(trace, rows).ids)
    return torch.stack(states), {name: torch.stack(found) for name, found in ids.items()}


def table(vlm: interp.Vlm, data: Sample, other: Sample) -> str:
    """Percentages for each lens (or the probe, fitted on `other`) and layer, as Markdown."""
    word_ids = torch.tensor([vlm.vocabulary.resolve(word, vlm.tokenizer)[f" {word}"] for word in WORDS])
    states, words = states_and_words(vlm, data, lenses(vlm.n_layers))
    probed, _ = states_and_words(vlm, other, {})
    labels = other.shares.argmax(-1).flatten()
    words["probe"] = torch.stack(
        [word_ids[probe_hits(probed[:, axis].flatten(0, 1), labels, states[:, axis].flatten(0, 1))] for axis in range(states.shape[1])]
    )
    words["probe"] = words["probe"].unflatten(1, data.shares.shape[:2]).transpose(0, 1)
    own = data.shares.argmax(-1)  # [scenes, patches]
    thing, ground = (part.amax(-1) >= 0.5 for part in (data.shares[..., :N_NOUNS], data.shares[..., N_NOUNS:]))

    def share(found: torch.Tensor, where: torch.Tensor, label: torch.Tensor, top: int) -> str:
        hits = (found[where][:, :top] == word_ids[label[where]][:, None]).any(-1).float().mean().item()
        return f"{100 * hits:.1f}"

    lines = [
        "| lens | layer | own noun top 1 | own noun top 5 | background color top 1 | another picture's noun top 1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in words.items():
        for axis in range(states.shape[1]):
            at = found[:, axis]
            cells = (
                share(at, thing, own, 1),
                share(at, thing, own, 5),
                share(at, ground, own, 1),
                share(at, thing.roll(1, 0), own.roll(1, 0), 1),
            )
            lines.append(f"| {name} | {'embed' if axis == 0 else axis - 1} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what the lenses of emoji-llava read on patches.")
    parser.add_argument("--scenes", type=int, default=200)
    args = parser.parse_args()
    vlm = interp.load("emoji-llava")
    other = sample("probe", PROBE_FACTOR * args.scenes, SEEN_VENDORS)
    for title, vendors in (("Seen vendors", SEEN_VENDORS), ("The vendor kept out of training", [HELD_OUT_VENDOR])):
        print(f"{title}, {args.scenes} scenes:\n\n{table(vlm, sample('test lens', args.scenes, vendors), other)}\n")  # noqa: T201 - this is the command's output


if __name__ == "__main__":
    main()
