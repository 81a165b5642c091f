"""What every scoring rule promises, run over all exported rules."""

import inspect
import itertools

import pytest
import torch
from rule_instances import MULTIVARIATE, RULES

import calmkit.scoring
from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ChunkedScore, ScoringRule

BATCHES = [(), (1,), (4,), (0,), (2, 3)]

every_rule = pytest.mark.parametrize("rule", sum(RULES.values(), ()), ids=str)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(batch, latent=3, dtype=None, samples=5, std=0.5):
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
    if latent == 1 and isinstance(rule, MULTIVARIATE):
        pytest.skip("needs two dimensions")
    score = rule.score(*problem(batch, latent), seeded())
    assert score.shape == batch
    assert torch.isfinite(score).all()


def noise_for(rule, batch, latent=3):
    return torch.randn(rule.noise_size, *batch, latent, generator=seeded(4))


@every_rule
def test_positions_do_not_mix(rule):
    samples, target = problem((2, 3))
    noise = noise_for(rule, (2, 3))
    together = rule.score_from(samples, target, noise)
    for i, j in itertools.product(range(2), range(3)):
        alone = DiagonalGaussian(target.mean[i, j], target.std[i, j])
        got = rule.score_from(samples[:, i, j], alone, noise[:, i, j])
        torch.testing.assert_close(got, together[i, j])


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
    noise = noise_for(rule, (4,), 32)
    single = DiagonalGaussian(target.mean.float(), target.std.float())
    score = rule.score_from(samples.float(), single, noise.float())
    want = rule.score_from(samples, target, noise)
    torch.testing.assert_close(score.double(), want, rtol=1e-4, atol=1e-4)


