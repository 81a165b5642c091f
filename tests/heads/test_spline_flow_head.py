"""Spline flow: density by the change of variables, inverse, groups of dimensions, zuko's own."""

import sys

import pytest
import torch
from seeding import seeded

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import SplineFlowHead

pytest.importorskip("zuko")


def lively(latent=4, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = SplineFlowHead(3, latent, width=16, depth=1, **settings)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(3)
    return head.requires_grad_(False)


def problem(latent=4):
    cond = torch.randn(6, 3, generator=seeded(1))
    return cond, 2 * torch.randn(6, latent, generator=seeded(2))


@pytest.mark.parametrize(("latent", "passes"), [(4, None), (4, 2), (1, None)])
def test_density_is_the_change_of_variables_of_its_sampler(latent, passes):
    """log p(z) = log N(eps) - log |det dz/deps| at z = T^-1(eps), the determinant by autograd."""
    head = lively(latent, passes=passes)
    assert head.evaluations_per_sample == (passes or latent)
    cond, noise = problem(latent)
    normal = torch.distributions.Normal(0.0, 1.0)
    for c, eps in zip(cond, noise, strict=True):
        z = head.sample_from(c, eps[None])[0]
        jacobian = torch.autograd.functional.jacobian(
            lambda e, c=c: head.sample_from(c, e[None])[0], eps
        )
        want = normal.log_prob(eps).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(head.log_prob(c, z), want)
        assert (z - eps).abs().max() > 0.05  # not the identity


def test_it_is_the_distribution_of_zuko():
    head = lively()
    cond, latents = problem()
    torch.testing.assert_close(head.log_prob(cond, latents), head.flow(cond).log_prob(latents))
    noise = torch.randn(5, 6, 4, generator=seeded())
    want = head.flow(cond).transform.inv(noise)
    torch.testing.assert_close(head.sample(cond, 5, seeded()), want)


@pytest.mark.parametrize("passes", [None, 2])
def test_passes_say_on_which_dimensions_a_dimension_depends(passes):
    """Of one transform: all before it, or, in a coupling, those of the first half."""
    head = lively(transforms=1, passes=passes)
    cond, latents = problem()
    jacobian = torch.autograd.functional.jacobian(
        lambda e: head.sample_from(cond[0], e[None])[0], latents[0].clamp(-1, 1)
    )
    depends = jacobian.abs() > 1e-9
    allowed = torch.ones(4, 4).tril().bool()
    if passes == 2:
        half = torch.arange(4) // 2
        allowed = (half[:, None] > half) | torch.eye(4, dtype=torch.bool)
    assert not depends[~allowed].any()
    assert depends[1, 0] == (passes is None) and depends[3, 0]
    assert head.evaluations_per_sample == (4 if passes is None else 2)


def test_a_state_brings_no_masks_along():
    """They follow from `passes`; loaded, they would make samples of another number wrong."""
    names = set(lively().state_dict())
    assert names == {name for name, _ in lively().named_parameters()}
    other = lively(passes=2)
    other.load_state_dict(lively(passes=None).state_dict())
    cond, noise = problem()
    back = other.sample_from(cond, noise[None])[0]
    for transform in other.flow.transform.transforms:
        back = transform(cond)(back)
    torch.testing.assert_close(back, noise)


def test_loss_is_the_mean_of_minus_log_density_over_draws():
    head = lively(draws=3)
    cond, mean = problem()
    target = DiagonalGaussian(mean, torch.full_like(mean, 0.3))
    draws = target.sample(3, seeded(5))
    want = -sum(head.log_prob(cond, draw) for draw in draws) / 3
    torch.testing.assert_close(head.loss(cond, target, seeded(5)), want)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"depth": 0}, "depth must be at least 1; got 0"),
        ({"transforms": 0}, "transforms must be at least 1; got 0"),
        ({"bins": 1}, "bins must be at least 2; got 1"),
        ({"passes": 1}, "passes must be at least 2; got 1"),
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"noise_scale": -1.0}, r"noise_scale must be in \[0, inf\)"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SplineFlowHead(3, 4, **arguments)


def test_without_zuko_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    message = r"SplineFlowHead needs zuko; install it with pip install 'calmkit\[flows\]'"
    with pytest.raises(ImportError, match=message):
        SplineFlowHead(3, 4)
