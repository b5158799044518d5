"""Train `emoji-llava`: `python -m interp.emoji_world.train --help`. Every stage can be stopped at any time and resumes where it was.

1. `words`   The decoder alone, on text: the scene as a raster of words, one for each patch, some of them masked or swapped. Each
             cell's target is its own true word (denoising), the words of questions and answers have the usual next-word target.
2. `patches` The CLIP tower alone: which words cover which patch, through a linear head that is then discarded.
3. `align`   Decoder frozen; projector and tower learn from the answers only. No loss at image positions.
4. `tune`    All parts, at a low rate, from the answers only. No loss at image positions.
5. `late`    The decoder alone, from the answers only, learns to read the picture late: after a random block the picture's states are
             exchanged for another picture's, and the answer must be about the second one (interchange intervention training, Geiger et
             al. 2022). Without it the text reads all it needs in block 0, and no edit of a later patch could change an answer.

Stages 1 and 2 are independent and can run in parallel.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import LlavaProcessor

from .architecture import CELLS, IMAGE_SIDE, MEAN, STD, build_model, build_processor, whiten_patches
from .conversations import Packed, pack, sample_questions
from .muon import optimizers as muon
from .scenes import Scene, draw, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .words import NOUNS, WORDS
from .world import EMOJI, World

BRANCHES = 4  # questions for each scene
SAVE_EVERY = 60.0  # seconds
WARM_UP = 60  # steps
LATEST = 5  # last block after which `late` exchanges pictures: the two after it read the second one
Step = Callable[[random.Random, float], dict[str, torch.Tensor]]  # (random numbers, progress from 0 to 1) -> "loss" and what to show


@dataclass
class Studio:
    """What every stage works with."""

    model: Any  # a LlavaForConditionalGeneration, whose parts have no useful static types
    processor: LlavaProcessor
    sprites: torch.Tensor
    device: torch.device
    batch: int
    world: World = EMOJI

    @property
    def word_ids(self) -> torch.Tensor:
        """Token ids of `WORDS`."""
        ids = self.processor.tokenizer([f" {word}" for word in WORDS], add_special_tokens=False).input_ids
        return torch.tensor(ids, device=self.device).squeeze(1)

    def scenes(self, rng: random.Random, *, augment: float = 1.0, crowded: float = 0.0) -> list[Scene]:
        """A batch of training scenes, from the seen vendors only; a share of them `crowded`."""
        vendors = range(len(SEEN_VENDORS))
        return [
            sample_scene(rng, vendors, augment=augment, crowded=rng.random() < crowded, nouns=self.world.nouns) for _ in range(self.batch)
        ]

    def pixels(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1] as the tower expects them."""
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        return ((pictures - mean) / std).to(self.device)

    def decode(self, packed: Packed, image: torch.Tensor) -> torch.Tensor:
        """The decoder's normed last states [B, T, d], with `image` [B, patches, d] at the image positions."""
        embeds = self.model.get_input_embeddings()(packed.ids.to(self.device))
        embeds = torch.cat([embeds[:, : packed.image.start], image, embeds[:, packed.image.stop :]], dim=1)
        return self.model.model.language_model(
            inputs_embeds=embeds,
            position_ids=packed.positions.to(self.device),
            attention_mask=packed.mask.to(self.device),
            use_cache=False,
        ).last_hidden_state

    def next_word_loss(self, states: torch.Tensor, packed: Packed, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean next-token loss and accuracy over `rows` [B, T]."""
        rows = rows.to(self.device)
        logits, targets = self.model.lm_head(states[rows]), packed.targets.to(self.device)[rows]
        return F.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean()


def words_step(studio: Studio) -> Step:
    """Stage 1: see the module's docstring."""
    word_ids = studio.word_ids

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng)
        shares = draw(scenes, studio.sprites, side=4 * CELLS, cells=CELLS)[1].to(studio.device)
        own = shares.argmax(-1)
        # A cell is the mixture of the words that cover it; then up to 40 % are masked or swapped, and all are blurred a little, as
        # the projector's words will be.
        table = studio.model.get_input_embeddings().weight
        cells = shares @ table[word_ids]
        rate = 0.4 * torch.rand(len(scenes), 1, device=studio.device)
        fate = torch.rand(own.shape, device=studio.device)
        swapped = table[word_ids[torch.randint(len(WORDS), own.shape, device=studio.device)]]
        unknown = table[studio.processor.tokenizer.image_token_id]
        cells = torch.where((fate < rate / 2)[..., None], swapped, cells)
        cells = torch.where(((fate >= rate / 2) & (fate < rate))[..., None], unknown, cells)
        cells = cells + 0.2 * table[word_ids].std() * torch.randn_like(cells)
        packed = pack(studio.processor.tokenizer, [sample_questions(s, rng, BRANCHES) for s in scenes], CELLS * CELLS)
        states = studio.decode(packed, cells)
        cell_logits = studio.model.lm_head(states[:, packed.image])
        cell_loss = F.cross_entropy(cell_logits.flatten(0, 1), word_ids[own].flatten())
        text_loss, _ = studio.next_word_loss(states, packed, packed.targets >= 0)
        with torch.no_grad():
            _, accuracy = studio.next_word_loss(states, packed, packed.answer)
            thing = own < len(NOUNS)
            cell_accuracy = (cell_logits.argmax(-1) == word_ids[own])[thing].float().mean()
        return {"loss": cell_loss + text_loss, "cells": cell_accuracy, "answer words": accuracy}

    return step


