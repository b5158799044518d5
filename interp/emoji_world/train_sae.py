"""Train, label and measure the SAE of an embedded model: `python -m interp.emoji_world.train_sae --model emoji-llava`.

A BatchTopK SAE (Bussmann et al. 2024) is trained by sae-lens on the residual stream after one block, on image, prompt and answer tokens, and
as many tokens of an English text as of answers if one is given. It can be stopped at any time and resumes from its last piece or checkpoint. Then `measure_sae` computes labels, densities
and metrics on unseen scenes, and writes the folder that the app loads.
"""

import argparse
import dataclasses
import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

import interp

from ..lens.text_states import text_states
from ..saes.train import Plan
from ..saes.train import train as train_on
from .activations import balanced, batches, studio
from .measure_sae import measure

PIECE = 10  # batches per file
BATCH = 1024  # tokens in a training step
RATE = 2e-3
CHECKPOINTS = 30
TEXT_TOKENS = 20_000  # of the text that is kept for measuring
SINK = 10.0  # times the median norm: tokens with massive activations (Sun et al. 2024) would rule the loss
LINES = 64  # of English text read together


@dataclass(frozen=True)
class Recipe:
    """How the SAE of one model is trained."""

    layer: int
    features: int
    active: int
    """Features per token, on average over a batch."""
    tokens: int
    """Training samples; the pool is smaller and is passed over several times."""
    batches: int
    """Batches of 48 scenes with four questions each, which the pool is drawn from."""
    pool: str
    """Tokens in the pool, for the model card."""
    chosen: str
    """How layer, size and sparsity were chosen, for the model card."""
    patches: float = 1.0
    """Image tokens in the pool for each token of answers, as far as there are any: the more nouns, the fewer patches show each."""
    half: bool = False
    """Whether states are computed in bfloat16, in less than half the time for a decoder of this size, and weights are kept in float16."""


RECIPES = {
    "emoji-llava": Recipe(
        layer=3,
        features=2048,
        active=6,
        tokens=3_000_000,
        batches=240,
        pool="600 000",
        chosen="Layer, size and sparsity were chosen for steering, in trials that no command here repeats: the fewer features share a noun, the more of it "
        "ablating them removes. All features with at least a quarter (layer 5) or 30 % (layer 3) of their activation on the noun were ablated, in scenes of "
        "two things. The noun left the answer in 1 of 30 scenes at layer 5 with 10 of 2048 features active (1.5 million samples); at layer 3, after 0.6 to 0.8 million, in 0 of 12 "
        "with 8 of 1024, in 2 of 12 with 6 of 512, in 4 of 12 with 5 of 2048 and in 9 of 16 with 3 of 1024, which explained only 81 % of the image "
        "tokens. With all features that have at least 7 %, it was 11 of 12 with 5 of 2048.",
    ),
    "smol-llava": Recipe(
        layer=3,
        features=2048,
        active=10,
        tokens=3_000_000,
        batches=140,
        pool="800 000",
        chosen="Layer and size were chosen in trials that no command here repeats: at layer 14, with 24 of 2048 features active and on states of an earlier "
        "projector, the median average precision of nouns was 0.41 after 1.2 million samples, and all features of a noun off removed it from 2 of 16 answers; "
        "at layer 3 it was 13 of 14. Weights are kept in float16.",
        patches=2.0,
        half=True,
    ),
}


def pool_of(recipe: Recipe, *, english_text: bool) -> str:
    """What the pool consists of, for the model card."""
    kinds = "prompt, answer and English text" if english_text else "prompt and answer"
    return (
        f"image, {kinds} in equal parts"
        if recipe.patches == 1
        else f"{kinds} in equal parts, and {recipe.patches:g} times as many of images"
    )


def english(vlm: interp.Vlm, layer: int, lines: Sequence[str], count: int, rng: random.Random) -> torch.Tensor:
    """States [count, d] of tokens of random lines of text, without the first of each line, which is a sink."""
    parts: list[torch.Tensor] = []
    while sum(map(len, parts)) < count:
        rows = [ids for ids in vlm.tokenizer(rng.sample(lines, min(LINES, len(lines))), add_special_tokens=False).input_ids if len(ids) > 1]
        states = text_states(vlm, rows, [layer])[layer].float().cpu()
        parts += [state[1 : len(row)] for state, row in zip(states, rows, strict=True)]
    return torch.cat(parts)[:count]


