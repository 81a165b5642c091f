"""Times of training: quantile functions against scipy, stratified draws by enumeration."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calmkit.heads.times import LogitNormalTimes, UniformTimes, stratified

laws = st.builds(LogitNormalTimes, st.floats(-2.0, 2.0), st.floats(0.2, 2.0))


def grid(size):
    """The midpoints of `size` equal parts of [0, 1]."""
    return (torch.arange(size) + 0.5) / size


@given(laws)
def test_logit_normal_is_the_quantile_function(law):
    """P(t <= Q(u)) = u, for the normal law of the logit."""
    u = grid(50)
    t = law.from_uniform(u)
    logit = (t.log() - (-t).log1p()).numpy()
    torch.testing.assert_close(torch.from_numpy(stats.norm(law.mean, law.std).cdf(logit)), u)
    assert (t.diff() > 0).all()


def test_logit_normal_density_of_the_source():
    """1 / (s sqrt(2 pi)) 1 / (t (1 - t)) exp(-(logit t - m)^2 / (2 s^2)), as 1 / Q'."""
    u = grid(50).requires_grad_()
    t = LogitNormalTimes(0.4, 0.7).from_uniform(u)
    (slope,) = torch.autograd.grad(t.sum(), u)
    for got, point in zip((1 / slope).tolist(), t.tolist(), strict=True):
        logit = math.log(point / (1 - point))
        scale = 1 / (0.7 * math.sqrt(2 * math.pi) * point * (1 - point))
        assert got == pytest.approx(scale * math.exp(-((logit - 0.4) ** 2) / (2 * 0.7**2)))


@given(laws)
def test_ends(law):
    ends = torch.tensor([0.0, 1.0])
    assert torch.equal(law.from_uniform(ends), ends)
    assert torch.equal(UniformTimes().from_uniform(ends), ends)


def test_uniform_is_the_identity():
    assert torch.equal(UniformTimes().from_uniform(grid(9)), grid(9))


@given(st.integers(1, 6), st.integers(1, 4))
def test_stratified_is_a_loop(draws, batch):
    u = torch.rand(draws, batch, generator=torch.Generator().manual_seed(draws))
    got = stratified(u)
    for k in range(draws):
        for b in range(batch):
            torch.testing.assert_close(got[k, b], (k + u[k, b]) / draws)
            assert k / draws <= got[k, b] <= (k + 1) / draws


@given(st.integers(1, 6), st.integers(1, 9))
def test_stratified_draws_are_uniform(draws, size):
    """u_k over a grid of each stratum together are the fine grid: each part counts alike."""
    u = grid(size).expand(draws, size)
    torch.testing.assert_close(stratified(u).flatten(), grid(draws * size))


@given(st.integers(2, 5), st.integers(0, 2**31 - 1))
def test_a_stratified_mean_never_varies_more(draws, seed):
    """Exactly, for any function on a grid of times."""
    size = 7
    values = torch.randn(draws, size, generator=torch.Generator().manual_seed(seed))
    independent = values.flatten().var(correction=0) / draws
    within = values.var(dim=1, correction=0).sum() / draws**2
    assert within <= independent + 1e-12
    # All strata averaged, the mean is the same: no bias.
    torch.testing.assert_close(values.mean(dim=1).mean(), values.mean())


def test_times_in_bfloat16_are_rounded_once():
    u, law = grid(50).bfloat16(), LogitNormalTimes(0.4, 0.7)
    got = law.from_uniform(u)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), law.from_uniform(u.double()), rtol=2**-8, atol=0.0)


@pytest.mark.parametrize("shape", [(1,), (3, 0), (2, 3, 4)], ids=str)
def test_shapes(shape):
    u = torch.zeros(shape)
    assert stratified(u).shape == LogitNormalTimes().from_uniform(u).shape == shape


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"std": 0.0}, "std must be positive and finite; got 0.0"),
        ({"std": math.inf}, "std must be positive and finite; got inf"),
        ({"mean": math.nan}, r"mean must be in \(-inf, inf\); got nan"),
    ],
)
def test_bad_settings_are_named(settings, match):
    with pytest.raises(ValueError, match=match):
        LogitNormalTimes(**settings)
