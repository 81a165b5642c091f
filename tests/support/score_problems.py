"""Problems for scoring rules: random ones of any batch, and finite ones whose sums are exact."""

import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calmkit import scoring
from calmkit.scoring import GaussianKernel

seeds = st.integers(0, 2**31 - 1)

# The plain functions of samples and outcome, and how many samples each wants.
SCORES = {
    "energy": (scoring.energy_score, 2),
    "kernel": (lambda x, y: scoring.kernel_score(x, y, kernel=GaussianKernel()), 2),
    "crps": (scoring.crps, 2),
    "sliced": (lambda x, y: scoring.sliced_crps(x, y, torch.ones_like(y).expand(2, *y.shape)), 2),
    "variogram": (scoring.variogram_score, 2),
    "dawid-sebastiani": (scoring.dawid_sebastiani_score, 4),
}


@st.composite
def problems(draw, *, latent=1, samples=2):
    """Samples and outcome of any batch, with at least so many dimensions and samples."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)
    batch, size = draw(shapes), draw(st.integers(latent, 4))
    count = draw(st.integers(samples, samples + 4))
    g = torch.Generator().manual_seed(draw(seeds))
    return torch.randn(count, *batch, size, generator=g), torch.randn(*batch, size, generator=g)


def finite_problem(seed, *, size=3, latent=2):
    """Points, and two distributions on them."""
    g = torch.Generator().manual_seed(seed)
    p, q = (torch.softmax(torch.randn(size, generator=g), 0) for _ in range(2))
    return torch.randn(size, latent, generator=g), p, q


def expectation(score, p, q, support, *, rival=None, draws=2):
    """E_{y ~ p} E_{x ~ q} of a score, x on the rival's support: every outcome enumerated.

    Args:
        score: From samples `draws outcomes latent` and as many outcomes to a score each.
        p: The truth, on `support`.
        q: The prediction, on `rival`.
        support: Points `size latent`.
        rival: The same points, unless given.
        draws: How many samples the score sees at a time.
    """
    y, *x = torch.cartesian_prod(*[torch.arange(len(p))] * (1 + draws)).T
    x = torch.stack(x)
    return (p[y] * q[x].prod(dim=0)) @ score((support if rival is None else rival)[x], support[y])


def margins_mixed(samples, seed):
    """The same samples, each dimension in an order of its own."""
    g = torch.Generator().manual_seed(seed)
    columns = (v[torch.randperm(len(samples), generator=g)] for v in samples.unbind(-1))
    return torch.stack(list(columns), dim=-1)
