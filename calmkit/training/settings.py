"""What a training run is told: how long, how fast, how often it looks up.

The defaults are the paper's where it gives one: constant learning rate after a warm-up,
gradients clipped at norm 1. Learning rate, betas and weight decay belong to the optimiser.
"""

import math
from dataclasses import dataclass

__all__ = ["TrainingSettings"]


@dataclass(frozen=True)
class TrainingSettings:
    """Numbers of one training run.

    Attributes:
        steps: Optimiser steps in the whole run.
        batch_size: Rows in one step's batch, over all devices. `fit` takes batches as they
            come; whoever makes them reads this.
        warmup_steps: Steps over which the learning rate rises linearly to its peak.
        decay_to: Share of the peak learning rate that a half cosine falls to by the end of
            the run; 1 keeps it constant.
        clip_norm: Largest 2-norm of all gradients together; `inf` never clips.
        log_every: Steps that one point of the loss curve is the mean of.
        validate_every: Steps between validations. There is always one at the end; 0 means
            only that one.
        checkpoint_every: Steps between checkpoints, if `fit` is given a directory. There is
            always one at the end and on Ctrl-C; 0 means only those.
        keep_checkpoints: Newest checkpoints that stay on disk.
    """

    steps: int
    batch_size: int = 16
    warmup_steps: int = 100
    decay_to: float = 1.0
    clip_norm: float = 1.0
    log_every: int = 10
    validate_every: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        """Refuse numbers that no run can follow."""
        for name in ("steps", "batch_size", "log_every", "keep_checkpoints"):
            _check_whole(name, getattr(self, name), minimum=1)
        for name in ("warmup_steps", "validate_every", "checkpoint_every"):
            _check_whole(name, getattr(self, name), minimum=0)
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps must be at most steps = {self.steps}, or the learning rate never "
                f"reaches its peak; got {self.warmup_steps}."
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


def _check_whole(name: str, value: object, *, minimum: int) -> None:
    # bool is an int to Python, but `steps=True` is a slip.
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}; got {value!r}.")
