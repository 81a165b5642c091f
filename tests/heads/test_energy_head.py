"""Energy head: hoisting is exact, the start has unit spread, the loss is the rule's score."""

import pytest
import torch
from seeding import randomized, seeded
from torch.nn.functional import layer_norm, linear, silu

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead, GaussianNoise
from calmkit.scoring import DawidSebastianiScore, EnergyScore, energy_score


def literal(head, cond, noise):
    """One sample of one position, as in the paper: a block's first layer reads [LN(e); c]."""
    w = dict(head.named_parameters())

    def affine(name, x):
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(name, x):
        return layer_norm(x, x.shape, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    c = norm("cond_norm", affine("cond_embedding", cond))
    e = norm("noise_norm", affine("noise_embedding", noise))
    for b in (f"blocks.{index}" for index in range(len(head.blocks))):
        joined = torch.cat([norm(f"{b}.norm", e), c])
        weight = torch.cat([w[f"{b}.from_hidden.weight"], w[f"{b}.from_cond.weight"]], dim=1)
        x = silu(linear(joined, weight, w[f"{b}.from_cond.bias"]))
        x = silu(affine(f"{b}.inner", x))
        gate, up = affine(f"{b}.gate_and_up", x).split(len(e))
        e = e + affine(f"{b}.down", silu(gate) * up)
    return affine("output.2", silu(affine("output.0", norm("output_norm", e))))


def test_hoisted_equals_the_literal_network():
    head = randomized(EnergyHead(4, 3, width=6, depth=2, noise_size=5))
    cond = torch.randn(2, 3, 4, generator=seeded(1))
    noise = torch.rand(7, 2, 3, 5, generator=seeded(2)) - 0.5
    got = head.sample_from(cond, noise)
    for s in range(7):
        for i in range(2):
            for j in range(3):
                want = literal(head, cond[i, j], noise[s, i, j])
                torch.testing.assert_close(got[s, i, j], want)


def noise_seen(head):
    seen = []
    head.noise_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    head.sample(torch.zeros(1000, 4), 20, seeded())
    return seen[0].flatten()


def test_noise_is_uniform_around_zero():
    noise = noise_seen(EnergyHead(4, 3, width=6, noise_size=5))
    assert noise.min() >= -0.5 and noise.max() <= 0.5
    # 4.9 standard errors of the mean and of the variance, 1 / 12 and 1 / 180.
    assert noise.mean().abs() < 4.9 * (1 / 12 / len(noise)) ** 0.5
    assert (noise.var() - 1 / 12).abs() < 4.9 * (1 / 180 / len(noise)) ** 0.5


def test_noise_can_be_gaussian():
    noise = noise_seen(EnergyHead(4, 3, width=6, noise_size=5, noise=GaussianNoise()))
    # 4.9 standard errors of mean, variance and fourth moment: 1, 2 and 96 over the number.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        error = noise.pow(power).mean() - moment
        assert error.abs() < 4.9 * (variance / len(noise)) ** 0.5


def test_noise_scale_is_a_factor_on_the_noise():
    head = randomized(EnergyHead(4, 3, width=6, noise_size=5))
    scaled = noise_seen(head.with_sampling(noise_scale=0.3))
    torch.testing.assert_close(scaled, 0.3 * noise_seen(head))
    cond = torch.randn(7, 4, generator=seeded(1))
    still = head.with_sampling(noise_scale=0.0).sample(cond, 3, seeded())
    torch.testing.assert_close(still, still[:1].expand(3, -1, -1))
    # Small against the bias of its embedding, noise moves a sample in proportion.
    small, smaller = (
        head.with_sampling(noise_scale=scale).sample(cond, 3, seeded()) - still
        for scale in (1e-4, 5e-5)
    )
    torch.testing.assert_close(small, 2 * smaller, rtol=1e-2, atol=0.0)


def test_noise_scale_of_the_head_is_that_of_its_samples_not_of_training():
    plain, still = (randomized(EnergyHead(4, 3, width=6, noise_scale=s)) for s in (1.0, 0.2))
    cond, target = torch.randn(7, 4, generator=seeded(1)), torch.randn(7, 3, generator=seeded(2))
    samples = still.sample(cond, 3, seeded())
    assert not torch.isclose(samples, plain.sample(cond, 3, seeded())).any()
    null = torch.zeros(4)
    torch.testing.assert_close(still.sample_guided(cond, null, 1.0, 3, seeded()), samples)
    law = DiagonalGaussian.point_mass(target)
    assert torch.equal(still.loss(cond, law, seeded()), plain.loss(cond, law, seeded()))


def test_loss_is_the_energy_score_of_its_samples():
    head = randomized(EnergyHead(4, 3, width=6, num_samples=5, rule=EnergyScore(0.7)))
    cond, location = torch.randn(6, 4, generator=seeded(1)), torch.randn(6, 3, generator=seeded(2))
    loss = head.loss(cond, DiagonalGaussian.point_mass(location), seeded(3))
    want = energy_score(head.sample(cond, 5, seeded(3)), location, alpha=0.7)
    torch.testing.assert_close(loss, want)


def test_starts_with_unit_spread():
    """Each output dimension varies about as much as a standardised latent, for each condition."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = EnergyHead(32, 24, width=256)
    samples = head.sample(torch.randn(50, 32, generator=seeded(1)), 200, seeded(2))
    spread = samples.std(dim=0).mean()
    assert 0.7 < spread < 1.1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_samples": 1}, "num_samples must be at least 2 for EnergyScore .* got 1"),
        (
            {"num_samples": 3, "rule": DawidSebastianiScore()},
            "num_samples must be at least 4 for DawidSebastianiScore .* got 3",
        ),
        ({"rule": "energy"}, r"rule must be a ScoringRule, such as EnergyScore\(\); got 'energy'"),
        ({"noise": "uniform"}, r"noise must be a Noise, such as GaussianNoise\(\); got 'unif"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"depth": 0}, "depth must be at least 1; got 0"),
        ({"noise_size": 0}, "noise_size must be at least 1; got 0"),
        ({"noise_scale": -0.1}, r"noise_scale must be in \[0, inf\); got -0.1"),
        ({"noise_scale": float("inf")}, r"noise_scale must be in \[0, inf\); got inf"),
        ({"noise_scale": float("nan")}, r"noise_scale must be in \[0, inf\); got nan"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnergyHead(4, 3, **arguments)
