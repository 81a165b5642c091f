"""Logarithmic score: scipy, scoringrules, Gibbs' inequality by enumeration, units."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import scoringrules
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring.logarithmic import log_score

seeds = st.integers(0, 2**31 - 1)


def gaussian_problem(seed, batch=(3,), latent=2):
    g = torch.Generator().manual_seed(seed)
    mean, y = torch.randn(2, *batch, latent, generator=g)
    return DiagonalGaussian(mean, 0.1 + torch.rand(*batch, latent, generator=g)), y


@given(seeds, st.sampled_from([(), (3,), (2, 3)]), st.integers(1, 4))
def test_matches_scipy(seed, batch, latent):
    law, y = gaussian_problem(seed, batch, latent)
    want = torch.empty(batch)
    for index in itertools.product(*map(range, batch)):
        mean, std = law.mean[index].numpy(), law.std[index].numpy()
        joint = scipy.stats.multivariate_normal(mean, np.diag(std**2))
        want[index] = -joint.logpdf(y[index].numpy())
        by_dimension = -scipy.stats.norm(mean, std).logpdf(y[index].numpy()).sum()
        assert float(want[index]) == pytest.approx(by_dimension)
    torch.testing.assert_close(log_score(law.log_prob, y), want)


@given(seeds)
def test_matches_scoringrules(seed):
    law, y = gaussian_problem(seed, latent=1)
    want = scoringrules.logs_normal(
        y.squeeze(-1).numpy(), law.mean.squeeze(-1).numpy(), law.std.squeeze(-1).numpy()
    )
    torch.testing.assert_close(log_score(law.log_prob, y), torch.as_tensor(want))


def test_is_in_nats():
    """A fair coin costs log 2, a certain outcome nothing, an impossible one infinity."""
    for p, cost in ((0.5, math.log(2)), (1.0, 0.0), (0.0, math.inf)):
        got = log_score(lambda z, p=p: torch.full(z.shape[:-1], p).log(), torch.zeros(3, 2))
        torch.testing.assert_close(got, torch.full((3,), cost))


def finite_problem(seed, size):
    """Two laws on the rows of a support, and the log-probability of a row under each."""
    g = torch.Generator().manual_seed(seed)
    p, q = torch.softmax(1.5 * torch.randn(2, size, generator=g), -1)
    assume((p - q).abs().max() > 1e-3)
    support = torch.randn(size, 3, generator=g)

    def log_prob_of(law):
        return lambda z: law.log()[(z[:, None] == support).all(-1).int().argmax(-1)]

    return p, q, support, log_prob_of


@given(seeds, st.integers(2, 6))
def test_strictly_proper_by_enumeration(seed, size):
    """Every outcome with its probability: entropy at the truth, and above it by KL(p || q)."""
    p, q, support, log_prob_of = finite_problem(seed, size)
    truth = p @ log_score(log_prob_of(p), support)
    rival = p @ log_score(log_prob_of(q), support)
    entropy = -sum(x * math.log(x) for x in p.tolist())
    divergence = sum(x * math.log(x / z) for x, z in zip(p.tolist(), q.tolist(), strict=True))
    assert float(truth) == pytest.approx(entropy, abs=1e-12)
    assert float(rival - truth) == pytest.approx(divergence, abs=1e-12)
    assert rival > truth


@given(seeds)
def test_is_local(seed):
    """Mass moved between outcomes that did not come changes nothing."""
    p, _, support, log_prob_of = finite_problem(seed, 4)
    moved = p[[0, 2, 3, 1]]
    torch.testing.assert_close(
        log_score(log_prob_of(moved), support)[0], log_score(log_prob_of(p), support)[0]
    )


@given(seeds)
def test_expectation_over_a_gaussian(seed):
    """By Gauss-Hermite nodes, exact for this quadratic: entropy plus KL, smallest at the truth."""
    law, _ = gaussian_problem(seed, batch=(), latent=1)
    truth, _ = gaussian_problem(seed + 1, batch=(), latent=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weight = torch.from_numpy(weights) / weights.sum()
    outcomes = truth.mean + truth.std * torch.from_numpy(nodes)[:, None]

    def expected(model):
        wide = DiagonalGaussian(model.mean.expand(4, 1), model.std.expand(4, 1))
        return weight @ log_score(wide.log_prob, outcomes)

    a, b = (torch.distributions.Normal(x.mean, x.std) for x in (truth, law))
    torch.testing.assert_close(expected(truth), a.entropy().squeeze(), rtol=1e-12, atol=1e-12)
    excess = torch.distributions.kl_divergence(a, b).squeeze()
    torch.testing.assert_close(expected(law) - expected(truth), excess, rtol=1e-10, atol=1e-12)
    assert expected(law) > expected(truth)


@given(seeds, st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_units_shift_the_score(seed, factor, offset):
    law, y = gaussian_problem(seed, latent=4)
    base = log_score(law.log_prob, y)
    scaled = DiagonalGaussian(factor * law.mean + offset, factor * law.std)
    got = log_score(scaled.log_prob, factor * y + offset)
    # An offset of 10 at a scale of 1e-3 costs four digits of each difference.
    torch.testing.assert_close(got, base + 4 * math.log(factor), rtol=1e-8, atol=1e-8)


def test_gradients():
    law, y = gaussian_problem(0)
    inputs = [x.clone().requires_grad_() for x in (law.mean, law.std, y)]
    assert torch.autograd.gradcheck(
        lambda mean, std, y: log_score(DiagonalGaussian(mean, std).log_prob, y), inputs
    )


def test_is_computed_in_single_precision_and_outside_autocast():
    law, y = gaussian_problem(0)
    weight = torch.randn(2, 2, dtype=torch.float32)
    seen = []

    def log_prob(z):
        seen.append((z @ weight).dtype)
        return z.sum(-1)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = log_score(log_prob, y.bfloat16())
    assert seen == [torch.float32]
    assert score.dtype == torch.float32
    assert log_score(law.log_prob, y).dtype == torch.float64


def test_empty_batch():
    law, y = gaussian_problem(0, batch=(0,))
    assert log_score(law.log_prob, y).shape == (0,)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(dynamic):
    def score(mean, std, y):
        return log_score(DiagonalGaussian(mean, std).log_prob, y)

    torch._dynamo.reset()
    compiled = torch.compile(score, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (4, 7):
        law, y = gaussian_problem(0, (batch,))
        args = (law.mean, law.std, y)
        torch.testing.assert_close(compiled(*args), score(*args))


@pytest.mark.parametrize(
    "wrong",
    [lambda z: z, lambda z: z.sum(), lambda z: z.sum(-1)[:1], lambda z: z.sum(-1)[:, None]],
)
def test_a_wrong_shape_is_named(wrong):
    with pytest.raises(ValueError, match=r"log_prob must return one number .* \(3,\); got \("):
        log_score(wrong, torch.zeros(3, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_observations_are_named(value):
    with pytest.raises(ValueError, match="observation must be finite"):
        log_score(lambda z: z.sum(-1), torch.tensor([value, 0.0]))


def test_integers_are_refused():
    with pytest.raises(TypeCheckError):
        log_score(lambda z: z.sum(-1), torch.zeros(3, 2, dtype=torch.long))
