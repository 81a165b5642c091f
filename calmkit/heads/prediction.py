r"""Prediction targets of a diffusion model's network, as swappable parts.

At x_t = a x + b eps, with a = sqrt(abar_t) and b = sqrt(1 - abar_t), the pair (x_t, output)
determines both x and eps for each of these outputs:

| prediction | output | clean x | gain |
|---|---|---|---|
| noise | eps | (x_t - b output) / a | b / a |
| velocity | a eps - b x | a x_t - b output | b |
| clean | x | output | 1 |

They differ in the effect of an error: the error of the clean x is `gain` times that of the output.
For noise prediction the gain is 2e4 at the last of 1000 cosine steps, where an inaccurate network
throws samples far off, and infinite without any signal. Velocity and clean prediction never
amplify an error.

Source: Ho et al., arXiv 2006.11239 (noise); Salimans and Ho, "Progressive Distillation for Fast
Sampling of Diffusion Models", arXiv 2202.00512, appendix D (velocity).
"""

import abc
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CleanPrediction", "NoisePrediction", "Prediction", "VelocityPrediction"]


class Prediction(abc.ABC):
    """The meaning of a network's output; `clean` is affine in it.

    The scales are a and b above, with axes for broadcasting.
    """

    @abc.abstractmethod
    def target(
        self, clean: Tensor, noise: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """The target of the output, given clean x and noise."""

    @abc.abstractmethod
    def clean(
        self, output: Tensor, noisy: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """The clean x implied by an output at x_t."""

    def gain(self, signal_scale: Tensor, noise_scale: Tensor) -> Tensor:
        """Error of the clean x per error of the output; infinite if x is not determined."""
        one, zero = torch.ones_like(signal_scale), torch.zeros_like(signal_scale)
        return self.clean(one, zero, signal_scale, noise_scale).abs()


@dataclass(frozen=True)
class NoisePrediction(Prediction):
    """The output is the noise, as in DDPM and in the published head."""

    def target(
        self, clean: Tensor, noise: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """`noise`."""
        return noise

    def clean(
        self, output: Tensor, noisy: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """`(noisy - b output) / a`."""
        return (noisy - noise_scale * output) / signal_scale


@dataclass(frozen=True)
class VelocityPrediction(Prediction):
    """The output is the derivative of x_t along its arc of constant variance."""

    def target(
        self, clean: Tensor, noise: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """`a noise - b clean`."""
        return signal_scale * noise - noise_scale * clean

    def clean(
        self, output: Tensor, noisy: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """`a noisy - b output`."""
        return signal_scale * noisy - noise_scale * output


@dataclass(frozen=True)
class CleanPrediction(Prediction):
    """The output is the clean x."""

    def target(
        self, clean: Tensor, noise: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """`clean`."""
        return clean

    def clean(
        self, output: Tensor, noisy: Tensor, signal_scale: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """`output`."""
        return output
