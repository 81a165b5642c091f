"""Targets whose optimal velocity on the straight path is a closed form."""

import math

import torch
from torch import nn


class GaussianTarget(nn.Module):
    """N(mean, covariance); stands where a flow head's network stands.

    x_t = (1 - t) x_0 + t z and z - x_0 are jointly normal, so E[z - x_0 | x_t = x] is linear in
    x. The flow is the linear map x_0 -> mean + R x_0 with R symmetric, R^2 = covariance.
    """

    def __init__(self, mean, covariance):
        super().__init__()
        self.mean, self.covariance = mean, covariance

    def velocity(self, x, t):
        one = torch.eye(len(self.mean), dtype=x.dtype)
        total = (1 - t) ** 2 * one + t**2 * self.covariance
        gain = (t * self.covariance - (1 - t) * one) @ torch.linalg.inv(total)
        return self.mean + (x - t * self.mean) @ gain

    def end(self, noise):
        values, vectors = torch.linalg.eigh(self.covariance)
        return self.mean + noise @ (vectors * values.sqrt()) @ vectors.T

    def log_prob(self, x):
        return torch.distributions.MultivariateNormal(self.mean, self.covariance).log_prob(x)

    def forward(self, x, time, cond):
        return self.velocity(x, time.flatten()[0])


class MixtureTarget(nn.Module):
    """sum_k weight_k N(mean_k, std_k^2 I).

    Given its component k, x_t is N(t mean_k, (1 - t)^2 + t^2 std_k^2); the velocity is the mean
    of the components' velocities under the probabilities of k given x_t = x.
    """

    def __init__(self, weights, means, stds):
        super().__init__()
        self.weights, self.means, self.stds = weights, means, stds

    def of_components(self, x, t):
        """Log of weight times density of x_t, and what is left of x: (..., k), (..., k, l)."""
        variance = (1 - t) ** 2 + t**2 * self.stds**2
        residual = x[..., None, :] - t * self.means
        squares = residual.square().sum(-1) / variance
        size = x.shape[-1]
        log = self.weights.log() - 0.5 * (squares + size * (2 * math.pi * variance).log())
        return log, residual

    def velocity(self, x, t):
        log, residual = self.of_components(x, t)
        gain = (t * self.stds**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * self.stds**2)
        each = self.means + gain[:, None] * residual
        return (log.softmax(-1)[..., None] * each).sum(-2)

    def log_prob(self, x):
        return self.of_components(x, torch.ones(()))[0].logsumexp(-1)

    def moments(self):
        mean = self.weights @ self.means
        centred = self.means - mean
        spread = (self.weights * self.stds**2).sum() * torch.eye(len(mean))
        return mean, (self.weights[:, None] * centred).T @ centred + spread

    def forward(self, x, time, cond):
        return self.velocity(x, time.flatten()[0])


GAUSSIAN = GaussianTarget(
    torch.tensor([1.0, -2.0, 0.3]),
    torch.tensor([[0.5, 0.3, 0.0], [0.3, 2.0, -0.1], [0.0, -0.1, 0.04]]),
)
MIXTURE = MixtureTarget(
    torch.tensor([0.3, 0.5, 0.2]),
    torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.5, -1.5]]),
    torch.tensor([0.3, 0.6, 0.4]),
)
