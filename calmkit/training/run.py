"""One training run: its state, and its operations.

This module implements a step, a validation and a checkpoint; `loop.fit` schedules them.
"""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from calmkit.chunking import ChunkBatch
from calmkit.cluster import MicroBatches, Peers, Placement, StepMeans, any_of, local, weighted
from calmkit.finite import NonFiniteError

from .averaged_weights import AveragedWeights
from .checkpoint import find_checkpoints, read_checkpoint, write_checkpoint
from .checkpoint_record import CheckpointError
from .divergence import check_values, check_weights, diverged, non_finite_parameter
from .history import History, Point
from .identity import check_identity
from .interrupts import HeldInterrupts
from .objective import Objective, means_of
from .out_of_memory import out_of_memory_in
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
        placement: Placement,
        objective: Objective,
        batches: MicroBatches,
        optimizer: Optimizer,
        settings: TrainingSettings,
        seed: int,
        fabric: "Fabric",
        peers: Peers,
        directory: Path | None,
        identity: dict[str, Any],
    ) -> None:
        self.placement = placement
        self.module = placement.trained
        self.settings = settings
        self.step = 0
        self.history = History()
        self._objective = objective
        self._batches = batches
        self._optimizer = optimizer
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._seed = seed
        self._fabric, self._peers = fabric, peers
        self._directory = directory
        self._identity = identity
        self._saved: tuple[int, int] | None = None
        self._consistent = True
        # Parts whose training depends on the number of the step, such as `NoisyInput`.
        self._step_aware = [m for m in placement.trained.modules() if hasattr(m, "begin_step")]
        self._stepper = cast(Optimizer, fabric.setup_optimizers(optimizer))
        self.average = (
            None if settings.ema is None else AveragedWeights(placement.trained, settings.ema)
        )

    def due(self, every: int) -> bool:
        """Whether an operation is due that is done every `every` steps and at the end."""
        at_end = self.step == self.settings.steps
        return at_end or (every > 0 and self.step > 0 and self.step % every == 0)

    def train_step(self, interrupts: HeldInterrupts) -> float:
        """Take one optimiser step, and return its loss.

        Gradients are cleared before and after the step, also if it fails.

        Args:
            interrupts: Learns whether any process was interrupted.

        Raises:
            TrainingDiverged: If a value is not finite; the weights are those before the step.
        """
        began = time.perf_counter()
        self._consistent = False
        self._clear_gradients()
        try:
            values = self._step(interrupts)
        finally:
            self._clear_gradients()
        self.history.add(values)
        self.step += 1
        if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
            self.history.close_point(self.step)
        self._consistent = True
        self.history.seconds += time.perf_counter() - began
        return values["loss"]

    def _step(self, interrupts: HeldInterrupts) -> dict[str, float]:
        """Forward, backward and update; returns the values to log."""
        for part in self._step_aware:
            cast(Any, part).begin_step(self.step)
        try:
            means = self._accumulate()
        except NonFiniteError as error:
            reason = f"'loss' cannot be computed: {str(error).rstrip('.')}"
            raise diverged(self.module, step=self.step, part="loss", reason=reason) from error
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        gradients = [local(p.grad) for p in trained if p.grad is not None]
        if any(gradient.layout != torch.strided for gradient in gradients):
            raise ValueError(
                "module must give dense gradients; it gives a sparse one. Build it without "
                "sparse=True."
            )
        if means.scale is not None:
            for gradient in gradients:
                gradient.mul_(means.scale.to(gradient.dtype))
        # Norm and clipping are separate: clipping by a norm of NaN would hide the bad gradient.
        norm = self._norm_of(gradients)
        # Only here does the host wait for the device.
        values, stops = means.read(stops=interrupts.pending)
        interrupts.settle(stops)
        values["gradient_norm"] = float(norm)  # the same in each process
        check_values(self.module, values, step=self.step, over_all=self._over_all)
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

    def _norm_of(self, gradients: list[Tensor]) -> Tensor:
        """The 2-norm of all gradients, of which this process may hold shards."""
        norm = get_total_norm(gradients)
        if self.placement.is_sharded:
            squares = self._fabric.all_reduce(norm.square(), reduce_op="sum")
            norm = torch.as_tensor(squares).sqrt()
        return norm

    def _over_all(self, flags: Tensor) -> Tensor:
        """Whether each flag is set in any process; what is not sharded is equal in all."""
        return any_of(self._fabric, flags) if self.placement.is_sharded else flags

    def _accumulate(self) -> StepMeans:
        """Forward and backward passes of this process's micro-batches."""
        fabric = self._fabric
        # Shards exchange in every pass: without it, each process would keep whole gradients. So
        # they also learn of an error in every pass.
        sharded = self.placement.is_sharded
        share = self._batches.share
        means = StepMeans(fabric, alone=share.count == 1)
        for number, rows in self._batches.at(self.step):
            last = number == share.numbers[-1]
            with fabric.no_backward_sync(self.placement.caller, enabled=not (last or sharded)):
                try:
                    parts, count = self._forward(rows, number)
                except NonFiniteError as error:
                    self._fail(error)
                    raise
                weight = means.add(parts, count)
                if last or sharded:
                    if self._peers.any_fails(False):
                        raise NonFiniteError(
                            "another process met a value that is not finite; see its error."
                        )
                    means.exchange()
                fabric.backward(weighted(parts["loss"], weight))
        return means

    def _fail(self, error: NonFiniteError) -> None:
        """Let the others end in order, which ask at the end of their pass whether any fails.

        Those that wait within their pass, for shards that this process does not send, are told
        and end in a few seconds; asking them then fails.
        """
        self._peers.tell(error)
        with suppress(RuntimeError):
            self._peers.any_fails(True)

    def _forward(self, rows: ChunkBatch, number: int) -> tuple[dict[str, Tensor], Tensor | float]:
        """The objective's parts on one micro-batch, and the number of items they cover."""
        device = self._fabric.device
        rows = rows if rows.tokens.device == device else rows.to(device)
        seed_global_generators(step_seed(self._seed, self.step, number), device)
        generator = step_generator(self._seed, self.step, number, device=device)

        def call(module: nn.Module) -> tuple[dict[str, Tensor], Tensor | float]:
            means = means_of(self._objective(module, rows, generator), rows)
            return dict(means.values), means.count

        return self.placement.caller(call)

    def _clear_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def check_weights(self) -> None:
        """Refuse weights that are not finite.

        Raises:
            TrainingDiverged: If the last step's update made them so.
        """
        check_weights(self.module, step=self.step - 1, over_all=self._over_all)

    def validate(self, measure: Callable[[nn.Module], Mapping[str, float]]) -> Point:
        """Measure the module in the first process, without affecting training.

        With averaged weights, they are measured as well, as "ema_...".

        Raises:
            OutOfMemory: If an allocation fails.
            TrainingDiverged: If something cannot be computed, since it is not finite.
        """
        devices = [self._fabric.device] if self._fabric.device.type == "cuda" else []
        values, failure = {}, ""
        average = self.whole_average()
        with self.placement.measured() as module:
            if self._fabric.is_global_zero:
                try:
                    with (
                        out_of_memory_in("the module", during="validation"),
                        torch.random.fork_rng(devices),
                        torch.no_grad(),
                        self._fabric.autocast(),
                    ):
                        values = {k: float(v) for k, v in measure(module).items()}
                        if average is not None:
                            with average.applied():
                                averaged = measure(module)
                            values |= {f"ema_{k}": float(v) for k, v in averaged.items()}
                except NonFiniteError as error:
                    failure = str(error).rstrip(".")
        values, failure = self._fabric.broadcast((values, failure))
        if failure:
            reason = f"validation cannot be computed: {failure}"
            raise diverged(self.module, step=self.step, part="validation", reason=reason)
        point = (self.step, values)
        self.history.validation.append(point)
        return point

    def whole_average(self) -> AveragedWeights | None:
        """The averages for the caller's module, if there are any; every process must call it."""
        if self.average is None or not self.placement.is_sharded:
            return self.average
        return self.average.of_whole(self.placement.module)

    def resume(self) -> None:
        """Load the newest checkpoint of the directory, if there is one."""
        found = [] if self._directory is None else find_checkpoints(self._directory)
        newest = found[-1].name if found else ""
        if newest != self._fabric.broadcast(newest):
            raise CheckpointError(
                "directory must be one folder that all machines reach; the first process finds "
                f"another newest checkpoint in {self._directory} than {socket.gethostname()}, "
                f"which finds {newest or 'none'}."
            )
        if not found:
            return
        checkpoint = read_checkpoint(found[-1])
        check_identity(checkpoint.path, checkpoint.identity, self._identity)
        if checkpoint.step > self.settings.steps:
            raise CheckpointError(
                f"steps must be at least the {checkpoint.step} steps that {checkpoint.path} has "
                f"done already; got {self.settings.steps}. Use another directory."
            )
        checkpoint.restore(self.placement, self._optimizer, self.average)
        self.step, self.history = checkpoint.step, checkpoint.history
        self._saved = self._mark()

    def save(self) -> None:
        """Write a checkpoint if there is a directory and something new, with finite weights."""
        if self._directory is None or not self._consistent or self._saved == self._mark():
            return
        if non_finite_parameter(self.module, over_all=self._over_all) is not None:
            return
        write_checkpoint(
            self._directory,
            step=self.step,
            placement=self.placement,
            optimizer=self._optimizer,
            average=self.average,
            identity=self._identity,
            history=self.history,
            keep=self.settings.keep_checkpoints,
            fabric=self._fabric,
        )
        self._saved = self._mark()

    def _mark(self) -> tuple[int, int]:
        return self.step, len(self.history.validation)
