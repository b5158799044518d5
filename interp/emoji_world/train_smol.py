"""Train `smol-llava`: `python -m interp.emoji_world.train_smol --help`. Every stage can be stopped at any time and resumes where it was.

Its decoder is SmolLM2-135M-Instruct as it was published: no stage changes it, and no stage has a loss at image positions of the decoder.

1. `patches`  The CLIP tower alone, from emoji-llava's: which words cover which patch, through a linear head that is then discarded.
2. `fit`      The projector alone, without the decoder: from patch features to the decoder's input embedding of the word on the patch.
3. `align`    Projector and tower, from the answers only (the first stage of LLaVA; Liu et al. 2023, arXiv 2304.08485).
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from .architecture import CELLS, IMAGE_SIDE, build_processor
from .conversations import pack, sample_questions
from .scenes import draw
from .smol import CHAT_TEMPLATE, FOLDER, GGUF, build_model, build_tokenizer, save
from .sprites import SEEN_VENDORS, load_sprites
from .train import Step, Studio, load_parts, patches_step, run
from .world import ENGLISH

BRANCHES = 4  # questions for each scene
FIT_SCENES, FIT_STEPS, FIT_ROWS, FIT_RATE = 4800, 900, 2048, 1e-3
SHARPNESS = 8.0  # of the comparison of distances, in units of the words' own variance
SCENES = {"patches": 100_000, "align": 3_200}
BATCH = {"patches": 48, "align": 8}


@torch.no_grad()
def word_vectors(studio: Studio) -> torch.Tensor:
    """The decoder's input embedding of every word, the mean of its pieces: [words, d]."""
    table = studio.model.get_input_embeddings().weight.float()
    pieces = studio.processor.tokenizer([f" {word}" for word in studio.world.words], add_special_tokens=False).input_ids
    return torch.stack([table[ids].mean(0) for ids in pieces])


def fit_projector(studio: Studio) -> float:
    """Stage 2. Returns the share of patches of things, in the last step, whose nearest word vector is then their own.

    Least squares alone keep the colours and lose the nouns, of which each is rare: so the distance to the word's vector is also compared with
    the distances to all others.
    """
    vectors = word_vectors(studio)
    projector = studio.model.model.multi_modal_projector
    rng = random.Random("fit")
    features, shares = [], []
    with torch.no_grad():
        for _ in tqdm(range(FIT_SCENES // studio.batch), desc="pictures"):
            pictures, covered = draw(studio.scenes(rng, crowded=0.5), studio.sprites, IMAGE_SIDE, CELLS, studio.world.nouns)
            features.append(studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:].flatten(0, 1))
            shares.append(covered.flatten(0, 1))
    x, y = torch.cat(features), torch.cat(shares)
    spread = (vectors - vectors.mean(0)).square().sum(-1).mean()
    opt = torch.optim.AdamW(projector.parameters(), FIT_RATE, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        projector.linear_1.weight.div_(x.std())
        projector.linear_2.bias.copy_(vectors.mean(0))
    bar = tqdm(range(FIT_STEPS), desc="fit", mininterval=10)
    for i in bar:
        for group in opt.param_groups:
            group["lr"] = FIT_RATE * (1 - i / FIT_STEPS)
        rows = torch.randint(len(x), (FIT_ROWS,), generator=generator)
        out, truth = projector(x[rows]), y[rows]
        distances = torch.cdist(out, vectors).square() / spread
        named = -(nn.functional.log_softmax(-SHARPNESS * distances, dim=-1) * truth).sum(-1)
        near = (out - truth @ vectors).square().sum(-1) / spread
        weight = 1 + 2 * truth[:, : len(studio.world.nouns)].sum(-1)  # most patches are background
        loss = (weight * (named + near)).sum() / weight.sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
        hit = distances.argmin(-1) == truth.argmax(-1)
        thing = truth[:, : len(studio.world.nouns)].amax(-1) > 0.5
        bar.set_postfix({"loss": f"{loss.item():.3f}", "things": f"{hit[thing].float().mean():.3f}"}, refresh=False)
    return hit[thing].float().mean().item()


def answers_step(studio: Studio) -> Step:
    """Stage 3: see the module's docstring."""
    tokenizer, world = studio.processor.tokenizer, studio.world
    naming = torch.zeros(len(tokenizer), dtype=torch.bool)
    for ids in tokenizer([f" {noun}" for noun in world.nouns], add_special_tokens=False).input_ids:
        naming[ids[0]] = True

    def step(rng: random.Random, progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng, augment=float(progress > 0.1))
        pictures, _ = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS, world.nouns)
        features = studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
        image = studio.model.model.multi_modal_projector(features).to(torch.bfloat16)
        packed = pack(tokenizer, [sample_questions(s, rng, BRANCHES, world=world) for s in scenes], CELLS * CELLS, world)
        states = studio.decode(packed, image)
        rows = packed.answer
        logits, targets = studio.model.lm_head(states[rows]).float(), packed.targets[rows]
        loss = nn.functional.cross_entropy(logits, targets)
        with torch.no_grad():
            hit = (logits.argmax(-1) == targets).float()
            # The nouns of descriptions, which come first: those of other answers may only repeat the question.
            ends = (packed.ids == tokenizer.eos_token_id).cumsum(1)[rows]
            nouns = naming[targets] & (ends < 2)
        return {"loss": loss, "answer words": hit.mean(), "nouns": hit[nouns].mean()}

    return step


def load_decoder(model: Any, folder: Path = FOLDER) -> None:
    """SmolLM2's weights, out of the GGUF file."""
    found: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF)
    model.get_decoder().load_state_dict(found.model.state_dict())
    model.tie_weights()


