"""What every scoring rule promises, run over all exported rules."""

import inspect
import itertools

import pytest
import torch
from rule_instances import RULES

import calmkit.scoring
from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ScoringRule

BATCHES = [(), (1,), (4,), (0,), (2, 3)]

every_rule = pytest.mark.parametrize("rule", sum(RULES.values(), ()), ids=str)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(batch, latent=3, dtype=None, samples=4, std=0.5):
    generator = seeded(2)
    x = torch.randn(samples, *batch, latent, generator=generator, dtype=dtype)
    mean = torch.randn(*batch, latent, generator=generator, dtype=dtype)
    return x, DiagonalGaussian(mean, torch.full_like(mean, std))


def test_every_exported_rule_is_here():
    exported = {
        value
        for value in vars(calmkit.scoring).values()
        if inspect.isclass(value)
        and issubclass(value, ScoringRule)
        and not inspect.isabstract(value)
    }
    assert exported == set(RULES)


@every_rule
@pytest.mark.parametrize("latent", [1, 3])
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_shapes(rule, batch, latent):
    score = rule.score(*problem(batch, latent), seeded())
    assert score.shape == batch
    assert torch.isfinite(score).all()


@every_rule
def test_positions_do_not_mix(rule):
    samples, target = problem((2, 3))
    together = rule.score(samples, target, seeded())
    for i, j in itertools.product(range(2), range(3)):
        alone = DiagonalGaussian(target.mean[i, j], target.std[i, j])
        torch.testing.assert_close(rule.score(samples[:, i, j], alone, seeded()), together[i, j])


@every_rule
@pytest.mark.parametrize("std", [0.0, 1e-8, 0.5, 1e8])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6])
def test_gradients_are_finite_at_ugly_points(rule, std, scale):
    """Ties of samples and of samples with the target, tiny and huge scales."""
    samples, target = problem((3,))
    samples = scale * samples
    samples[1] = samples[0]
    mean = scale * target.mean
    mean[0] = samples[2, 0]
    samples.requires_grad_()
    mean.requires_grad_()
    spread = torch.full_like(mean, std, requires_grad=True)
    rule.score(samples, DiagonalGaussian(mean, spread), seeded()).sum().backward()
    for tensor in (samples, mean, spread):
        assert torch.isfinite(tensor.grad).all()


@every_rule
def test_same_seed_same_score(rule):
    first = rule.score(*problem((4,)), seeded(3))
    assert torch.equal(rule.score(*problem((4,)), seeded(3)), first)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(rule, dtype):
    assert rule.score(*problem((4,), dtype=dtype), seeded()).dtype == dtype


@every_rule
def test_float32_agrees_with_float64(rule):
    samples, target = problem((4,), latent=32)
    single = DiagonalGaussian(target.mean.float(), target.std.float())
    score = rule.score(samples.float(), single, seeded())
    # Sums of 56 quadrature terms of single precision, multiplied by constants up to 50.
    torch.testing.assert_close(
        score.double(), rule.score(samples, target, seeded()), rtol=1e-4, atol=1e-4
    )


@every_rule
def test_bfloat16_samples_are_scored_in_single_precision(rule):
    samples, target = problem((4,), dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = rule.score(samples, target, seeded())
    single = DiagonalGaussian(target.mean.float(), target.std.float())
    assert torch.equal(score, rule.score(samples.float(), single, seeded()))


@every_rule
def test_compiles_in_one_graph(rule):
    samples, target = problem((4,))

    def score(samples, mean, std):
        return rule.score(samples, DiagonalGaussian(mean, std), None)

    torch._dynamo.reset()
    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    args = (samples, target.mean, target.std)
    torch.testing.assert_close(compiled(*args), score(*args))


@every_rule
def test_wrong_shapes_are_refused(rule):
    samples, target = problem((4,))
    for wrong in (samples[:, :1], samples[..., :2], samples[:, None], samples[:, 0]):
        with pytest.raises(ValueError, match="samples must have shape"):
            rule.score(wrong, target)


@every_rule
def test_one_sample_is_refused(rule):
    samples, target = problem((4,), samples=1)
    with pytest.raises(ValueError, match="samples must hold at least 2"):
        rule.score(samples, target)


@every_rule
def test_the_truth_scores_best_in_the_mean(rule):
    """The defining law, by 20 000 draws: a shifted and a widened rival must lose clearly."""
    draws = torch.randn(2, 20_000, 2, generator=seeded(5))
    target = DiagonalGaussian(torch.zeros(20_000, 2), torch.ones(20_000, 2))
    truth = rule.score(draws, target)
    for rival in (draws + 0.5, 1.7 * draws, 0.5 * draws, draws[..., :1].expand(-1, -1, 2)):
        excess = rule.score(rival, target) - truth
        # 4.9 standard errors: 1e-6 two-sided.
        assert excess.mean() > 4.9 * excess.std() / 20_000**0.5
