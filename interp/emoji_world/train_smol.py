"""Train `smol-llava`: `python -m interp.emoji_world.train_smol --help`. Every stage can be stopped at any time and resumes where it was.

Its decoder is SmolLM2-135M-Instruct as it was published: no stage changes it, and no stage has a loss at image positions of the decoder.

1. `patches`  The CLIP tower alone, from emoji-llava's: which words cover which patch, through a linear head that is then discarded.
2. `words`    Neither tower nor projector: what the decoder is to see on a patch of each word, how it is to be told the number of things and where
              each is, from answers about rasters of words. It starts at the words' own input embeddings, of which the decoder does not
              understand a raster.
3. `fit`      Tower and projector, without the decoder: from pictures to those rasters.
4. `align`    Projector and tower, from the answers only (the first stage of LLaVA; Liu et al. 2023, arXiv 2304.08485).

The detour over `words` pays because it trains no eyes: in 600 steps the decoder learned to name 98 % of the nouns of a raster. Where `fit` aimed at the
words' own embeddings and `align` followed at once, 400 steps reached 50 % of the nouns of a picture. Questions that must look something up ("Is there a dog?",
"Where is the dog?", "How many objects are there?") stayed at chance in 10 000 scenes of `align` until patches were told numbers and sides: with these,
900 steps of `words` brought 93, 84 and 98 % of their answers about rasters.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from .architecture import CELLS, IMAGE_SIDE, build_processor
from .conversations import pack, sample_questions
from .english import SIDES, side
from .scenes import Scene, draw
from .smol import CHAT_TEMPLATE, FOLDER, GGUF, build_model, build_tokenizer, save
from .sprites import SEEN_VENDORS, load_sprites
from .train import Step, Studio, load_parts, patches_step, run
from .world import ENGLISH

ALWAYS = ("describe", "where", "exists", "exists")  # asked about every scene: the decoder learns to look a thing up last
BRANCHES = 6  # questions for each scene
MOST = 3  # things in a scene that questions are asked about
SHARPNESS = 8.0  # of the comparison of distances, in units of the words' own variance
SOFT_NOISE = 0.15  # added to rasters of words, in units of the spread of their embeddings
SCENES = {"patches": 100_000, "words": 15_000, "fit": 150_000, "align": 4_500}
BATCH = {"patches": 48, "words": 10, "fit": 48, "align": 10}


class SoftPatches(nn.Module):
    """What the decoder is to see on the patches of a scene.

    On each patch, a vector for the word on it (which starts at the word's own input embedding, the mean of its pieces), one for the patch's position, one for where the
    thing on it stands, and one for the number of things in the scene.
    """

    vectors: torch.Tensor

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        table = studio.model.get_input_embeddings().weight.float()
        pieces = studio.processor.tokenizer([f" {word}" for word in studio.world.words], add_special_tokens=False).input_ids
        with torch.no_grad():
            vectors = torch.stack([table[ids].mean(0) for ids in pieces])
        self.register_buffer("vectors", vectors, persistent=False)
        width = vectors.shape[1]
        self.map = nn.Linear(width, width)
        nn.init.eye_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.changes = nn.ParameterDict({"words": torch.zeros_like(vectors), "positions": torch.zeros(CELLS * CELLS, width)})
        self.facts = nn.ParameterDict({"counts": torch.zeros(MOST, width), "sides": torch.zeros(len(SIDES), width)})
        self._nouns = {noun: i for i, noun in enumerate(studio.world.nouns)}

    @property
    def words(self) -> torch.Tensor:
        """The vectors of all words: [words, d]."""
        return self.map(self.vectors) + self.changes["words"]

    def told(self, scenes: Sequence[Scene], shares: torch.Tensor) -> torch.Tensor:
        """What is added on each patch for the number and the places of things: [B, patches, d]. `shares` as in `forward`."""
        sides = torch.zeros(*shares.shape[:2], len(SIDES))
        for b, scene in enumerate(scenes):
            for noun in set(scene.nouns):
                sides[b, :, SIDES.index(side(scene.nouns, noun))] += shares[b, :, self._nouns[noun]]
        counts = torch.tensor([len(scene.nouns) - 1 for scene in scenes])
        return self.facts["counts"][counts, None] + sides @ self.facts["sides"]

    def forward(self, scenes: Sequence[Scene], shares: torch.Tensor) -> torch.Tensor:
        """The vectors [B, patches, d] of patches that words cover by these shares [B, patches, words]."""
        return shares @ self.words + self.changes["positions"] + self.told(scenes, shares)


def words_step(studio: Studio, soft: SoftPatches) -> Step:
    """Stage 2: see the module's docstring."""
    noise = SOFT_NOISE * soft.vectors.std()
    answer = answer_loss(studio)

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng)
        _, shares = draw(scenes, studio.sprites, 4 * CELLS, CELLS, studio.world.nouns)
        image = soft(scenes, shares)
        return answer(scenes, image + noise * torch.randn_like(image), rng)

    return step


