"""Variances of reverse steps: what the network puts out, and the bound against its integral."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from calmkit.heads.variance import FixedVariance, LearnedVariance

VARIANCES = (LearnedVariance(), FixedVariance(), FixedVariance(large=True))


@pytest.mark.parametrize("variance", VARIANCES)
def test_parts_of_the_output(variance):
    output = torch.arange(2.0 * variance.outputs)
    estimate, fraction = variance.split(output)
    assert estimate.tolist() == [0.0, 1.0]
    if variance == LearnedVariance():
        assert fraction.tolist() == [1.5, 2.0]  # (output + 1) / 2
    else:
        assert fraction == (1.0 if variance.large else 0.0)


@given(st.integers(0, 2**31 - 1), st.floats(-0.5, 1.5))
def test_bound_is_the_kl_in_bits_or_the_density_at_the_first_step(seed, fraction):
    draw = torch.Generator().manual_seed(seed)
    true_mean, mean = torch.randn(2, 5, 3, generator=draw)
    lower = torch.randn(5, 1, generator=draw) - 2
    upper = lower + torch.rand(5, 1, generator=draw)
    first = torch.tensor([[True], [False], [False], [True], [False]])
    fractions = torch.full((5, 3), fraction)
    got = LearnedVariance().bound(fractions, true_mean - mean, upper, lower, first)
    for i in range(5):
        log_variance = fraction * upper[i, 0] + (1 - fraction) * lower[i, 0]
        for j in range(3):
            model = Normal(mean[i, j], (0.5 * log_variance).exp())
            truth = Normal(true_mean[i, j], (0.5 * lower[i, 0]).exp())
            nats = -model.log_prob(true_mean[i, j]) if first[i] else kl_divergence(truth, model)
            assert float(got[i, j]) == pytest.approx(float(nats) / math.log(2), abs=1e-9)


def test_a_fixed_variance_has_nothing_to_train():
    error, level = torch.ones(5, 3), torch.zeros(5, 1)
    for variance in VARIANCES[1:]:
        bound = variance.bound(0.0, error, level, level, level == 0)
        assert torch.equal(bound, torch.zeros(5, 3))
