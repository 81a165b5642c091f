"""Points whose diagnostics are known: targets in few groups, and a posterior of uneven widths."""

import itertools
import math

import torch
from rounding import normal

from calmkit.distributions import DiagonalGaussian

LATENT = 4


def targets(points=60, *, std=0.3):
    return DiagonalGaussian(normal(points, LATENT), torch.full((points, LATENT), std))


def groups(points=60):
    return torch.arange(points) % 6


def score(samples, outcome):
    """1/m sum ||x_i - y|| - 1/(m (m-1)) sum_{i<j} ||x_i - x_j||."""
    m = len(samples)
    error = sum(math.dist(x, outcome) for x in samples) / m
    pairs = sum(math.dist(a, b) for a, b in itertools.combinations(samples, 2))
    return error - pairs / (m * (m - 1))


def posterior(points=40, latent=4):
    """Means of different widths and places, correlated; stds that differ from point to point."""
    mean = normal(points, latent) @ normal(latent, latent, seed=1) + 0.3
    return DiagonalGaussian(mean, 0.1 + normal(points, latent, seed=2).square())
