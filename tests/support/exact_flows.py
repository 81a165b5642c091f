"""Flows known in closed form, on straight paths x_t = (1 - t) x_0 + t z from standard noise.

Their maps X(x, t, e) and average velocities (X - x) / (e - t), as a network would give them.
"""

import math

import torch
from torch import nn

from calmkit.nn.dual import Dual


class Known(nn.Module):
    """Stands where a head's network stands: an exact average velocity, plus an error if wanted.

    `shift` and `slope` are parameters at zero: u + shift + slope x.
    """

    def __init__(self, average, shift=0.0):
        super().__init__()
        self.average = average
        self.shift = nn.Parameter(torch.tensor(shift))
        self.slope = nn.Parameter(torch.tensor(0.0))

    def forward(self, x, time, end, cond):
        u = self.average(x, time[..., None], end[..., None])
        return u + self.shift + self.slope * x

    def dual(self, x, time, end, cond):
        primals, tangents = zip(*((d.value, d.tangent) for d in (x, time, end)), strict=True)
        return Dual(
            *torch.autograd.functional.jvp(
                lambda *args: self.forward(*args, cond), primals, tangents, create_graph=True
            )
        )


class Gaussian:
    """z ~ N(mean, std^2) per dimension: x_t ~ N(t mean, s_t^2), s_t^2 = (1 - t)^2 + t^2 std^2.

    A path keeps its place in units of s_t: X = e mean + (s_e / s_t) (x - t mean).
    """

    def __init__(self, mean, std):
        self.mean, self.std, self.size = mean, std, len(mean)

    def spread(self, t):
        return ((1 - t) ** 2 + t**2 * self.std**2).sqrt()

    def map(self, x, t, e):
        return e * self.mean + self.spread(e) / self.spread(t) * (x - t * self.mean)

    def velocity(self, x, t):
        """E[z - x_0 | x_t = x], by conditioning of jointly Gaussians."""
        covariance = t * self.std**2 - (1 - t)
        return self.mean + covariance / self.spread(t) ** 2 * (x - t * self.mean)

    def average(self, x, t, e):
        """(X - x) / (e - t), where s_e - s_t = (s_e^2 - s_t^2) / (s_e + s_t): finite at e = t."""
        growth = (t + e) * self.std**2 - (2 - t - e)
        rate = growth / (self.spread(e) + self.spread(t)) / self.spread(t)
        return self.mean + rate * (x - t * self.mean)


class Mixture:
    """In one dimension, z ~ N(means[k], stds[k]^2) with probability weights[k].

    A path keeps its quantile: X = F_e^-1(F_t(x)) with the distribution function F_t of x_t.
    """

    size = 1

    def __init__(self, weights, means, stds):
        self.weights, self.means, self.stds = weights, means, stds

    def _standardised(self, x, t):
        spread = ((1 - t) ** 2 + t**2 * self.stds**2).sqrt()
        return (x - t * self.means) / spread, spread

    def probability_below(self, x, t):
        return (self.weights * torch.special.ndtr(self._standardised(x, t)[0])).sum(-1, True)

    def map(self, x, t, e):
        """By bisection, to the last bit."""
        goal = self.probability_below(x, t)
        low, high = torch.full_like(goal, -50.0), torch.full_like(goal, 50.0)
        for _ in range(70):
            middle = (low + high) / 2
            below = self.probability_below(middle, e) < goal
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def velocity(self, x, t):
        """The components' velocities, weighted by their shares of the density at x."""
        y, spread = self._standardised(x, t)
        log_density = self.weights.log() - 0.5 * y.square() - spread.log()
        each = self.means + (t * self.stds**2 - (1 - t)) / spread * y
        return (log_density.softmax(-1) * each).sum(-1, True)

    def average(self, x, t, e):
        return torch.where(e == t, self.velocity(x, t), (self.map(x, t, e) - x) / (e - t))


class KnownByDifferences(Known):
    """For averages that cannot be differentiated by the chain rule: central differences."""

    def dual(self, x, time, end, cond, step=1e-5):
        a, b = (
            self.forward(*(d.value + sign * step * d.tangent for d in (x, time, end)), cond)
            for sign in (1, -1)
        )
        return Dual(self.forward(x.value, time.value, end.value, cond), (a - b) / (2 * step))


GAUSSIAN = Gaussian(torch.tensor([1.0, -2.0, 0.3]), torch.tensor([0.5, 2.0, 0.05]))
MIXTURE = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.5]))


def draws_on_the_field(flow, x, times):
    """Latents and noise of straight paths through `x` whose velocity is the field's."""
    t = times[..., None]
    velocity = flow.velocity(x, t)
    return x + (1 - t) * velocity, x - t * velocity


def normal_distribution(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def random_times(draws, jumps, *batch, seed=3):
    """Times of all draws, and the ends of the jumps, which come after."""
    times, ends = torch.rand(2, draws, *batch, generator=torch.Generator().manual_seed(seed))
    first, second = times[:jumps], ends[:jumps]
    return torch.cat([torch.minimum(first, second), times[jumps:]]), torch.maximum(first, second)


def filled(head):
    """With random weights: those that start at zero would hide what they multiply."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return head
