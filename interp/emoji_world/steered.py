"""Many pictures, each with a question, answered at once with a push of its own for each.

A push acts on the prompt's last position and on the answer, as `interp.Edit(where="answer")` does. What comes before it is the same for every push and
is processed once. `interp.steer` gives the same answers one picture at a time.
"""

from collections.abc import Callable, Sequence

import torch
from PIL import Image

import interp

from ..models.hooks import Hooks
from ..steering.generation import answer_of, joined

LONGEST = 24  # tokens of an answer


class Asked:
    """Pictures with questions whose prompts have the same length, ready to be answered again and again."""

    def __init__(self, vlm: interp.Vlm, pictures: Sequence[Image.Image], questions: Sequence[str]) -> None:
        inputs = joined([vlm.prepare(picture, question) for picture, question in zip(pictures, questions, strict=True)])
        self._vlm, self._last = vlm, inputs["input_ids"][:, -1:]
        before = inputs | {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
        with vlm.lock, torch.inference_mode():
            self._cache = vlm.model(**before, use_cache=True, logits_to_keep=1).past_key_values
        self._length = self._cache.get_seq_length()
        self._kept: list[torch.Tensor] = []
        with Hooks() as hooks:
            for layer in range(vlm.n_layers):
                vlm.on_layer(hooks, layer, self._keep)
            self.plain = self._answers()
        self.states = torch.stack(self._kept[: vlm.n_layers])
        """Of the prompt's last position, after every layer: [layers, N, d]."""
        self._kept = []

    def _keep(self, hidden: torch.Tensor) -> None:
        self._kept.append(hidden[:, -1].clone())

    def pushed(self, layer: int, push: torch.Tensor) -> list[str]:
        """The answers with `push` [N, d], or [d] for all, added after this layer."""
        by = push if push.ndim == 1 else push[:, None]
        with Hooks() as hooks:
            self._vlm.on_layer(hooks, layer, lambda hidden: hidden + by)
            return self._answers()

    def _answers(self) -> list[str]:
        vlm, ends = self._vlm, torch.tensor(sorted(self._vlm.end_ids))
        said = [self._last]
        done = torch.zeros(len(self._last), dtype=torch.bool)
        with vlm.lock, torch.inference_mode():
            while len(said) <= LONGEST and not done.all():
                out = vlm.model(input_ids=said[-1], past_key_values=self._cache, use_cache=True, logits_to_keep=1)
                said.append(out.logits[:, -1].argmax(-1, keepdim=True))
                done |= torch.isin(said[-1][:, 0], ends)
            self._cache.crop(self._length - self._cache.get_seq_length())
        return [answer_of(vlm, row).text for row in torch.cat(said[1:], 1).tolist()]


Push = Callable[[Asked], torch.Tensor]
"""How far to push each of some prompts: [N, d], or [d] for all."""


def random_push(push: Push, seed: int) -> Push:
    """Along one random direction, each prompt as far as `push` does."""

    def pushed(asked: Asked) -> torch.Tensor:
        by = push(asked)
        direction = torch.randn(by.shape[-1], generator=torch.Generator().manual_seed(seed))
        return by.norm(dim=-1, keepdim=True) * direction / direction.norm()

    return pushed


def scaled(push: Push, amount: float) -> Push:
    """`amount` times as far."""
    return lambda asked: amount * push(asked)
