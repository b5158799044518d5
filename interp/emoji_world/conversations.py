"""Batches of scenes with several questions each, packed so that one pass over the picture serves them all.

A sequence is one picture prefix and then some branches, each a question with its answer. A branch sees
the prefix and itself, and its positions continue where the prefix ended: every branch is exactly the one-turn conversation of run time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from .scenes import Scene
from .world import EMOJI, World


@dataclass(frozen=True)
class Packed:
    """A batch of packed dialogues.

    `ids`, `positions`, `targets` [B, T]; `mask` [B, 1, T, T], true where row may look at column; `answer` [B, T], true where the target
    belongs to an answer. `targets` holds the next token and -100 where there is none; the picture lies at `image`, a slice of T.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    answer: torch.Tensor
    image: slice


def sample_questions(
    scene: Scene,
    rng: random.Random,
    branches: int,
    paraphrased: float = 0.3,
    world: World = EMOJI,
    always: Sequence[str] = ("describe",),
) -> list[tuple[str, str]]:
    """Questions of the kinds `always`, and others to make `branches` in all, about the scene, some of them in another wording."""
    kinds = [*always, *rng.sample([kind for kind in world.questions if kind not in always], branches - len(always))]
    out = []
    for kind in kinds:
        wording = rng.randrange(len(world.questions[kind])) if rng.random() < paraphrased else 0
        out.append(world.ask(kind, scene.nouns, scene.color, rng, wording))
    return out


def pack(
    tokenizer: PreTrainedTokenizerFast, dialogues: Sequence[Sequence[tuple[str, str]]], image_tokens: int, world: World = EMOJI
) -> Packed:
    """One row for each scene; `dialogues` holds its questions and answers."""
    before, after = world.prompt.split("{image}")
    opening = tokenizer(before).input_ids
    prefix = opening + [tokenizer.image_token_id] * image_tokens + tokenizer("\n", add_special_tokens=False).input_ids
    turn = after.removeprefix("\n")
    flat = [text for dialogue in dialogues for text in dialogue]
    questions = tokenizer([turn.format(question=q) for q, _ in flat], add_special_tokens=False).input_ids
    answers = tokenizer([f"{world.reply.format(answer=a)}{tokenizer.eos_token}" for _, a in flat], add_special_tokens=False).input_ids
    rows, start = [], 0
    for dialogue in dialogues:
        rows.append(list(zip(questions[start : start + len(dialogue)], answers[start : start + len(dialogue)], strict=True)))
        start += len(dialogue)
    length = len(prefix) + max(sum(len(q) + len(a) for q, a in row) for row in rows)
    shape = (len(rows), length)
    ids = torch.full(shape, tokenizer.pad_token_id)
    positions = torch.zeros(shape, dtype=torch.long)
    targets = torch.full(shape, -100)
    answer = torch.zeros(shape, dtype=torch.bool)
    branch = torch.full(shape, -1)
    ids[:, : len(prefix)] = torch.tensor(prefix)
    positions[:, : len(prefix)] = torch.arange(len(prefix))
    branch[:, : len(prefix)] = 0
    for b, row in enumerate(rows):
        at = len(prefix)
        for k, (question, reply) in enumerate(row, 1):
            piece = torch.tensor(question + reply)
            span = slice(at, at + len(piece))
            ids[b, span], branch[b, span] = piece, k
            positions[b, span] = len(prefix) + torch.arange(len(piece))
            targets[b, at : at + len(piece) - 1] = piece[1:]
            answer[b, at + len(question) - 1 : at + len(piece) - 1] = True
            at += len(piece)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    mask = (causal & seen)[:, None]
    return Packed(ids, positions, targets, mask, answer, slice(len(opening), len(opening) + image_tokens))