def patches_step(studio: Studio, head: nn.Module) -> Step:
    """Stage 2: see the module's docstring."""
    nouns = studio.world.nouns

    def step(rng: random.Random, progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng, augment=min(1.0, 3 * progress), crowded=0.7)
        pictures, shares = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS, nouns)
        shares = shares.to(studio.device)
        states = studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
        logits = head(states)
        weight = 1 + 2 * shares[..., : len(nouns)].sum(-1)  # most patches are background, and that is the easy part
        losses = -(F.log_softmax(logits, dim=-1) * shares).sum(-1)
        with torch.no_grad():
            hit = logits.argmax(-1) == shares.argmax(-1)
            thing = shares[..., : len(nouns)].amax(-1) > 0.5
        return {"loss": (losses * weight).sum() / weight.sum(), "nouns": hit[thing].float().mean(), "colors": hit[~thing].float().mean()}

    return step


def answers_step(studio: Studio) -> Step:
    """Stages 3 and 4: see the module's docstring."""

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng)
        pictures, _ = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS)
        features = studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
        image = studio.model.model.multi_modal_projector(features)
        packed = pack(studio.processor.tokenizer, [sample_questions(s, rng, BRANCHES) for s in scenes], CELLS * CELLS)
        states = studio.decode(packed, image)
        loss, accuracy = studio.next_word_loss(states, packed, packed.answer)
        with torch.no_grad():
            nouns = packed.answer & torch.isin(packed.targets, studio.word_ids[: len(NOUNS)].cpu())
            _, noun_accuracy = studio.next_word_loss(states, packed, nouns)
        return {"loss": loss, "answer words": accuracy, "nouns": noun_accuracy}

    return step


