r"""What the network of a diffusion model predicts, as swappable parts.

At x_t = a x + b eps, with a = sqrt(abar_t) and b = sqrt(1 - abar_t), the pair (x_t, output) fixes
both x and eps, whichever of these the output stands for:

| prediction | output | clean x |
|---|---|---|
| noise | eps | (x_t - b output) / a |
| velocity | a eps - b x | a x_t - b output |
| clean | x | output |

They differ in what an error does. Noise prediction divides it by a, which is 5e-5 at the last of
1000 cosine steps: a network that is not yet accurate there throws samples far off. Velocity and
clean prediction never amplify an error.

Source: Ho et al., arXiv 2006.11239 (noise); Salimans and Ho, "Progressive Distillation for Fast
Sampling of Diffusion Models", arXiv 2202.00512, appendix D (velocity).
"""

import abc
from dataclasses import dataclass

from torch import Tensor

__all__ = ["CleanPrediction", "NoisePrediction", "Prediction", "VelocityPrediction"]


class Prediction(abc.ABC):
    """The meaning of a network's output; `signal` is abar_t, with axes to broadcast."""

    @abc.abstractmethod
    def target(self, clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
        """What the output should be, given clean x and noise."""

    @abc.abstractmethod
    def clean(self, output: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """The clean x that an output at x_t stands for."""


@dataclass(frozen=True)
class NoisePrediction(Prediction):
    """The output is the noise, as in DDPM and in the published head."""

    def target(self, clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
        """`noise`."""
        return noise

    def clean(self, output: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """`(noisy - b output) / a`."""
        return (noisy - (1 - signal).sqrt() * output) / signal.sqrt()


@dataclass(frozen=True)
class VelocityPrediction(Prediction):
    """The output is the derivative of x_t along its arc of constant variance."""

    def target(self, clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
        """`a noise - b clean`."""
        return signal.sqrt() * noise - (1 - signal).sqrt() * clean

    def clean(self, output: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """`a noisy - b output`."""
        return signal.sqrt() * noisy - (1 - signal).sqrt() * output


@dataclass(frozen=True)
class CleanPrediction(Prediction):
    """The output is the clean x."""

    def target(self, clean: Tensor, noise: Tensor, signal: Tensor) -> Tensor:
        """`clean`."""
        return clean

    def clean(self, output: Tensor, noisy: Tensor, signal: Tensor) -> Tensor:
        """`output`."""
        return output
