"""The training loop, on Lightning Fabric for devices, precision and several processes.

Step t, counted from 0:

    batch      = batch_at(t)                            divided into micro-batches i
    generator  = step_generator(seed, t, i)
    parts      = objective(module, rows, generator)     the mean of "loss" is minimised
    gradients are clipped; learning rate = peak * learning_rate_factor(t); optimiser step

A step is a function of (seed, t), the weights and the optimiser's state. A run that is stopped
anywhere and resumed from a checkpoint therefore ends with bitwise the same weights on the same
machine. Torch's global generators are also seeded in each step, for parts that draw from them
(`nn.Dropout`); the caller's state is restored afterwards. With micro-batches of the same size, any
number of processes takes the same steps up to rounding; see `calmkit.cluster`.

A step starts with cleared gradients and clears them at its end. If its loss, logged parts or
gradients are not finite, the run stops *before* the optimiser changes the weights.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from calmkit.accounting import matrix_peak
from calmkit.chunking import ChunkBatch
from calmkit.cluster import MicroBatches, Placement, ending_together
from calmkit.disk import WriteError
from calmkit.extras import load_fabric

from .averaged_weights import AveragedWeights
from .curves import Curves
from .identity import run_identity
from .interrupts import HeldInterrupts
from .loggers import CurveLogger
from .objective import Objective
from .optimizer import MatrixDecayAdamW, build_optimizer
from .progress import Progress
from .run import Run
from .settings import TrainingSettings
from .speed import Speedometer

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import Logger

__all__ = ["TrainingResult", "fit"]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished run, besides the trained module.

    Attributes:
        steps: Number of optimiser steps done.
        seconds: Time in training steps, without validation and checkpoints, over all parts of a
            resumed run.
        curve: One point per `log_every` steps: the number of steps done, and means over these
            steps of the objective's parts, "gradient_norm" (before clipping) and "learning_rate".
        validation: Number of steps done, and the result of `validate`; with `ema`, also for the
            averaged weights, under names that begin with "ema_".
        average: The averaged weights of the run with `ema`; None without. The module itself has
            the last weights.
    """

    steps: int
    seconds: float
    curve: tuple[tuple[int, Mapping[str, float]], ...]
    validation: tuple[tuple[int, Mapping[str, float]], ...]
    average: AveragedWeights | None = None

    @property
    def losses(self) -> tuple[tuple[int, float], ...]:
        """Number of steps done, and mean loss over the steps since the previous point."""
        return tuple((step, values["loss"]) for step, values in self.curve)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the trained module has its averaged weights, if there are any."""
        if self.average is None:
            yield
            return
        with self.average.applied():
            yield


def fit(
    module: nn.Module,
    objective: Objective,
    batch_at: Callable[..., ChunkBatch],
    *,
    settings: TrainingSettings,
    seed: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = MatrixDecayAdamW,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    fabric: "Fabric | None" = None,
    directory: Path | None = None,
    loggers: "Sequence[CurveLogger | Logger] | None" = None,
    progress: Callable[[Progress], None] | None = None,
    flops_per_step: float | None = None,
) -> TrainingResult:
    """Train a module in place.

    If `directory` contains checkpoints of this run, training continues from the newest; a finished
    run is loaded and returned immediately. Ctrl-C finishes the current step, writes a checkpoint
    if there is a directory, and then raises KeyboardInterrupt.

    Args:
        module: Its parameters with `requires_grad` are trained; the others do not change. It ends
            on the fabric's device, with the same weights in each process. Parts of it that have
            a method `begin_step(step)` are told the number of each step, from 0.
        objective: Computes the step's loss and other values to log: means over rows, or `Means`
            over something else, with its number.
        batch_at: The batch of a step, a pure function of the step's number from 0. If it also
            takes `rows: slice = slice(None)`, each process builds only its own rows, one
            micro-batch at a time. The loss is the mean over everything that any micro-batch of
            any process counts.
        settings: Settings of the run.
        seed: Fixes all random draws of the steps.
        optimizer: Builds the optimiser over all trained parameters. It must step without a
            closure; its learning rates are the peaks of the schedule.
        validate: Measures the module in evaluation mode and without gradients, in the first
            process only. Its draws from torch's global generators do not affect training.
        fabric: Device, precision and processes; launched by the caller if there are several. The
            strategies are `ddp` and that of `fully_sharded`. None uses one device: a GPU if there
            is one.
        directory: Folder of checkpoints and, by default, the loss curve; None saves nothing. The
            same folder in all processes, with which another number of them can resume.
        loggers: Loggers for the curves, Fabric's or others. None uses the fabric's own or, if it
            has none and there is a directory, a new `logs/version_N/metrics.csv` in it. An empty
            sequence logs nothing. A resumed run also logs the earlier points.
        progress: Called after each step.
        flops_per_step: FLOPs of a step over all devices, for the share of the devices' peak that
            is logged and told; see `calmkit.accounting.forecast`.

    Raises:
        ValueError: If there is nothing to train, the fabric or the optimiser is of an unsupported
            kind, or the objective returns anything but scalars with a "loss".
        CheckpointError: If the directory contains another run or a damaged checkpoint.
        TrainingDiverged: If a step's loss, another part, a gradient, a weight, a validation, or an
            input of the loss is not finite.
        OutOfMemory: If an allocation fails in `validate`; a step raises PyTorch's own error.
        LostProcessError: If another process has ended, or ends with an error of its own.
        WriteError: If the disk is full; earlier checkpoints are kept.
    """
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError(
            "module must have a parameter with requires_grad; got none, is it frozen?"
        )
    fabric = _checked_fabric(fabric)
    was_training = module.training
    with ending_together(fabric) as peers:
        batches = MicroBatches(
            batch_at,
            settings.micro_batch,
            process=fabric.global_rank,
            processes=fabric.world_size,
        )
        placement = Placement(module, fabric)
        trained = {n: p for n, p in placement.trained.named_parameters() if p.requires_grad}
        built = build_optimizer(optimizer, trained)
        identity = run_identity(trained, batches, built, settings, seed, fabric)
        run = Run(
            placement,
            objective,
            batches,
            built,
            settings,
            seed,
            fabric,
            peers,
            directory,
            identity,
        )
        run.resume()
        curves = Curves(fabric, directory, loggers)
        meter = Speedometer(
            tokens=batches.first_batch.tokens.numel(),
            flops=flops_per_step,
            peak=None if flops_per_step is None else _peak(fabric),
            steps=settings.log_every,
        )
        devices = [fabric.device] if fabric.device.type == "cuda" else []
        interrupts = HeldInterrupts(together=fabric.world_size > 1)
        try:
            with interrupts, torch.random.fork_rng(devices):
                curves.write_all(run.history)
                _run_to_end(run, curves, interrupts, validate, progress, meter)
        except KeyboardInterrupt:
            if interrupts.all_stop:
                run.save()
                placement.finish()
                peers.leave(farewell=True)
            with suppress(WriteError):  # the original error matters more
                curves.close("aborted")
            raise
        except BaseException:
            with suppress(WriteError):
                curves.close("failed")
            raise
        finally:
            module.train(was_training)
        placement.finish()
        curves.close("success")
        history = run.history
        return TrainingResult(
            run.step,
            history.seconds,
            tuple(history.curve),
            tuple(history.validation),
            run.whole_average(),
        )


def _run_to_end(
    run: Run,
    curves: Curves,
    interrupts: HeldInterrupts,
    validate: Callable[[nn.Module], Mapping[str, float]] | None,
    progress: Callable[[Progress], None] | None,
    meter: Speedometer,
) -> None:
    """Steps, validations and checkpoints to the end of the run."""
    settings, history = run.settings, run.history
    began, first = time.perf_counter(), run.step
    run.module.train()
    while True:
        # Due work is done before a step, not after it, so that a run that died between a
        # checkpoint and the validation of the same step catches up.
        validating = validate is not None and run.due(settings.validate_every)
        saving = run.due(settings.checkpoint_every)
        if validating or saving:
            run.check_weights()
        if validate is not None and validating:
            if not history.validation or history.validation[-1][0] != run.step:
                curves.write("validation", run.validate(validate))
        if saving:
            run.save()
            curves.flush()
        if run.step == settings.steps:
            return
        points, seconds = len(history.curve), history.seconds
        with interrupts.step():
            loss = run.train_step(interrupts)
        speed = meter.add(history.seconds - seconds)
        pace = (time.perf_counter() - began) / (run.step - first)
        done = Progress(run.step, settings.steps, loss, pace, speed)
        if len(history.curve) > points:
            curves.write("train", history.curve[-1], done)
        if progress is not None and curves.reports:
            progress(done)


def _peak(fabric: "Fabric") -> float | None:
    """FLOPs per second of all devices at most."""
    mixed = str(fabric.strategy.precision.precision).startswith("bf16")
    peak = matrix_peak(fabric.device, mixed=mixed)
    return None if peak is None else peak * fabric.world_size


def _checked_fabric(fabric: "Fabric | None") -> "Fabric":
    """The given fabric or a new one on one device; refused if resuming would not be exact."""
    new_fabric = load_fabric("fit").Fabric
    from lightning_fabric.strategies import (
        DDPStrategy,
        ModelParallelStrategy,
        SingleDeviceStrategy,
    )

    if fabric is None:
        return new_fabric(accelerator="auto", devices=1)
    supported = SingleDeviceStrategy | DDPStrategy | ModelParallelStrategy
    if not isinstance(fabric.strategy, supported):
        raise ValueError(
            "fabric must use one device, the strategy 'ddp' or that of `fully_sharded`; got "
            f"{type(fabric.strategy).__name__}."
        )
    if fabric.strategy.precision.precision == "16-mixed":
        raise ValueError(
            "fabric must not use precision '16-mixed', which skips steps with infinite "
            "gradients; use 'bf16-mixed'."
        )
    return fabric
