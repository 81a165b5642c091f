"""The training loop, on Lightning Fabric for devices, precision and several processes.

One step t, from 0:

    batch      = batch_at(t)                            this process's rows of it
    generator  = step_generator(seed, t)
    parts      = objective(module, batch, generator)    the mean of "loss" is minimised
    gradients are clipped; learning rate = peak * learning_rate_factor(t); optimiser step

All of it is a function of (seed, t), the weights and the optimiser's state. So a run stopped
anywhere and resumed from a checkpoint ends at bitwise the same weights on the same machine.
Torch's global generators are seeded in each step as well, for parts that draw from them
(`nn.Dropout`), and given back to the caller as they were.

A step starts on clean gradients and leaves none behind. One whose loss, logged parts or gradients
are not finite stops the run *before* the optimiser has touched the weights.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from calmkit.chunking import ChunkBatch
from calmkit.disk import WriteError
from calmkit.extras import require

from .curves import Curves
from .identity import run_identity
from .interrupts import HeldInterrupts
from .objective import Objective
from .optimizer import MatrixDecayAdamW, build_optimizer
from .progress import Progress
from .run import Run
from .settings import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import Logger

__all__ = ["TrainingResult", "fit"]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves beside the trained module.

    Attributes:
        steps: Optimiser steps done.
        seconds: Time in training steps alone, without validation and checkpoints, over all
            parts of a resumed run.
        curve: For each `log_every` steps: steps done, and means over those steps of the
            objective's parts, of "gradient_norm" (before clipping) and "learning_rate".
        validation: Steps done, and what `validate` returned.
    """

    steps: int
    seconds: float
    curve: tuple[tuple[int, Mapping[str, float]], ...]
    validation: tuple[tuple[int, Mapping[str, float]], ...]

    @property
    def losses(self) -> tuple[tuple[int, float], ...]:
        """Steps done, and mean loss over the steps since the point before."""
        return tuple((step, values["loss"]) for step, values in self.curve)


def fit(
    module: nn.Module,
    objective: Objective,
    batch_at: Callable[[int], ChunkBatch],
    *,
    settings: TrainingSettings,
    seed: int,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = MatrixDecayAdamW,
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    fabric: "Fabric | None" = None,
    directory: Path | None = None,
    loggers: "Sequence[Logger] | None" = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a module in place.

    If `directory` holds checkpoints of this run, it goes on from the newest; a finished run
    is loaded and returned at once. Ctrl-C ends the step at hand, writes a checkpoint if there
    is a directory, and then raises KeyboardInterrupt.

    Args:
        module: Its parameters with `requires_grad` are trained, the others are left alone. It
            is moved to the fabric's device and stays there.
        objective: Computes the step's loss and whatever else shall be logged: means over rows,
            or `Means` over something else, with its number.
        batch_at: The batch of a step, a pure function of the step's number from 0. With
            several processes each takes every n-th row, and the loss is the mean over all that
            any of them counts.
        settings: Numbers of the run.
        seed: Decides every random draw of the steps.
        optimizer: Builds the optimiser over the trained parameters, and over all of them; it
            steps without a closure, and its learning rates are the peaks of the schedule.
        validate: Measures the module, which is in evaluation mode and without gradient then.
            What it draws from torch's global generators does not reach the training steps.
        fabric: Device, precision and processes; launched by the caller if there are several.
            None takes one device: a GPU if there is one.
        directory: Where checkpoints and, by default, the loss curve are kept; None keeps
            nothing.
        loggers: Fabric loggers for the curves. None takes the fabric's own or else, with a
            directory, `logs/version_N/metrics.csv` in it, a new version each time; an empty
            sequence logs nowhere. A resumed run writes what came before as well.
        progress: Called after each step.

    Raises:
        ValueError: If there is nothing to train, the fabric or the optimiser is of a kind that is
            not supported, or the objective returns something other than scalars with a "loss".
        CheckpointError: If the directory holds another run or a damaged checkpoint.
        TrainingDiverged: If a step's loss, another part or a gradient is not finite, or what the
            loss is computed from; if weights or a validation are not.
        WriteError: If the disk is full; the checkpoints before stay.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError(
            "module must have a parameter with requires_grad; got none, is it frozen?"
        )
    fabric = _checked_fabric(fabric)
    fabric.to_device(module)
    built = build_optimizer(optimizer, trained)
    identity = run_identity(trained, batch_at(0), built, settings, seed, fabric)
    run = Run(module, objective, batch_at, built, settings, seed, fabric, directory, identity)
    run.resume()
    curves = Curves(fabric, directory, loggers)
    was_training = module.training
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    try:
        with HeldInterrupts() as interrupts, torch.random.fork_rng(devices):
            curves.write_all(run.history)
            _follow(run, curves, interrupts, validate, progress)
    except KeyboardInterrupt:
        run.save()
        with suppress(WriteError):  # why the run ended matters more
            curves.close("aborted")
        raise
    except BaseException:
        with suppress(WriteError):
            curves.close("failed")
        raise
    finally:
        module.train(was_training)
    curves.close("success")
    history = run.history
    return TrainingResult(
        run.step, history.seconds, tuple(history.curve), tuple(history.validation)
    )


def _follow(
    run: Run,
    curves: Curves,
    interrupts: HeldInterrupts,
    validate: Callable[[nn.Module], Mapping[str, float]] | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Steps, validations and checkpoints to the end of the run."""
    settings, history = run.settings, run.history
    began, first = time.perf_counter(), run.step
    run.module.train()
    while True:
        # Due work is looked for before a step, not after it: a run that died between a
        # checkpoint and the validation of the same step makes up for it.
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
        points = len(history.curve)
        with interrupts.step():
            loss = run.train_step()
        if len(history.curve) > points:
            curves.write("train", history.curve[-1])
        if progress is not None and curves.mine:
            pace = (time.perf_counter() - began) / (run.step - first)
            progress(Progress(run.step, settings.steps, loss, pace))


def _checked_fabric(fabric: "Fabric | None") -> "Fabric":
    """The given fabric or one on a single device, refused where resuming would not be exact."""
    require("lightning_fabric", "fit")
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy, SingleDeviceStrategy

    if fabric is None:
        return Fabric(accelerator="auto", devices=1)
    if not isinstance(fabric.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ValueError(
            "fabric must use one device or the strategy 'ddp'; sharded weights are not "
            f"supported yet; got {type(fabric.strategy).__name__}."
        )
    if fabric.strategy.precision.precision == "16-mixed":
        raise ValueError(
            "fabric must not use precision '16-mixed', which skips steps with infinite "
            "gradients; use 'bf16-mixed'."
        )
    return fabric