def late_step(studio: Studio) -> Step:
    """Stage 5: see the module's docstring."""
    blocks = studio.model.model.language_model.layers

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng)
        pictures, _ = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS)
        with torch.no_grad():
            features = studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
            image = studio.model.model.multi_modal_projector(features)
        after = rng.randrange(-1, LATEST + 1)  # -1: nothing is exchanged
        told = [*scenes[1:], scenes[0]] if after >= 0 else scenes
        packed = pack(studio.processor.tokenizer, [sample_questions(s, rng, BRANCHES) for s in told], CELLS * CELLS)

        def exchange(_module: Any, _args: Any, states: torch.Tensor) -> torch.Tensor:
            at = packed.image
            return torch.cat([states[:, : at.start], states[:, at].roll(-1, 0), states[:, at.stop :]], dim=1)

        with torch.autocast(studio.device.type, torch.bfloat16):
            handle = blocks[after].register_forward_hook(exchange) if after >= 0 else None
            try:
                states = studio.decode(packed, image)
            finally:
                if handle:
                    handle.remove()
        loss, _ = studio.next_word_loss(states.float(), packed, packed.answer)
        with torch.no_grad():
            nouns = packed.answer & torch.isin(packed.targets, studio.word_ids[: len(NOUNS)].cpu())
            _, noun_accuracy = studio.next_word_loss(states.float(), packed, nouns)
        return {"loss": loss, f"nouns {after}": noun_accuracy}

    return step


class Checkpoint:
    """One stage on disk: its parts and optimizers after some number of steps."""

    def __init__(self, file: Path, parts: dict[str, nn.Module], opts: list[torch.optim.Optimizer], batch: int) -> None:
        self.file, self.parts, self.opts, self.batch = file, parts, opts, batch
        self._saved_at = time.monotonic()

    def resume(self) -> int:
        """Load the file if it exists. Returns the number of steps done."""
        if not self.file.exists():
            return 0
        saved = torch.load(self.file, weights_only=True)
        for part, state in saved["parts"].items():
            self.parts[part].load_state_dict(state)
        for opt, state in zip(self.opts, saved["optimizers"], strict=True):
            opt.load_state_dict(state)
        return saved["step"]

    def save(self, done: int, *, now: bool = False) -> None:
        """Write after `done` steps, if the last save was long enough ago or `now` is set."""
        if not now and time.monotonic() - self._saved_at < SAVE_EVERY:
            return
        state = {
            "step": done,
            "scenes": done * self.batch,
            "parts": {part: module.state_dict() for part, module in self.parts.items()},
            "optimizers": [opt.state_dict() for opt in self.opts],
        }
        torch.save(state, self.file.with_suffix(".tmp"))
        self.file.with_suffix(".tmp").replace(self.file)
        self._saved_at = time.monotonic()


def run(
    name: str,
    step: Step,
    parts: dict[str, nn.Module],
    rates: dict[str, float],
    work: Path,
    scenes: int,
    batch: int,
    seed: int,
    optimizers: Callable[[list[nn.Module], float], list[torch.optim.Optimizer]] = muon,
) -> None:
    """Train `parts` (each at its own peak rate) on `scenes` scenes, resuming from and saving to `work`."""
    opts = [(rate, opt) for part, rate in rates.items() for opt in optimizers([parts[part]], rate)]
    checkpoint = Checkpoint(work / f"{name}.pt", parts, [opt for _, opt in opts], batch)
    start, batches = checkpoint.resume(), scenes // batch
    smooth: dict[str, float] = {}
    bar = tqdm(range(start, batches), initial=start, total=batches, desc=name, mininterval=10)
    for i in bar:
        progress = i / batches
        scale = min(1.0, (i + 1) / WARM_UP) * (1 - progress)
        for rate, opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate * scale
        torch.manual_seed(seed * 1_000_003 + i)
        values = step(random.Random(f"{name} {seed} {i}"), progress)
        values["loss"].backward()
        for _, opt in opts:
            opt.step()
            opt.zero_grad()
        for key, value in values.items():
            if value.isfinite():
                smooth[key] = 0.98 * smooth.get(key, value.item()) + 0.02 * value.item()
        bar.set_postfix({key: f"{value:.3f}" for key, value in smooth.items()}, refresh=False)
        checkpoint.save(i + 1)
    checkpoint.save(max(start, batches), now=True)


