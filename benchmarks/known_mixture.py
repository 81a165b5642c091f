r"""A target whose optimal velocity and noise estimate are closed forms: a mixture of Gaussians.

The distance of samples X to the target Y is the energy distance D,

    D^2 = 2 E||X - Y|| - E||X - X'|| - E||Y - Y'||,

with expectations over Y in closed form.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.scoring import folded_normal_mean

__all__ = ["Mixture", "normal_points", "sobol_points"]


@dataclass(frozen=True)
class Mixture:
    """Mixture of Gaussians N(m_k, s^2 I) in two dimensions, with its optimal estimates.

    Attributes:
        weights: Of the components; they add up to 1.
        means: m_k, one a row.
        std: s.
    """

    weights: Tensor
    means: Tensor
    std: float

    @staticmethod
    def ring(device: torch.device, components: int = 8, std: float = 0.2) -> "Mixture":
        """Components on a circle, of unequal weights; variance about 1 per dimension."""
        number = torch.arange(components, dtype=torch.float64, device=device)
        angle = 2 * math.pi / components * number
        radius = math.sqrt(2 * (1 - std**2))
        means = radius * torch.stack([angle.cos(), angle.sin()], dim=-1)
        return Mixture((number + 1) / (number + 1).sum(), means, std)

    def estimates(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """E[z | x] and E[eps | x] at x = a z + b eps, with a z of the mixture and eps ~ N(0, I).

        Given its component k, x ~ N(a m_k, v I) with v = a^2 s^2 + b^2; which component it is has
        probability softmax_k(log w_k - ||x - a m_k||^2 / (2 v)).
        """
        variance = (a * self.std).square() + b.square()
        norms = self.means.square().sum(dim=-1)
        logits = self.weights.log() + (a * (x @ self.means.T) - a.square() * norms / 2) / variance
        mean = logits.softmax(dim=-1) @ self.means
        residual = (x - a * mean) / variance
        return mean + a * self.std**2 * residual, b * residual

    def draw(self, uniform: Tensor) -> Tensor:
        """Samples (n, 2) from n points of the unit cube."""
        component = torch.searchsorted(self.weights.cumsum(0), uniform[:, 0].contiguous())
        component = component.clamp_max(len(self.weights) - 1)
        return self.means[component] + self.std * normal_points(uniform[:, 1:])

    def mean_distance(self) -> float:
        """E||Y - Y'||, within the precision of `distance`."""
        along = self.means @ directions(self.means)
        apart = along[:, None] - along
        mean = folded_normal_mean(apart, torch.full_like(apart, math.sqrt(2) * self.std))
        return float(math.pi / 2 * (self.weights @ mean.mean(dim=-1) @ self.weights))

    def distance(self, samples: Tensor) -> float:
        """The energy distance D of the empirical law of samples (n, 2) to the mixture.

        As ||v|| = pi/2 times the mean of |u . v| over unit vectors u, the work is that of sorting
        the samples along each direction instead of taking all pairs.
        """
        u = directions(self.means)
        along, count = (samples @ u).T.contiguous().sort(dim=-1).values, len(samples)
        target = torch.zeros_like(along)
        for weight, mean in zip(self.weights, self.means @ u, strict=True):
            apart = along - mean[:, None]
            target += weight * folded_normal_mean(apart, torch.full_like(apart, self.std))
        # A gap between neighbours is part of the distance of i samples below to n - i above.
        below = torch.arange(1, count, dtype=along.dtype, device=along.device)
        pairs = along.diff(dim=-1) @ (2 * below * (count - below) / count**2)
        square = math.pi / 2 * float((2 * target.mean(dim=-1) - pairs).mean())
        return math.sqrt(max(square - self.mean_distance(), 0.0))


def directions(like: Tensor, count: int = 32) -> Tensor:
    """Unit vectors (2, count), evenly over half a turn."""
    angle = math.pi / count * (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5)
    return torch.stack([angle.cos(), angle.sin()])


def sobol_points(count: int, size: int, seed: int, device: torch.device) -> Tensor:
    """A scrambled net in the unit cube, of float64."""
    points = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
    return points.draw(count, dtype=torch.float64).to(device)


def normal_points(uniform: Tensor) -> Tensor:
    """Points of the unit cube, moved so that they are standard normal."""
    return torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
