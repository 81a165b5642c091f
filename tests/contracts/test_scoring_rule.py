"""The suite of scoring rules over all exported ones, and what our own promise besides."""

import inspect

import pytest
import torch
from rule_instances import RULES

import calmkit.scoring
from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ChunkedScore, ScoringRule, VariogramScore
from calmkit.testing import parametrize_contracts

ALL = {str(rule): rule for rule in sum(RULES.values(), ())}

every_rule = pytest.mark.parametrize("rule", ALL.values(), ids=ALL)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(batch, latent=3):
    generator = seeded(2)
    x = torch.randn(5, *batch, latent, generator=generator)
    mean = torch.randn(*batch, latent, generator=generator)
    return x, DiagonalGaussian(mean, torch.full_like(mean, 0.5))


def test_every_exported_rule_is_here():
    exported = {
        value
        for value in vars(calmkit.scoring).values()
        if inspect.isclass(value)
        and issubclass(value, ScoringRule)
        and not inspect.isabstract(value)
    }
    assert exported == set(RULES)


@parametrize_contracts(
    "rule",
    {name: lambda rule=rule: rule for name, rule in ALL.items()},
    exempt={
        "DawidSebastianiScore()/unbiased_for_any_number_of_samples": (
            "its estimate is unbiased for Gaussian margins only"
        )
    },
    profile="quick",
)
def test_contract(check):
    check()


@every_rule
def test_one_dimension_is_scored(rule):
    if isinstance(rule, VariogramScore):
        pytest.skip("what is between dimensions needs two")
    score = rule.score(*problem((4,), latent=1), seeded())
    assert score.shape == (4,) and torch.isfinite(score).all()


@every_rule
def test_the_condition_says_whether_it_is_proper(rule):
    assert ("not proper" in rule.condition) is not rule.proper


def noise_for(rule, batch, latent=3):
    return torch.randn(rule.noise_size, *batch, latent, generator=seeded(4))


@every_rule
def test_compiles_in_one_graph_for_any_batch(rule):
    """One capture serves all sizes; a rule that draws agrees given its noise.

    Only the batch has no fixed size: to trace all sizes as unknown takes three times as long.
    """
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    def score(samples, mean, std, noise):
        target = DiagonalGaussian(mean, std)
        if rule.noise_size == 0:
            return rule.score(samples, target)
        return rule.score_from(samples, target, noise)

    torch._dynamo.reset()
    compiled = torch.compile(score, fullgraph=True, backend=backend)
    for batch in (6, 7):  # another number than that of samples, which would get the same symbol
        samples, target = problem((batch,))
        results = []
        for function in (compiled, score):
            x = samples.clone().requires_grad_()
            given = x, target.mean, target.std, noise_for(rule, (batch,))
            for tensor in given:
                torch._dynamo.mark_dynamic(tensor, tensor.ndim - 2)
            value = function(*given)
            value.sum().backward()
            results.append((value.detach(), x.grad))
        torch.testing.assert_close(*results)
    assert len(graphs) == 1


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
