"""Settings of a training run: its length, its schedule, and its intervals.

The defaults are the paper's where it states one: constant learning rate after a warm-up,
gradients clipped at norm 1. Learning rate, betas and weight decay belong to the optimiser.
"""

import math
from dataclasses import dataclass

__all__ = ["TrainingSettings"]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training run.

    Attributes:
        steps: Number of optimiser steps in the whole run.
        batch_size: Number of rows in one step's batch, over all devices. It is for the code that
            makes batches; `fit` accepts batches of any size.
        micro_batch: Number of rows of one forward and backward pass on one device; gradients are
            accumulated until all rows of the batch are done. None: all rows of a device at once.
            The random numbers of a step depend on it, but not on the number of devices.
        warmup_steps: Number of steps over which the learning rate rises linearly to its peak. In a
            run for which a config sets fewer steps than a preset, and no warm-up, it keeps its
            share of the steps.
        decay_to: Share of the peak learning rate that a half cosine reaches at the end of the run;
            1 keeps it constant.
        clip_norm: Largest 2-norm of all gradients together; `inf` never clips.
        ema: Decay of an exponential moving average of the weights, which is kept beside them and
            measured in their place; see `AveragedWeights`. A good first choice averages the last
            few per cent of the run: 0.99 for 2,000 steps, 0.999 for 20,000, 0.9999 for 200,000.
            None: no average.
        log_every: Number of steps that one point of the loss curve averages.
        validate_every: Number of steps between validations. There is always one at the end; 0
            means only that one.
        checkpoint_every: Number of steps between checkpoints, if `fit` has a directory. There is
            always one at the end and on Ctrl-C; 0 means only those.
        keep_checkpoints: Number of newest checkpoints that stay on disk.
    """

    steps: int
    batch_size: int = 16
    micro_batch: int | None = None
    warmup_steps: int = 100
    decay_to: float = 1.0
    clip_norm: float = 1.0
    ema: float | None = None
    log_every: int = 10
    validate_every: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        """Refuse invalid settings.

        Raises:
            ValueError: If a setting is out of range.
        """
        for name in ("steps", "batch_size", "log_every", "keep_checkpoints"):
            _check_whole(name, getattr(self, name), minimum=1)
        if self.micro_batch is not None:
            _check_whole("micro_batch", self.micro_batch, minimum=1)
        for name in ("warmup_steps", "validate_every", "checkpoint_every"):
            _check_whole(name, getattr(self, name), minimum=0)
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps must be at most steps = {self.steps}, or the learning rate never "
                f"reaches its peak; got {self.warmup_steps}. Lower it, or raise steps."
            )
        if not 0.0 <= self.decay_to <= 1.0:
            raise ValueError(
                "decay_to must be in [0, 1], a share of the peak learning rate "
                f"(1 keeps it constant); got {self.decay_to}."
            )
        if math.isnan(self.clip_norm) or self.clip_norm <= 0.0:
            raise ValueError(
                f"clip_norm must be above 0; use inf for no clipping; got {self.clip_norm}."
            )
        if self.ema is not None and not 0.0 < self.ema < 1.0:
            raise ValueError(
                "ema must be in (0, 1), the share of the average that a step keeps, such as "
                f"0.999; use None for no average; got {self.ema}."
            )


def _check_whole(name: str, value: object, *, minimum: int) -> None:
    # bool is a subclass of int, but `steps=True` is a mistake.
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}; got {value!r}.")