def collect(vlm: interp.Vlm, work: Path, recipe: Recipe, lines: Sequence[str] = ()) -> torch.Tensor:
    """Balanced tokens [N, d] of scenes, and of lines of text, in float16, without sinks. Finished pieces in `work` are reused."""
    desk, layer = studio(vlm), recipe.layer
    pieces = []
    for piece in tqdm(range(-(-recipe.batches // PIECE)), desc="residual streams"):
        file = work / f"layer-{layer}-{piece:04}.safetensors"
        if not file.exists():
            generator = torch.Generator().manual_seed(piece)
            made = itertools.islice(batches(desk, [layer], f"sae {piece}"), PIECE)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
                parts = [balanced(batch, 0, generator, recipe.patches) for batch in made]
                if lines:
                    texts = sum(map(len, parts)) / (2 + recipe.patches)
                    parts.append(english(vlm, layer, lines, round(texts), random.Random(f"sae {piece}")))
            states = torch.cat(parts)
            save_file({"states": states.half()}, file.with_suffix(".tmp"))
            file.with_suffix(".tmp").replace(file)
        pieces.append(load_file(file)["states"])
    states = torch.cat(pieces)
    norms = states.float().norm(dim=-1)
    return states[norms <= SINK * norms.median()]


def stream(states: torch.Tensor, start: int) -> Iterator[torch.Tensor]:
    """Endless shuffled training batches [BATCH, d], from the `start`-th on."""
    generator, number = torch.Generator().manual_seed(0), 0
    while True:
        for chosen in torch.randperm(len(states), generator=generator).split(BATCH)[:-1]:
            if number >= start:
                yield states[chosen].float()
            number += 1


def train(states: torch.Tensor, work: Path, model: str, recipe: Recipe) -> None:
    """Train, or resume from the newest checkpoint in `work`. Writes the SAE, still without labels, to `work`/finished."""
    plan = Plan(
        architecture="batchtopk",
        features=recipe.features,
        active=recipe.active,
        tokens=recipe.tokens,
        batch=BATCH,
        rate=RATE,
        warm_up=100,
        dead_after=200,
        checkpoints=CHECKPOINTS,
        metadata={
            "model_name": model,
            "hook_name": f"blocks.{recipe.layer}.hook_resid_post",
            "prepend_bos": True,
            "dataset_path": "scenes of interp.emoji_world",
        },
    )
    finished = train_on(plan, states.shape[1], functools.partial(stream, states), work)
    if recipe.half:
        file = finished / "sae_weights.safetensors"
        save_file({name: value.half() for name, value in load_file(file).items()}, file)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=RECIPES, default="emoji-llava")
    parser.add_argument("--work", type=Path, help="where checkpoints are kept (default: build/MODEL-sae)")
    parser.add_argument("--target", type=Path, help="where the finished SAE is written (default: assets/MODEL-sae)")
    parser.add_argument("--layer", type=int, help="instead of the model's own")
    parser.add_argument("--tokens", type=int, help="training samples, instead of the model's own number")
    parser.add_argument("--text", type=Path, help="an English text of one sentence a line; its last tenth is kept for measuring")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--measure", action="store_true", help="do not train: label and measure the SAE in the target folder again (minutes)"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    vlm, recipe = interp.load(args.model), RECIPES[args.model]
    work, target = args.work or Path(f"build/{args.model}-sae"), args.target or Path(f"assets/{args.model}-sae")
    given = {name: value for name in ("layer", "tokens") if (value := getattr(args, name)) is not None}
    recipe = dataclasses.replace(recipe, **given)
    lines = args.text.read_text(encoding="utf-8").splitlines() if args.text else []
    learned, unseen = lines[: -len(lines) // 10], lines[-len(lines) // 10 :]
    finished = target if args.measure else work / "finished"
    work.mkdir(parents=True, exist_ok=True)
    if not (finished / "cfg.json").exists():
        train(collect(vlm, work, recipe, learned), work, args.model, recipe)
    about = {
        "k": recipe.active,
        "tokens": recipe.tokens,
        "pool": recipe.pool,
        "parts": pool_of(recipe, english_text=bool(lines)),
        "chosen": recipe.chosen,
    }
    others = {"English text": english(vlm, recipe.layer, unseen, TEXT_TOKENS, random.Random("test"))} if lines else {}
    measure(vlm, finished, target, about, others)


if __name__ == "__main__":
    main()
