"""What is empty: no dimensions and no samples are refused by name, no positions are no scores."""

import pytest
import torch
from rule_instances import RULES

from calmkit import scoring
from calmkit.distributions import DiagonalGaussian

every_rule = pytest.mark.parametrize("rule", sum(RULES.values(), ()), ids=str)


def target_of(y):
    return DiagonalGaussian(y, torch.ones_like(y))


# Plain functions of samples and outcomes that all want two samples, at the least.
OF_SAMPLES = {
    "energy_score": scoring.energy_score,
    "kernel_score": lambda x, y: scoring.kernel_score(x, y, kernel=scoring.LaplaceKernel()),
    "variogram_score": scoring.variogram_score,
    "dawid_sebastiani_score": scoring.dawid_sebastiani_score,
    "crps": scoring.crps,
    "expected_crps": lambda x, y: scoring.expected_crps(x, target_of(y)),
    "sliced_crps": lambda x, y: scoring.sliced_crps(x, y, torch.ones(2, *y.shape)),
}
# Those to which one vector is enough.
OF_VECTORS = {
    "expected_distance": lambda y: scoring.expected_distance(y[None], target_of(y)),
    "expected_dissimilarity": lambda y: scoring.expected_dissimilarity(
        y[None], target_of(y), kernel=scoring.GaussianKernel()
    ),
    "gaussian_norm_moment": lambda y: scoring.gaussian_norm_moment(y, torch.ones_like(y)),
    "folded_normal_mean": lambda y: scoring.folded_normal_mean(y, torch.ones_like(y)),
    "log_score": lambda y: scoring.log_score(target_of(y).log_prob, y),
}
OF_TOKENS = {
    "brier_score": scoring.brier_score,
    "hit_rate": scoring.hit_rate,
    "collision_rate": lambda draws, _: scoring.collision_rate(draws),
}


def ways(rule, samples, y):
    """The checked shell and both cores, of which a wrapper may call either."""
    noise = torch.zeros(rule.noise_size, *y.shape)
    return {
        "score": lambda: rule.score(samples, target_of(y)),
        "score_from": lambda: rule.score_from(samples, target_of(y), noise),
        "score_outcomes": lambda: rule.score_outcomes(samples, y[None], noise),
    }


@every_rule
@pytest.mark.parametrize("way", ["score", "score_from", "score_outcomes"])
def test_rules(rule, way):
    if way == "score_from" and not type(rule).__module__.startswith("calmkit."):
        return  # the core of a rule from elsewhere may leave checks to the shell
    for batch in ((), (2,), (0,)):
        with pytest.raises(ValueError, match=r"samples must have at least . dimension.*; got 0"):
            ways(rule, torch.zeros(5, *batch, 0), torch.zeros(*batch, 0))[way]()
        with pytest.raises(ValueError, match=r"samples must hold at least . draws .* got 0"):
            ways(rule, torch.zeros(0, *batch, 3), torch.zeros(*batch, 3))[way]()
    assert ways(rule, torch.zeros(5, 0, 3), torch.zeros(0, 3))[way]().shape == (0,)


@every_rule
def test_no_outcomes(rule):
    with pytest.raises(ValueError, match="outcomes must hold at least 1 outcome; got 0"):
        noise = torch.zeros(rule.noise_size, 2, 3)
        rule.score_outcomes(torch.zeros(5, 2, 3), torch.zeros(0, 2, 3), noise)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_functions_of_samples(name):
    function = OF_SAMPLES[name]
    with pytest.raises(ValueError, match=r"must have at least . dimension.*; got 0"):
        function(torch.zeros(5, 2, 0), torch.zeros(2, 0))
    with pytest.raises(ValueError, match=r"samples must hold at least . draws .* got 0"):
        function(torch.zeros(0, 2, 3), torch.zeros(2, 3))
    assert function(torch.zeros(5, 0, 3), torch.zeros(0, 3)).shape in ((0,), (0, 3))


@pytest.mark.parametrize("name", OF_VECTORS)
def test_functions_of_vectors(name):
    function = OF_VECTORS[name]
    with pytest.raises(ValueError, match=r"(mean|samples|observation) must have .* 1 dimension"):
        function(torch.zeros(2, 0))
    assert function(torch.zeros(0, 3)).numel() == 0


def test_no_samples_have_no_distances():
    target = target_of(torch.zeros(2, 3))
    assert scoring.expected_distance(torch.zeros(0, 2, 3), target).shape == (0, 2)


@pytest.mark.parametrize("name", OF_TOKENS)
def test_functions_of_tokens(name):
    function = OF_TOKENS[name]
    with pytest.raises(ValueError, match=r"draws must hold at least . sample.* got 0"):
        function(torch.zeros(0, 2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="draws must have at least 1 token; got 0"):
        function(torch.zeros(5, 2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.long))
    empty = function(torch.zeros(5, 0, 3, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long))
    assert empty.shape == (0,)


@pytest.mark.parametrize("function", [scoring.brier_score_of, scoring.spherical_score])
def test_functions_of_probabilities(function):
    with pytest.raises(ValueError, match="probabilities must have at least 1 outcome"):
        function(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long))
    assert function(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0,)