def load_parts(work: Path, stage: str, parts: dict[str, nn.Module]) -> bool:
    """Load what a stage has saved of these parts. Returns whether it has saved anything."""
    file = work / f"{stage}.pt"
    if file.exists():
        saved = torch.load(file, weights_only=True)["parts"]
        for part, module in parts.items():
            if part in saved:
                module.load_state_dict(saved[part])
    return file.exists()


def stages(studio: Studio, work: Path) -> dict[str, Callable[[int], None]]:
    """Every stage as a function of its number of scenes."""
    model = studio.model
    decoder = nn.ModuleDict({"language_model": model.model.language_model, "lm_head": model.lm_head})
    parts = {"decoder": decoder, "tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}
    head = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, len(WORDS))).to(studio.device)

    def words(scenes: int) -> None:
        run("words", words_step(studio), {"decoder": decoder}, {"decoder": 2e-3}, work, scenes, studio.batch, 1)

    def patches(scenes: int) -> None:
        if not (work / "patches.pt").exists():
            rng = random.Random("whitening")
            whiten_patches(model, studio.pixels(draw([s for _ in range(4) for s in studio.scenes(rng)], studio.sprites)[0]).cpu())
        trained = {"tower": parts["tower"], "head": nn.ModuleDict({"head": head})}
        run("patches", patches_step(studio, head), trained, {"tower": 2e-3, "head": 2e-3}, work, scenes, studio.batch, 2)

    def align(scenes: int) -> None:
        load_parts(work, "words", parts)
        load_parts(work, "patches", parts)
        decoder.requires_grad_(requires_grad=False)
        trained = {"projector": parts["projector"], "tower": parts["tower"]}
        run("align", answers_step(studio), trained, {"projector": 2e-3, "tower": 2e-4}, work, scenes, studio.batch, 3)

    def tune(scenes: int) -> None:
        load_parts(work, "words", parts)
        load_parts(work, "align", parts)
        rates = {"projector": 3e-4, "tower": 3e-4, "decoder": 1e-4}
        run("tune", answers_step(studio), parts, rates, work, scenes, studio.batch, 4)

    def late(scenes: int) -> None:
        load_parts(work, "tune", parts)
        run("late", late_step(studio), {"decoder": decoder}, {"decoder": 5e-4}, work, scenes, studio.batch, 5)

    return {"words": words, "patches": patches, "align": align, "tune": tune, "late": late}


def assemble(studio: Studio, work: Path, target: Path) -> None:
    """Write the newest state of all parts as a checkpoint that transformers loads."""
    model = studio.model
    decoder = nn.ModuleDict({"language_model": model.model.language_model, "lm_head": model.lm_head})
    parts = {"decoder": decoder, "tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}
    for stage in SCENES:
        load_parts(work, stage, parts)
    model.half().save_pretrained(target)
    studio.processor.save_pretrained(target)
    seen = {stage: torch.load(work / f"{stage}.pt", weights_only=True)["scenes"] for stage in SCENES if (work / f"{stage}.pt").exists()}
    (target / "training.json").write_text(json.dumps(seen) + "\n", encoding="utf-8")


SCENES = {"words": 60_000, "patches": 400_000, "align": 60_000, "tune": 40_000, "late": 60_000}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=[*SCENES, "assemble"])
    parser.add_argument("--work", type=Path, default=Path("build/emoji-llava"), help="where unfinished stages are kept")
    parser.add_argument("--target", type=Path, default=Path("assets/emoji-llava"), help="where `assemble` writes the checkpoint")
    parser.add_argument("--scenes", type=int, help="instead of each stage's own number")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.work.mkdir(parents=True, exist_ok=True)
    processor = build_processor()
    model: Any = build_model(processor)
    studio = Studio(model.to(device), processor, load_sprites(SEEN_VENDORS), device, args.batch)
    for stage in args.stages:
        if stage == "assemble":
            assemble(studio, args.work, args.target)
        else:
            stages(studio, args.work)[stage](args.scenes or SCENES[stage])


if __name__ == "__main__":
    main()
