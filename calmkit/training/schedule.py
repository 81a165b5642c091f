r"""The learning-rate schedule: a linear warm-up, then a half cosine.

As a share of the peak, for step t = 0, ..., T - 1, with W warm-up steps and final share r:

    f(t) = (t + 1) / W                                           for t < W,
    f(t) = r + (1 - r) (1 + cos(pi (t - W) / (T - W))) / 2       from there on.

No step is wasted on a rate of zero: the first step has 1/W, and r is reached only after the last.
With r = 1 the rate stays at its peak, as in the CALM paper.
"""

import math

__all__ = ["learning_rate_factor"]


def learning_rate_factor(
    step: int, *, steps: int, warmup_steps: int, decay_to: float = 1.0
) -> float:
    """Share of the peak learning rate at one step: `f(step)`.

    Args:
        step: Number of the step, from 0; equals the number of steps done before it.
        steps: Number of steps in the whole run.
        warmup_steps: Number of steps of linear warm-up.
        decay_to: Share of the peak at the end of the run.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return decay_to + (1.0 - decay_to) * (1.0 + math.cos(math.pi * progress)) / 2.0