@every_rule
def test_bfloat16_samples_are_scored_in_single_precision(rule):
    samples, target = problem((4,), dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = rule.score(samples, target, seeded())
    single = DiagonalGaussian(target.mean.float(), target.std.float())
    assert torch.equal(score, rule.score(samples.float(), single, seeded()))


@every_rule
def test_compiles_in_one_graph_for_any_batch(rule):
    """One capture serves all sizes; a rule that draws agrees given its noise."""
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    def score(samples, mean, std, noise):
        target = DiagonalGaussian(mean, std)
        if rule.noise_size == 0:
            return rule.score(samples, target)
        rule.score(samples, target)
        return rule.score_from(samples, target, noise)

    torch._dynamo.reset()
    compiled = torch.compile(score, fullgraph=True, dynamic=True, backend=backend)
    for batch in (6, 7):  # another number than that of samples, which would get the same symbol
        samples, target = problem((batch,))
        results = []
        for function in (compiled, score):
            x = samples.clone().requires_grad_()
            value = function(x, target.mean, target.std, noise_for(rule, (batch,)))
            value.sum().backward()
            results.append((value.detach(), x.grad))
        torch.testing.assert_close(*results)
    assert len(graphs) == 1


@every_rule
def test_wrong_shapes_are_refused(rule):
    samples, target = problem((4,))
    for wrong in (samples[:, :1], samples[..., :2], samples[:, None], samples[:, 0]):
        with pytest.raises(ValueError, match="samples must have shape"):
            rule.score(wrong, target)


@every_rule
def test_too_few_samples_are_refused(rule):
    samples, target = problem((4,), samples=rule.min_samples - 1)
    with pytest.raises(ValueError, match=f"samples must hold at least {rule.min_samples}"):
        rule.score(samples, target)


@every_rule
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(rule, value):
    samples, target = problem((4,))
    bad = samples.clone()
    bad[1, 2, 0] = value
    with pytest.raises(ValueError, match="samples must be finite; 1 of 60 values"):
        rule.score(bad, target)
    for name, other in (("mean", "std"), ("std", "mean")):
        wrong = {name: bad[1], other: getattr(target, other)}
        with pytest.raises(ValueError, match=f"{name} must be finite; 1 of 12 values"):
            rule.score(samples, DiagonalGaussian(**wrong))


@every_rule
def test_negative_std_is_refused(rule):
    samples, target = problem((4,), std=-0.5)
    with pytest.raises(ValueError, match=r"std must not be negative; got -0.5"):
        rule.score(samples, target)


@every_rule
def test_states_where_it_is_proper(rule):
    assert rule.condition
    assert rule.proper or not rule.strictly_proper
    assert ("not proper" in rule.condition) is not rule.proper


@every_rule
def test_order_of_samples_does_not_matter(rule):
    samples, target = problem((4,))
    order = torch.randperm(len(samples), generator=seeded(3))
    torch.testing.assert_close(
        rule.score(samples[order], target, seeded()), rule.score(samples, target, seeded())
    )


@every_rule
def test_mean_over_outcomes(rule):
    """`score_outcomes` is the mean over point masses, with the gradients of the mean."""
    samples, target = problem((4,))
    outcomes = target.sample(3, seeded(5))
    noise = noise_for(rule, (4,))
    results = []
    for way in ("at once", "one by one"):
        x = samples.clone().requires_grad_()
        if way == "at once":
            score = rule.score_outcomes(x, outcomes, noise)
        else:
            points = map(DiagonalGaussian.point_mass, outcomes)
            score = torch.stack([rule.score_from(x, y, noise) for y in points]).mean(dim=0)
        score.sum().backward()
        results.append((score.detach(), x.grad))
    torch.testing.assert_close(*results)


@every_rule
@pytest.mark.parametrize("batch", [(), (7,), (2, 5)], ids=str)
def test_in_pieces_it_is_the_same(rule, batch):
    samples, target = problem(batch)
    results = []
    for tried in (rule, ChunkedScore(rule, 3)):
        x = samples.clone().requires_grad_()
        score = tried.score(x, target, seeded(7))
        score.sum().backward()
        results.append((score.detach(), x.grad))
    torch.testing.assert_close(*results)


@every_rule
@pytest.mark.parametrize("seed", range(5))
def test_proper_on_finite_supports(rule, seed):
    """The expected score by enumeration: every outcome and every pair of samples, none drawn."""
    if not rule.proper:
        pytest.skip("not proper")
    size, latent = 3, 2
    support = torch.randn(size, latent, generator=seeded(seed))
    truth, rival = torch.randn(2, size, generator=seeded(seed + 100)).softmax(dim=-1)
    outcome, *drawn = torch.cartesian_prod(*[torch.arange(size)] * (1 + rule.min_samples)).T
    # One noise for all, which does not change that each score is proper.
    noise = noise_for(rule, (1,), latent).expand(-1, len(outcome), -1)
    target = DiagonalGaussian.point_mass(support[outcome])
    score = rule.score_from(torch.stack([support[i] for i in drawn]), target, noise)

    def expected(prediction):
        weights = truth[outcome]
        for i in drawn:
            weights = weights * prediction[i]
        return weights @ score

    excess = expected(rival) - expected(truth)
    assert excess > (1e-6 if rule.strictly_proper else -1e-12)


@every_rule
def test_the_truth_scores_best_in_the_mean(rule):
    """By 20 000 draws: no rival may win, and against a strictly proper rule each must lose."""
    if not rule.proper:
        pytest.skip("not proper")
    size = max(2, rule.min_samples)
    draws = torch.randn(size, 20_000, 2, generator=seeded(5))
    target = DiagonalGaussian(torch.zeros(20_000, 2), torch.ones(20_000, 2))
    truth = rule.score(draws, target, seeded(6))
    for rival in (draws + 0.5, 1.7 * draws, 0.5 * draws, draws[..., :1].expand(-1, -1, 2)):
        excess = rule.score(rival, target, seeded(6)) - truth
        # 4.9 standard errors: 1e-6 two-sided.
        noise = 4.9 * excess.std() / 20_000**0.5
        assert excess.mean() > (noise if rule.strictly_proper else -noise)
