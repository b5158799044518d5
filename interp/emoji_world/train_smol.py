"""Train `smol-llava`: `python -m interp.emoji_world.train_smol --help`. Every stage can be stopped at any time and resumes where it was.

Its decoder is SmolLM2-135M-Instruct as it was published: no stage changes it, and no stage has a loss at image positions of the decoder.

1. `patches`  The CLIP tower alone, from emoji-llava's: which words cover which patch, through a linear head that is then discarded.
2. `fit`      The projector alone, in one step: least squares from patch features to the decoder's input embedding of the word on the patch.
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

from .architecture import CELLS, IMAGE_SIDE
from .conversations import pack, sample_questions
from .scenes import draw
from .smol import FOLDER, GGUF, build_model, build_processor, save
from .sprites import SEEN_VENDORS, load_sprites
from .train import Step, Studio, load_parts, patches_step, run
from .world import ENGLISH

BRANCHES = 4  # questions for each scene
FIT_BATCHES = 60
SCENES = {"patches": 100_000, "align": 4_000}
BATCH = {"patches": 48, "align": 8}


def word_vectors(studio: Studio) -> torch.Tensor:
    """The decoder's input embedding of every word, the mean of its pieces: [words, d]."""
    table = studio.model.get_input_embeddings().weight.float()
    pieces = studio.processor.tokenizer([f" {word}" for word in studio.world.words], add_special_tokens=False).input_ids
    return torch.stack([table[ids].mean(0) for ids in pieces])


@torch.no_grad()
def fit_projector(studio: Studio) -> float:
    """Stage 2. Returns the share of the embeddings' variance that the projector explains.

    LLaVA's projector has a hidden layer with GELU. For large inputs GELU is the identity, so the first matrix lifts features onto its straight
    part and the second one holds the least-squares map.
    """
    vectors = word_vectors(studio)
    projector = studio.model.model.multi_modal_projector
    rng = random.Random("fit")
    features, targets = [], []
    for _ in tqdm(range(FIT_BATCHES), desc="fit"):
        pictures, shares = draw(studio.scenes(rng), studio.sprites, IMAGE_SIDE, CELLS, studio.world.nouns)
        features.append(studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:].flatten(0, 1))
        targets.append(shares.flatten(0, 1) @ vectors)
    x, y = torch.cat(features), torch.cat(targets)
    hidden = projector.linear_1.out_features
    torch.manual_seed(0)
    # More hidden units than features: random directions of which the first d see a straight line, the others a bend.
    first = torch.randn(hidden, x.shape[1]) / x.std(0) / x.shape[1] ** 0.5
    bend = torch.zeros(hidden)
    bend[: x.shape[1]] = 4.0
    projector.linear_1.weight.copy_(first)
    projector.linear_1.bias.copy_(bend - first @ x.mean(0))
    h = projector.act(projector.linear_1(x))
    h = torch.cat([h, torch.ones(len(h), 1)], dim=1).double()
    gram = h.T @ h
    gram += 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram, h.T @ y.double())
    projector.linear_2.weight.copy_(solved[:-1].T)
    projector.linear_2.bias.copy_(solved[-1])
    residual = projector(x) - y
    return 1 - (residual.square().sum() / (y - y.mean(0)).square().sum()).item()


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
            nouns = naming[targets]
        return {"loss": loss, "answer words": hit.mean(), "nouns": hit[nouns].mean()}

    return step


def load_decoder(model: Any, folder: Path = FOLDER) -> None:
    """SmolLM2's weights, out of the GGUF file."""
    found: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF)
    model.get_decoder().load_state_dict(found.model.state_dict())
    model.tie_weights()


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
            print(f"fit: {fit_projector(studio):.3f} of the variance")  # noqa: T201 - progress of a command
        run("align", answers_step(studio), parts, {"projector": 2e-3, "tower": 2e-4}, work, scenes, batch, 3)

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
    processor = build_processor()
    studio = Studio(build_model(processor), processor, load_sprites(SEEN_VENDORS, world=ENGLISH), torch.device("cpu"), 0, ENGLISH)
    for stage in args.stages:
        if stage == "assemble":
            assemble(studio, args.work, args.target)
        else:
            studio.batch = BATCH[stage]
            stages(studio, args.work)[stage](args.scenes or SCENES[stage], BATCH[stage])


if __name__ == "__main__":
    main()