def adam(modules: list[nn.Module], rate: float) -> list[torch.optim.Optimizer]:
    """The usual optimizer, since orthogonal updates would undo the fit."""
    return [
        torch.optim.AdamW([p for module in modules for p in module.parameters()], rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    ]


def stages(studio: Studio, work: Path) -> dict[str, Callable[[int, int], None]]:
    """Every stage as a function of its numbers of scenes and scenes in a batch."""
    model = studio.model
    parts: dict[str, nn.Module] = {"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}

    def patches(scenes: int, batch: int) -> None:
        head = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, len(studio.world.words)))
        trained = {"tower": parts["tower"], "head": nn.ModuleDict({"head": head})}
        run("patches", patches_step(studio, head), trained, {"tower": 1e-3, "head": 2e-3}, work, scenes, batch, 2)

    def align(scenes: int, batch: int) -> None:
        load_parts(work, "patches", parts)
        load_decoder(model)
        model.get_decoder().to(torch.bfloat16)
        model.lm_head.to(torch.bfloat16)
        model.get_decoder().requires_grad_(requires_grad=False)
        model.lm_head.requires_grad_(requires_grad=False)
        if not (work / "align.pt").exists():
            print(f"fit: {fit_projector(studio):.1%} of the patches of things are nearest to their own word")  # noqa: T201 - progress of a command
        run("align", answers_step(studio), parts, {"projector": 5e-4, "tower": 1e-4}, work, scenes, batch, 3, adam)

    return {"patches": patches, "align": align}


def assemble(studio: Studio, work: Path, target: Path) -> None:
    """Write the newest tower and projector, and everything else that `interp.load` needs, into `target`; the GGUF file must lie there already."""
    parts: dict[str, nn.Module] = {"tower": studio.model.model.vision_tower, "projector": studio.model.model.multi_modal_projector}
    for stage in SCENES:
        load_parts(work, stage, parts)
    save(studio.model, studio.processor, target)
    seen = {stage: torch.load(work / f"{stage}.pt", weights_only=True)["scenes"] for stage in SCENES if (work / f"{stage}.pt").exists()}
    (target / "training.json").write_text(json.dumps(seen) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=[*SCENES, "assemble"])
    parser.add_argument("--work", type=Path, default=Path("build/smol-llava"), help="where unfinished stages are kept")
    parser.add_argument(
        "--target", type=Path, default=FOLDER, help="where `assemble` writes the checkpoint, beside the decoder's GGUF file"
    )
    parser.add_argument("--scenes", type=int, help="instead of each stage's own number")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    args.work.mkdir(parents=True, exist_ok=True)
    processor = build_processor(build_tokenizer(), CHAT_TEMPLATE)
    studio = Studio(build_model(processor), processor, load_sprites(SEEN_VENDORS, world=ENGLISH), torch.device("cpu"), 0, ENGLISH)
    for stage in args.stages:
        if stage == "assemble":
            assemble(studio, args.work, args.target)
        else:
            studio.batch = BATCH[stage]
            stages(studio, args.work)[stage](args.scenes or SCENES[stage], BATCH[stage])


if __name__ == "__main__":
    main()
