"""Argument checks that all scores share.

Values are read only where that is free: eagerly, on the CPU. Elsewhere reading a value would wait
for the device, and a NaN shows in the score.
"""

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.finite import NonFiniteError, check_finite, is_readable

__all__ = [
    "check_categorical",
    "check_count",
    "check_dimensions",
    "check_not_negative",
    "check_target",
]


def check_count(samples: Tensor, least: int = 2) -> None:
    """Refuse too few samples along the first axis, and vectors without dimensions."""
    if samples.shape[0] < least:
        raise ValueError(
            f"samples must hold at least {least} draws to be unbiased; got {samples.shape[0]}."
        )
    check_dimensions(samples=samples)


def check_dimensions(least: int = 1, **vectors: Tensor) -> None:
    """Refuse too few dimensions along the last axis."""
    for name, vector in vectors.items():
        if vector.shape[-1] < least:
            wanted = "1 dimension" if least == 1 else f"{least} dimensions, for there to be a pair"
            raise ValueError(f"{name} must have at least {wanted}; got {vector.shape[-1]}.")


def check_not_negative(**tensors: Tensor) -> None:
    """Refuse negative values."""
    for name, tensor in tensors.items():
        if is_readable(tensor) and (low := tensor.detach().min()) < 0:
            raise ValueError(f"{name} must not be negative; got {float(low)}.")


def check_target(samples: Tensor, target: DiagonalGaussian) -> None:
    """Refuse a target that does not fit the samples, or has a negative or non-finite value."""
    if samples.shape[1:] != target.mean.shape:
        raise ValueError(
            f"samples must have shape (samples, *target.mean.shape) = (samples, "
            f"{', '.join(map(str, target.mean.shape))}); got {tuple(samples.shape)}."
        )
    check_dimensions(samples=samples)
    try:
        check_finite(mean=target.mean, std=target.std)
    except NonFiniteError:
        if not target.std.any():  # a point mass: the caller gave a tensor and no mean
            check_finite(target=target.mean)
        raise
    check_not_negative(std=target.std)


def check_categorical(probabilities: Tensor, target: Tensor) -> None:
    """Refuse probabilities that are not a distribution, and a target that indexes no outcome."""
    if probabilities.shape[-1] < 1:
        raise ValueError("probabilities must have at least 1 outcome along the last axis; got 0.")
    if is_readable(probabilities):
        low, total = probabilities.detach().min(), probabilities.detach().sum(-1).flatten()
        if not low >= 0:
            raise ValueError(f"probabilities must not be negative or NaN; got {float(low)}.")
        worst = total[(total - 1).abs().argmax()]
        # Half of the digits: far above the rounding error of a softmax, far below a real mistake.
        tolerance = torch.finfo(total.dtype).eps ** 0.5
        if not (worst - 1).abs() <= tolerance:
            raise ValueError(
                f"probabilities must sum to 1 along the last axis, within {tolerance:.1g}; "
                f"got {float(worst)}."
            )
    if is_readable(target):
        low, high = target.aminmax()
        most = probabilities.shape[-1] - 1
        if low < 0 or high > most:
            wrong = int(low if low < 0 else high)
            raise ValueError(
                f"target must be in [0, {most}], the indices of the outcomes; got {wrong}."
            )
