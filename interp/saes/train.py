"""Training an SAE with sae-lens on a stream of states: checkpoints, and going on where a run was stopped.

sae-lens has the architectures and the training loop (its `SAETrainer`). Here is what it leaves to the caller: one plan for all architectures,
a start that depends on the seed alone, and a resumed run that continues the very stream it was cut off from. On a CPU with the same number of
threads the resumed run is equal to an uninterrupted one bit by bit; GPU kernels add in no fixed order.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import InterpError
from ..validation import finite_number, one_of, whole_number
from .formats import import_sae_lens

Architecture = Literal["topk", "batchtopk", "jumprelu"]
ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "jumprelu")
FINISHED = "finished"
"""The folder of the trained SAE, within the folder a run works in."""
_WHOLE = "whole"  # a file that is written into a checkpoint last
_REFERENCE = 2**14  # features for which the usual rate is 2e-4


@dataclass(frozen=True)
class Plan:
    """How an SAE is trained. Raises InterpError for values out of range."""

    features: int
    active: float
    """Features active per token: of every token for "topk", on average for the others ("jumprelu" is drawn towards it by its loss)."""
    tokens: int
    """States to train on, counted with repetition; rounded up to whole batches."""
    architecture: Architecture = "topk"
    """TopK after Gao et al. 2024, BatchTopK after Bussmann et al. 2024, JumpReLU after Rajamanoharan et al. 2024 with the quadratic loss of Gemma
    Scope 2. The last two are saved as JumpReLU."""
    batch: int = 4096
    """States in a step."""
    rate: float | None = None
    """Of Adam; None: 2e-4 / sqrt(features / 2^14), as multimodal-sae and sparsify use."""
    last_rate: float = 0.1
    """Share of the rate that is left at the end; it falls over the last third."""
    warm_up: int = 1000
    """Steps over which the rate rises, at most a tenth of all."""
    dead_after: int = 1000
    """Batches without firing after which a feature is dead; dead ones are trained on what the others miss."""
    norm_batches: int = 20
    """Batches from which the scale of the states is measured before training; it is folded into the weights."""
    checkpoints: int = 20
    seed: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What cfg.json says of the SAE, such as "model_name" and "hook_name"."""

    def __post_init__(self) -> None:
        one_of("architecture", self.architecture, ARCHITECTURES)
        for name in ("features", "tokens", "batch", "dead_after", "norm_batches"):
            whole_number(name, getattr(self, name), 1)
        for name in ("warm_up", "checkpoints", "seed"):
            whole_number(name, getattr(self, name), 0)
        finite_number("last_rate", self.last_rate, 0, 1)
        if self.rate is not None:
            finite_number("rate", self.rate, 0)
        if self.architecture == "topk":
            whole_number("active", self.active, 1, self.features, hint="the number of features")
        finite_number("active", self.active, 0, self.features)
        if self.active * self.batch < 1:
            raise InterpError(f"active is {self.active:g}; with {self.batch} states in a batch it must be at least {1 / self.batch:g}.")

    @property
    def steps(self) -> int:
        """Batches to train on."""
        return math.ceil(self.tokens / self.batch)

    @property
    def used_rate(self) -> float:
        """The rate, given or usual."""
        return 2e-4 / math.sqrt(self.features / _REFERENCE) if self.rate is None else self.rate


def train(plan: Plan, width: int, batches: Callable[[int], Iterator[torch.Tensor]], work: Path, *, device: str = "cpu") -> Path:
    """Train an SAE for states of this width, or go on from the newest checkpoint in `work`. Returns the folder of the SAE, `work`/finished.

    `batches(n)`: the batches [batch, width] from the n-th on, the same for the same n in every run. Before the first step, `norm_batches`
    of them measure the scale. Only the newest checkpoint is kept. A finished SAE is not trained again.
    """
    finished = work / FINISHED
    if finished.is_dir():
        return finished
    work.mkdir(parents=True, exist_ok=True)
    lens = import_sae_lens()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        sae = _untrained(lens, plan, width).to(device)  # made on the CPU: the same on every device
    trainer = lens.SAETrainer(cfg=_settings(lens, plan, work, device), sae=sae, data_provider=iter(()), save_checkpoint_fn=_settled)
    taken = 0
    if newest := max(_checkpoints(work), key=lambda folder: int(folder.name), default=None):
        sae.load_weights_from_checkpoint(newest)
        trainer.load_trainer_state(newest)
        trainer.n_training_steps = trainer.n_training_samples // plan.batch  # it saves the number before it counts the step
        trainer.checkpoint_thresholds = [at for at in trainer.checkpoint_thresholds if at >= trainer.n_training_samples]
        taken = plan.norm_batches + trainer.n_training_steps
    trainer.data_provider = batches(taken)
    trainer.fit()
    unfinished = work / f"{FINISHED}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    _, config = sae.save_inference_model(unfinished)
    # In an order that does not change from run to run, as that of sae-lens does.
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    unfinished.replace(finished)
    for folder in _checkpoints(work):
        shutil.rmtree(folder)
    return finished


def _untrained(lens: Any, plan: Plan, width: int) -> Any:
    about = {
        "d_in": width,
        "d_sae": plan.features,
        "normalize_activations": "expected_average_only_in",
        "metadata": lens.saes.sae.SAEMetadata(**plan.metadata),
    }
    if plan.architecture == "topk":
        return lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(k=int(plan.active), **about))
    if plan.architecture == "batchtopk":
        return lens.BatchTopKTrainingSAE(lens.BatchTopKTrainingSAEConfig(k=plan.active, **about))
    quadratic = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": plan.active, "l0_warm_up_steps": plan.steps // 10}
    return lens.JumpReLUTrainingSAE(lens.JumpReLUTrainingSAEConfig(**quadratic, **about))


def _settings(lens: Any, plan: Plan, work: Path, device: str) -> Any:
    steps = plan.steps
    return lens.config.SAETrainerConfig(
        total_training_samples=steps * plan.batch,
        train_batch_size_samples=plan.batch,
        lr=plan.used_rate,
        lr_end=plan.used_rate * plan.last_rate,
        lr_warm_up_steps=min(plan.warm_up, steps // 10),
        lr_decay_steps=steps // 3,
        dead_feature_window=plan.dead_after,
        n_batches_for_norm_estimate=plan.norm_batches,
        n_checkpoints=plan.checkpoints,
        checkpoint_path=str(work),
        device=device,
        logger=lens.LoggingConfig(log_to_wandb=False),
    )


def _checkpoints(work: Path) -> list[Path]:
    """The checkpoints that were written to the end."""
    return [file.parent for file in work.glob(f"[0-9]*/{_WHOLE}")]


def _settled(checkpoint_path: Path | None) -> None:
    """Called by sae-lens when all of a checkpoint is written: the ones before it are not needed any more."""
    assert checkpoint_path is not None
    (checkpoint_path / _WHOLE).touch()
    for folder in checkpoint_path.parent.glob("[0-9]*"):
        if folder != checkpoint_path:
            shutil.rmtree(folder)
