"""Residual streams of an embedded model on endless random scenes, on which its SAE is trained and measured.

Several questions share one pass over a picture (`conversations.pack`). Special tokens are left out, and so is the end of an answer, which a
generation never feeds back; the attention sink of smol-llava is the first of them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

import interp

from .architecture import CELLS, IMAGE_SIDE
from .conversations import pack, sample_questions
from .scenes import Scene, draw, sample_scene
from .sprites import SEEN_VENDORS, load_sprites
from .train import BRANCHES, Studio
from .world import WORLDS

BATCH = 48  # scenes in one pass
DISTORTED = 0.5  # share of training scenes whose drawings are distorted


@dataclass(frozen=True)
class Residuals:
    """The residual streams of one batch of scenes, after each of some layers."""

    image: torch.Tensor
    """[layers, scenes, patches, d]"""
    prompt: torch.Tensor
    """[layers, tokens, d]"""
    answer: torch.Tensor
    """[layers, tokens, d]"""
    prompt_ids: torch.Tensor
    """[tokens]"""
    answer_ids: torch.Tensor
    """[tokens]"""
    neurons: torch.Tensor
    """MLP neurons of the last of these layers, on the image: [scenes, patches, neurons]."""
    shares: torch.Tensor
    """The share of each patch that each word covers: [scenes, patches, words]."""


def studio(vlm: interp.Vlm, batch: int = BATCH) -> Studio:
    """The `Studio` that `residuals` needs, around an embedded model."""
    world = WORLDS[vlm.name]
    return Studio(vlm.model, vlm.processor, load_sprites(SEEN_VENDORS, world=world), vlm.model.device, batch, world)


@torch.inference_mode()
def residuals(desk: Studio, scenes: Sequence[Scene], rng: random.Random, layers: Sequence[int]) -> Residuals:
    """Run the model on `scenes`, each with a description and other questions with their true answers."""
    pictures, shares = draw(scenes, desk.sprites, IMAGE_SIDE, CELLS, desk.world.nouns)
    features = desk.model.model.vision_tower(desk.pixels(pictures)).last_hidden_state[:, 1:]
    image = desk.model.model.multi_modal_projector(features)
    asked = [sample_questions(s, rng, BRANCHES, world=desk.world) for s in scenes]
    packed = pack(desk.processor.tokenizer, asked, CELLS * CELLS, desk.world)
    caught: dict[int, torch.Tensor] = {}
    decoder = desk.model.model.language_model
    blocks = decoder.layers
    handles = [
        blocks[layer].register_forward_hook(lambda _m, _a, output, layer=layer: caught.__setitem__(layer, output)) for layer in layers
    ]
    neurons: list[torch.Tensor] = []
    handles.append(blocks[layers[-1]].mlp.down_proj.register_forward_pre_hook(lambda _m, args: neurons.append(args[0])))
    decoder.layers = blocks[: max(layers) + 1]  # the blocks behind them would be for nothing
    try:
        desk.decode(packed, image)
    finally:
        decoder.layers = blocks
        for handle in handles:
            handle.remove()
    states = torch.stack([caught[layer].float().cpu() for layer in layers])
    tokenizer = desk.processor.tokenizer
    answer = torch.zeros_like(packed.answer)
    answer[:, 1:] = packed.answer[:, :-1]
    ends = torch.isin(packed.ids, torch.tensor([tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]))
    picture = torch.zeros_like(answer)
    picture[:, packed.image] = True
    prompt, answer = ~(picture | answer | ends), answer & ~ends
    return Residuals(
        image=states[:, :, packed.image],
        prompt=states[:, prompt],
        answer=states[:, answer],
        prompt_ids=packed.ids[prompt],
        answer_ids=packed.ids[answer],
        neurons=neurons[0][:, packed.image].float().cpu(),
        shares=shares,
    )


def batches(desk: Studio, layers: Sequence[int], seed: str, *, augment: float | None = None) -> Iterator[Residuals]:
    """Endless batches, the same for the same seed. `augment` None: half of the scenes distorted, as in training."""
    i = 0
    while True:
        rng = random.Random(f"{seed} {i}")
        scenes = [
            sample_scene(
                rng,
                range(len(SEEN_VENDORS)),
                augment=float(rng.random() < DISTORTED) if augment is None else augment,
                nouns=desk.world.nouns,
            )
            for _ in range(desk.batch)
        ]
        yield residuals(desk, scenes, rng, layers)
        i += 1


def balanced(batch: Residuals, layer: int, generator: torch.Generator, patches: float = 1.0) -> torch.Tensor:
    """As many prompt as answer tokens of one of the batch's layers, and `patches` times as many image tokens, drawn at random: [tokens, d]."""
    kinds = [batch.image[layer].flatten(0, 1), batch.prompt[layer], batch.answer[layer]]
    count = min(len(kind) for kind in kinds)
    counts = [min(round(patches * count), len(kinds[0])), count, count]
    return torch.cat([kind[torch.randperm(len(kind), generator=generator)[:n]] for kind, n in zip(kinds, counts, strict=True)])
