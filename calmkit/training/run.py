"""One training run: its state, and the single things that are done to it.

`loop.fit` says when each is done; here is how a step, a validation and a checkpoint go.
"""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from calmkit.chunking import ChunkBatch

from .checkpoint import CheckpointError, find_checkpoints, read_checkpoint, write_checkpoint
from .history import History, Point
from .identity import check_identity
from .randomness import seed_global_generators, step_generator, step_seed
from .schedule import learning_rate_factor
from .settings import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Objective", "Run", "TrainingDiverged"]

Objective = Callable[[nn.Module, ChunkBatch, torch.Generator], Mapping[str, Tensor]]
"""Scalars of one step: "loss" is minimised, whatever else there is gets logged."""


class TrainingDiverged(FloatingPointError):
    """A step gave a value that is not finite; the weights are those from before it.

    Attributes:
        step: Number of the step, from 0.
        part: Name of the objective's part, or of the parameter whose gradient it is.
    """

    def __init__(self, message: str, *, step: int, part: str) -> None:
        super().__init__(message)
        self.step = step
        self.part = part


class Run:
    """The state of a run, and the single steps that change it."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        batch_at: Callable[[int], ChunkBatch],
        optimizer: Optimizer,
        settings: TrainingSettings,
        seed: int,
        fabric: "Fabric",
        directory: Path | None,
        identity: dict[str, Any],
    ) -> None:
        self.module = module
        self.settings = settings
        self.step = 0
        self.history = History()
        self._objective = objective
        self._batch_at = batch_at
        self._optimizer = optimizer
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._seed = seed
        self._fabric = fabric
        self._directory = directory
        self._identity = identity
        self._saved: tuple[int, int] | None = None
        self._consistent = True
        self._caller, self._stepper = fabric.setup(_Caller(module), optimizer)

    def due(self, every: int) -> bool:
        """Whether something done each `every` steps and at the end comes now."""
        at_end = self.step == self.settings.steps
        return at_end or (every > 0 and self.step > 0 and self.step % every == 0)

    def train_step(self) -> float:
        """One optimiser step; returns its loss."""
        began = time.perf_counter()
        self._consistent = False
        fabric, step, rank = self._fabric, self.step, self._fabric.global_rank
        batch = _rows_of(self._batch_at(step), rank, fabric.world_size)
        if batch.tokens.device != fabric.device:
            batch = batch.to(fabric.device)
        seed_global_generators(step_seed(self._seed, step, rank), fabric.device)
        generator = step_generator(self._seed, step, rank, device=fabric.device)
        parts = self._caller(lambda module: dict(self._objective(module, batch, generator)))
        _check_parts(parts)
        fabric.backward(parts["loss"])
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        # Norm and clipping apart: clipping by a norm of NaN would hide whose gradient it was.
        norm = get_total_norm([p.grad for p in trained if p.grad is not None])
        # The one place where the host waits for the device.
        values = self._read({**parts, "gradient_norm": norm})
        self._check_finite(values)
        clip_grads_with_norm_(trained, self.settings.clip_norm, norm)
        factor = learning_rate_factor(
            step,
            steps=self.settings.steps,
            warmup_steps=self.settings.warmup_steps,
            decay_to=self.settings.decay_to,
        )
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        values["learning_rate"] = self._peaks[0] * factor
        self._stepper.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.history.add(values)
        self.step += 1
        if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
            self.history.close_point(self.step)
        self._consistent = True
        self.history.seconds += time.perf_counter() - began
        return values["loss"]

    def validate(self, measure: Callable[[nn.Module], Mapping[str, float]]) -> Point:
        """Measure the module as it is, and leave training as it was."""
        devices = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        self.module.eval()
        with torch.random.fork_rng(devices), torch.no_grad(), self._fabric.autocast():
            point = (self.step, {k: float(v) for k, v in measure(self.module).items()})
        self.module.train()
        self.history.validation.append(point)
        return point

    def resume(self) -> None:
        """Load the newest checkpoint of the directory, if there is one."""
        found = [] if self._directory is None else find_checkpoints(self._directory)
        if not found:
            return
        checkpoint = read_checkpoint(found[-1])
        check_identity(checkpoint.path, checkpoint.identity, self._identity)
        if checkpoint.step > self.settings.steps:
            raise CheckpointError(
                f"steps must be at least the {checkpoint.step} steps that {checkpoint.path} has "
                f"done already; got {self.settings.steps}. Use another directory."
            )
        checkpoint.restore(self.module, self._optimizer)
        self.step, self.history = checkpoint.step, checkpoint.history
        self._saved = self._mark()

    def save(self) -> None:
        """Write a checkpoint, unless there is no directory or nothing new to write."""
        if self._directory is None or not self._consistent or self._saved == self._mark():
            return
        if self._fabric.is_global_zero:
            write_checkpoint(
                self._directory,
                step=self.step,
                module=self.module,
                optimizer=self._optimizer,
                identity=self._identity,
                history=self.history,
                keep=self.settings.keep_checkpoints,
            )
        self._saved = self._mark()

    def _mark(self) -> tuple[int, int]:
        return self.step, len(self.history.validation)

    def _read(self, parts: Mapping[str, Tensor]) -> dict[str, float]:
        if self._fabric.world_size > 1:
            stacked = torch.stack([value.detach().double() for value in parts.values()])
            mean = torch.as_tensor(self._fabric.all_reduce(stacked, reduce_op="mean"))
            return dict(zip(parts, mean.tolist(), strict=True))
        return {name: float(value.detach()) for name, value in parts.items()}

    def _check_finite(self, values: Mapping[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if not bad:
            return
        # The loss is a sum of the other parts as a rule: the culprit is among those.
        part = next((name for name in bad if name not in ("loss", "gradient_norm")), bad[0])
        what = f"{part!r} must be finite; got {values[part]}"
        if part == "gradient_norm":
            part = next(
                (
                    name
                    for name, p in self.module.named_parameters()
                    if p.grad is not None and not p.grad.isfinite().all()
                ),
                part,
            )
            what = f"gradients must be finite; got {values['gradient_norm']} as their norm"
            what += f", first in {part!r}" if part != "gradient_norm" else ""
        raise TrainingDiverged(
            f"training stopped in step {self.step} (from 0): {what}. The weights are those from "
            "before this step; try a lower learning rate or a longer warm-up.",
            step=self.step,
            part=part,
        )


class _Caller(nn.Module):
    """Sends any call through a `forward`, where Fabric sets precision and syncs gradients.

    The call is one opaque function: Fabric would try to rebuild a batch to convert its numbers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[nn.Module], dict[str, Tensor]]) -> dict[str, Tensor]:
        return call(self.module)


def _rows_of(batch: ChunkBatch, rank: int, processes: int) -> ChunkBatch:
    """Every `processes`-th row, from number `rank` on."""
    if processes == 1:
        return batch
    if batch.tokens.shape[0] % processes:
        raise ValueError(
            f"batch_at must give a multiple of {processes} rows, one share for each process; "
            f"got {batch.tokens.shape[0]}."
        )
    return batch.rows(slice(rank, None, processes))


def _check_parts(parts: Mapping[str, Tensor]) -> None:
    """Refuse what cannot be minimised or logged."""
    if "loss" not in parts:
        raise ValueError(f'objective must return the key "loss"; got {sorted(parts)}.')
    for name, value in parts.items():
        if name in ("gradient_norm", "learning_rate"):
            raise ValueError(f"objective must not return {name!r}: fit logs it itself; rename it.")
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(
                f"objective must return scalar tensors; got {got} for {name!r}; take a mean."
            )
    if not parts["loss"].requires_grad:
        raise ValueError(
            'objective["loss"] must depend on a trained parameter; got a tensor without gradient.'
        )
