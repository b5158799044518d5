"""Train a lens on text: `python -m interp.lens.train {tuned,token} --model M --text FILE --work DIR --target DIR`.

The states of all layers at some thousand positions of the text are kept in --work, then each layer's map is fitted and kept there too; a run
that was stopped goes on where it was. Both kinds share the states. lens.json reports, on text that was not trained on:

- tuned: how often the top word is the model's own (`top1`) and the KL from the model's distribution in nats (`kl`);
- token: how often the top word is the token that stands at the position (`top1`);
- both beside the same of the raw lens (`raw_top1`, `raw_kl`), for each layer.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from ..errors import InterpError
from ..models.identity import fingerprint
from ..models.loading import load
from ..models.vlm import Vlm
from ..tracing.trace import EMBED
from .fit import CANDIDATES, Loss, fit, next_word_loss, own_token_loss
from .samples import Samples, collect
from .translators import Affine, Kind, Translators

_ROWS = 128  # positions whose whole vocabulary is held at once


@dataclass(frozen=True)
class Recipe:
    """How a lens is trained."""

    kind: Kind
    trained_on: str
    positions: int = 20_000
    held_out: int = 2_000
    rank: int | None = 32
    """Of each layer's map; None for full matrices."""
    steps: int = 400
    """Gradient steps for each layer."""


def train(vlm: Vlm, text: str, work: Path, recipe: Recipe) -> Translators:
    """Train a lens of a model on text, or resume from what `work` has."""
    fit_on, held = collect(vlm, text, work, recipe.positions, recipe.held_out)
    desk = _Desk(vlm, recipe, fit_on, held)
    place = work / f"{recipe.kind}-rank-{recipe.rank or 'full'}-steps-{recipe.steps}"
    place.mkdir(exist_ok=True)
    maps, figures = {}, {}
    for layer in tqdm(range(EMBED, vlm.n_layers - (recipe.kind == "tuned")), desc=recipe.kind):
        file = place / f"layer-{layer}.safetensors"
        if not file.exists():
            move, told = desk.fit(layer)
            save_file(
                {name: part.contiguous() for name, part in move.parts.items()},
                file.with_suffix(".tmp"),
                metadata={"told": json.dumps(told)},
            )
            file.with_suffix(".tmp").replace(file)
        with safe_open(file, framework="pt") as saved:
            named = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 - it is no dict
            figures[str(layer)] = json.loads(saved.metadata()["told"])
        maps[layer] = Affine(named["up"], named["bias"], named.get("down"))
    counted = {"positions": len(fit_on), "held_out": len(held), "layers": figures}
    return Translators(recipe.kind, maps, vlm.name, vlm.d_model, vlm.n_layers, recipe.trained_on, counted, fingerprint(vlm))


class _Desk:
    """What the fits of all layers share."""

    def __init__(self, vlm: Vlm, recipe: Recipe, fit_on: Samples, held: Samples) -> None:
        self.vlm, self.recipe, self._fit_on, self._held = vlm, recipe, fit_on, held
        self._held_final = held.layer(vlm.n_layers - 1)
        if recipe.kind == "tuned":
            final = fit_on.layer(vlm.n_layers - 1)
            self._loss: Loss = next_word_loss(vlm.unembed, final, self._likely(final))
        else:
            self._loss = own_token_loss(vlm.unembed, fit_on.ids, vlm.head.weight.shape[0])

    def fit(self, layer: int) -> tuple[Affine, dict[str, float]]:
        """The map of a layer, and what `_judge` says of it and of the raw lens on what was held out."""
        move, held = fit(self._fit_on.layer(layer), self._loss, self.recipe.rank, self.recipe.steps, layer + 1), self._held.layer(layer)
        told = self._judge(move, held) | {f"raw_{name}": value for name, value in self._judge(None, held).items()}
        return move, {name: float(f"{value:.4g}") for name, value in told.items()}

    @torch.no_grad()
    def _judge(self, move: Affine | None, held: torch.Tensor) -> dict[str, float]:
        """See the module's docstring."""
        hits, divergence = 0.0, 0.0
        for some in torch.arange(len(held)).split(_ROWS):
            states = held[some] if move is None else move(held[some])
            read = self._logits(states)
            if self.recipe.kind == "token":
                hits += (read.argmax(-1).cpu() == self._held.ids[some]).sum().item()
                continue
            own = self._logits(self._held_final[some])
            hits += (read.argmax(-1) == own.argmax(-1)).sum().item()
            own, read = own.log_softmax(-1), read.log_softmax(-1)
            divergence += (own.exp() * (own - read)).sum().item()
        return {"top1": hits / len(held)} | ({"kl": divergence / len(held)} if self.recipe.kind == "tuned" else {})

    @torch.no_grad()
    def _likely(self, final: torch.Tensor) -> torch.Tensor:
        """The words that the model finds most likely at each position: int64 [N, CANDIDATES]."""
        most = min(CANDIDATES, self.vlm.head.weight.shape[0])
        rows = tqdm(final.split(_ROWS), desc="next words", leave=False)
        return torch.cat([self._logits(some).topk(most).indices.cpu() for some in rows])

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.vlm.unembed.logits(states.to(self.vlm.model.dtype))


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train a lens of a model on text.", formatter_class=argparse.ArgumentDefaultsHelpFormatter, prog="interp.lens.train"
    )
    parser.add_argument("kind", choices=get_args(Kind))
    parser.add_argument("--model", required=True, help="a preset, a hub repository or a folder")
    parser.add_argument("--text", type=Path, required=True, help="a text file; blank lines separate passages")
    parser.add_argument("--work", type=Path, required=True, help="folder for what a stopped run goes on from")
    parser.add_argument("--target", type=Path, required=True, help="folder to write the lens to")
    parser.add_argument("--positions", type=int, default=Recipe.positions, help="positions of text to train on")
    parser.add_argument("--held-out", type=int, default=Recipe.held_out, help="positions to measure on")
    parser.add_argument("--rank", type=int, default=Recipe.rank, help="of each layer's map; 0 for full matrices")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="gradient steps for each layer")
    parser.add_argument("--trained-on", help="one sentence for lens.json  (default: the name of the text file)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    if min(args.positions, args.held_out) < 1 or min(args.rank, args.steps) < 0:
        parser.error("--positions and --held-out must be at least 1, --rank and --steps at least 0")
    told = args.trained_on or f"Text: {args.text.name}."
    recipe = Recipe(args.kind, told, args.positions, args.held_out, args.rank or None, args.steps)
    try:
        lens = train(load(args.model, device=args.device), args.text.read_text(encoding="utf-8"), args.work, recipe)
        lens.save(args.target)
    except (InterpError, OSError, UnicodeDecodeError) as error:
        parser.exit(1, f"{error}\n")
    print(_table(lens.figures["layers"]))  # noqa: T201 - what the command is for


def _table(layers: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(layers.values())))
    rows = [["layer", *names], *([layer, *(str(figures[name]) for name in names)] for layer, figures in layers.items())]
    return "\n".join("  ".join(cell.rjust(9) for cell in row) for row in rows)


if __name__ == "__main__":
    main()