def fit_step(studio: Studio, soft: SoftPatches) -> Step:
    """Stage 3: see the module's docstring.

    Squared distances alone keep the colours and lose the nouns, of which each is rare: so the distance to the word's vector is also compared
    with the distances to all others.
    """
    nouns = len(studio.world.nouns)
    model = studio.model.model
    soft.requires_grad_(requires_grad=False)
    with torch.no_grad():
        words, positions = soft.words, soft.changes["positions"]
        spread = (words - words.mean(0)).square().sum(-1).mean()

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng)
        pictures, shares = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS, studio.world.nouns)
        features = model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
        out = model.multi_modal_projector(features) - positions - soft.told(scenes, shares)
        distances = (out.square().sum(-1, keepdim=True) - 2 * out @ words.T + words.square().sum(-1)) / spread
        named = -(nn.functional.log_softmax(-SHARPNESS * distances, dim=-1) * shares).sum(-1)
        near = (out - shares @ words).square().sum(-1) / spread
        weight = 1 + 2 * shares[..., :nouns].sum(-1)  # most patches are background
        loss = (weight * (named + near)).sum() / weight.sum()
        with torch.no_grad():
            hit = (distances.argmin(-1) == shares.argmax(-1)).float()
            thing = shares[..., :nouns].amax(-1) > 0.5
        return {"loss": loss, "nouns": hit[thing].mean(), "colors": hit[~thing].mean(), "off": near.mean()}

    return step


@torch.no_grad()
def start_projector(studio: Studio, soft: SoftPatches) -> None:
    """Scale the random projector to the tower's features and centre what it says on the words."""
    model = studio.model.model
    pictures, _ = draw(studio.scenes(random.Random("fit")), studio.sprites, IMAGE_SIDE, CELLS, studio.world.nouns)
    features = model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
    model.multi_modal_projector.linear_1.weight.div_(features.std())
    model.multi_modal_projector.linear_2.bias.copy_(soft.words.mean(0))


def answer_loss(studio: Studio) -> Callable[[list[Scene], torch.Tensor, random.Random], dict[str, torch.Tensor]]:
    """The loss on the answers to questions about scenes of which the decoder sees `image` [B, patches, d]."""
    tokenizer, world = studio.processor.tokenizer, studio.world
    naming = torch.zeros(len(tokenizer), dtype=torch.bool)
    for ids in tokenizer([f" {noun}" for noun in world.nouns], add_special_tokens=False).input_ids:
        naming[ids[0]] = True

    def answer(scenes: list[Scene], image: torch.Tensor, rng: random.Random) -> dict[str, torch.Tensor]:
        packed = pack(tokenizer, [sample_questions(s, rng, BRANCHES, world=world, always=ALWAYS) for s in scenes], CELLS * CELLS, world)
        states = studio.decode(packed, image.to(torch.bfloat16))
        rows = packed.answer
        logits, targets = studio.model.lm_head(states[rows]).float(), packed.targets[rows]
        loss = nn.functional.cross_entropy(logits, targets)
        with torch.no_grad():
            hit = (logits.argmax(-1) == targets).float()
            # The nouns of descriptions, which come first: those of other answers may only repeat the question.
            ends = (packed.ids == tokenizer.eos_token_id).cumsum(1)[rows]
            nouns = naming[targets] & (ends < 2)
        return {"loss": loss, "answer words": hit.mean(), "nouns": hit[nouns].mean()}

    return answer


def answers_step(studio: Studio) -> Step:
    """Stage 4: see the module's docstring."""
    answer = answer_loss(studio)

    def step(rng: random.Random, _progress: float) -> dict[str, torch.Tensor]:
        scenes = studio.scenes(rng)
        pictures, _ = draw(scenes, studio.sprites, IMAGE_SIDE, CELLS, studio.world.nouns)
        features = studio.model.model.vision_tower(studio.pixels(pictures)).last_hidden_state[:, 1:]
        return answer(scenes, studio.model.model.multi_modal_projector(features), rng)

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

    def decoder() -> None:
        load_decoder(model)
        for module in (model.get_decoder(), model.lm_head):
            module.to(torch.bfloat16)
            module.requires_grad_(requires_grad=False)

    def patches(scenes: int, batch: int) -> None:
        head = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, len(studio.world.words)))
        trained = {"tower": parts["tower"], "head": nn.ModuleDict({"head": head})}
        run("patches", patches_step(studio, head), trained, {"tower": 1e-3, "head": 2e-3}, work, scenes, batch, 2)

    def words(scenes: int, batch: int) -> None:
        decoder()
        soft = SoftPatches(studio)
        trained: dict[str, nn.Module] = {"map": soft.map, "changes": soft.changes, "facts": soft.facts}
        run("words", words_step(studio, soft), trained, {"map": 5e-4, "changes": 4e-3, "facts": 4e-3}, work, scenes, batch, 4, adam)

    def fit(scenes: int, batch: int) -> None:
        load_parts(work, "patches", parts)
        load_decoder(model)
        soft = SoftPatches(studio)
        load_parts(work, "words", {"map": soft.map, "changes": soft.changes, "facts": soft.facts})
        start_projector(studio, soft)
        run("fit", fit_step(studio, soft), parts, {"projector": 1e-3, "tower": 3e-4}, work, scenes, batch, 5, adam)

    def align(scenes: int, batch: int) -> None:
        load_parts(work, "fit", parts)
        decoder()
        run("align", answers_step(studio), parts, {"projector": 3e-4, "tower": 1e-4}, work, scenes, batch, 3, adam)

    return {"patches": patches, "words": words, "fit": fit, "align": align}


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
