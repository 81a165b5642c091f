"""One training run: its state, and its operations.

This module implements a step, a validation and a checkpoint; `loop.fit` schedules them.
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
from calmkit.finite import NonFiniteError

from .averaged_weights import AveragedWeights
from .checkpoint import find_checkpoints, read_checkpoint, write_checkpoint
from .checkpoint_record import CheckpointError
from .divergence import check_values, check_weights, diverged, non_finite_parameter
from .history import History, Point
from .identity import check_identity
from .objective import Objective, means_of
from .processes import Caller, mean_over_processes, rows_of_process, weight_of, weighted
from .randomness import seed_global_generators, step_generator, step_seed
from .schedule import learning_rate_factor
from .settings import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run"]


class Run:
    """The state of a run, and the operations that change it."""

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
        self._caller, self._stepper = fabric.setup(Caller(module), optimizer)
        # Built now: `setup` may have divided the parameters among processes.
        self.average = None if settings.ema is None else AveragedWeights(module, settings.ema)

    def due(self, every: int) -> bool:
        """Whether an operation is due that is done every `every` steps and at the end."""
        at_end = self.step == self.settings.steps
        return at_end or (every > 0 and self.step > 0 and self.step % every == 0)

    def train_step(self) -> float:
        """Take one optimiser step, and return its loss.

        Gradients are cleared before and after the step, also if it fails.

        Raises:
            TrainingDiverged: If a value is not finite; the weights are those before the step.
        """
        began = time.perf_counter()
        self._consistent = False
        self._clear_gradients()
        try:
            values = self._step()
        finally:
            self._clear_gradients()
        self.history.add(values)
        self.step += 1
        if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
            self.history.close_point(self.step)
        self._consistent = True
        self.history.seconds += time.perf_counter() - began
        return values["loss"]

    def _step(self) -> dict[str, float]:
        """Forward, backward and update; returns the values to log."""
        try:
            parts, weight = self._forward()
            self._fabric.backward(weighted(parts["loss"], weight))
        except NonFiniteError as error:
            reason = f"'loss' cannot be computed: {str(error).rstrip('.')}"
            raise diverged(self.module, step=self.step, part="loss", reason=reason) from error
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in trained if p.grad is not None]
        if any(gradient.layout != torch.strided for gradient in gradients):
            raise ValueError(
                "module must give dense gradients; it gives a sparse one. Build it without "
                "sparse=True."
            )
        # Norm and clipping are separate: clipping by a norm of NaN would hide the bad gradient.
        norm = get_total_norm(gradients)
        # Only here does the host wait for the device.
        values = mean_over_processes(parts, weight, self._fabric)
        values["gradient_norm"] = float(norm)  # of averaged gradients, the same in each process
        check_values(self.module, values, step=self.step)
        clip_grads_with_norm_(trained, self.settings.clip_norm, norm)
        factor = learning_rate_factor(
            self.step,
            steps=self.settings.steps,
            warmup_steps=self.settings.warmup_steps,
            decay_to=self.settings.decay_to,
        )
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        self._stepper.step()
        if self.average is not None:
            self.average.update(self.step)
        return {**values, "learning_rate": self._peaks[0] * factor}

    def _forward(self) -> tuple[dict[str, Tensor], Tensor]:
        """The objective's parts on this process's rows, and their weight."""
        fabric, step, rank = self._fabric, self.step, self._fabric.global_rank
        batch = rows_of_process(self._batch_at(step), fabric)
        seed_global_generators(step_seed(self._seed, step, rank), fabric.device)
        generator = step_generator(self._seed, step, rank, device=fabric.device)

        def call(module: nn.Module) -> tuple[dict[str, Tensor], Tensor | float]:
            means = means_of(self._objective(module, batch, generator), batch)
            return dict(means.values), means.count

        try:
            parts, count = self._caller(call)
        except NonFiniteError:
            # The other processes wait for this count; a NaN stops them, too.
            weight_of(math.nan, fabric)
            raise
        return parts, weight_of(count, fabric)

    def _clear_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def check_weights(self) -> None:
        """Refuse weights that are not finite.

        Raises:
            TrainingDiverged: If the last step's update made them so.
        """
        check_weights(self.module, step=self.step - 1)

    def validate(self, measure: Callable[[nn.Module], Mapping[str, float]]) -> Point:
        """Measure the module, and also its averaged weights as "ema_...", without any effect."""
        devices = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        self.module.eval()
        try:
            with torch.random.fork_rng(devices), torch.no_grad(), self._fabric.autocast():
                values = {k: float(v) for k, v in measure(self.module).items()}
                if self.average is not None:
                    with self.average.applied():
                        averaged = measure(self.module)
                    values |= {f"ema_{k}": float(v) for k, v in averaged.items()}
                point = (self.step, values)
        except NonFiniteError as error:
            reason = f"validation cannot be computed: {str(error).rstrip('.')}"
            raise diverged(
                self.module, step=self.step, part="validation", reason=reason
            ) from error
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
        checkpoint.restore(self.module, self._optimizer, self.average)
        self.step, self.history = checkpoint.step, checkpoint.history
        self._saved = self._mark()

    def save(self) -> None:
        """Write a checkpoint if there is a directory and something new, with finite weights."""
        if self._directory is None or not self._consistent or self._saved == self._mark():
            return
        if non_finite_parameter(self.module) is not None:
            return
        if self._fabric.is_global_zero:
            write_checkpoint(
                self._directory,
                step=self.step,
                module=self.module,
                optimizer=self._optimizer,
                average=self.average,
                identity=self._identity,
                history=self.history,
                keep=self.settings.keep_checkpoints,
            )
        self._saved = self._mark()

    def _mark(self) -> tuple[int, int]:
        return self.step, len(self.history.validation)
