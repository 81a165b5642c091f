"""Seeded generators, and weights drawn from them."""

import torch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randomized(head):
    """Random weights: those that start at zero would hide what they multiply."""
    with torch.no_grad():
        for index, parameter in enumerate(head.parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=seeded(index)))
    return head.requires_grad_(False)
