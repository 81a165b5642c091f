r"""Weights of a diffusion loss over the steps of its schedule.

The loss of a step is w_t || output - target ||^2. What a weight means depends on the prediction:
the same error of the clean x, which is `gain` times the output's, is a small error of the noise at
one step and a large one at another. Min-SNR weighting states its weight for the clean x,

    w_t = min(snr_t, gamma) gain_t^2
        = min(snr_t, gamma) / snr_t          noise prediction
        = min(snr_t, gamma) / (snr_t + 1)    velocity prediction
        = min(snr_t, gamma)                  clean prediction,

so that the three train on the same loss. It is noise prediction's uniform loss, cut off where
little noise would otherwise outweigh all else.

Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy",
arXiv 2303.09556, section 3.4.
"""

import abc
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_positive
from calmkit.typing import typed

from .prediction import Prediction
from .schedule import NoiseSchedule

__all__ = ["LossWeighting", "MinSNRWeighting", "UniformWeighting"]


class LossWeighting(abc.ABC):
    """A weight for the squared error of the network's output at each step."""

    @abc.abstractmethod
    def weights(self, schedule: NoiseSchedule, prediction: Prediction) -> Float[Tensor, " steps"]:
        """The weights, in float64."""


@dataclass(frozen=True)
class UniformWeighting(LossWeighting):
    """Every step's error counts alike, as the network puts it out."""

    @typed
    def weights(self, schedule: NoiseSchedule, prediction: Prediction) -> Float[Tensor, " steps"]:
        """Ones."""
        return torch.ones_like(schedule.betas)


@dataclass(frozen=True)
class MinSNRWeighting(LossWeighting):
    """`min(snr, gamma)` for the error of the clean x.

    Attributes:
        gamma: Largest weight, positive.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        check_positive(gamma=self.gamma)

    @typed
    def weights(self, schedule: NoiseSchedule, prediction: Prediction) -> Float[Tensor, " steps"]:
        """`min(snr, gamma) gain^2`; zero where no signal is left."""
        gain = prediction.gain(schedule.signal_scale, schedule.noise_scale)
        return schedule.snr.clamp_max(self.gamma) * gain.square()
