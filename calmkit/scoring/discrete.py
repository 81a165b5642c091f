r"""Scores of discrete predictions: Brier (draws or probabilities) and spherical (probabilities).

    Brier(P, y) = sum_x (P(x) - [x = y])^2 = 1 - 2 P(y) + sum_x P(x)^2    in [0, 2]
    Spherical(P, y) = -P(y) / ||P||_2                                     in [-1, 0]

Orientation: **lower is better**. Both are strictly proper. An outcome is the whole chunk: a chunk
that differs in one token is a different outcome. Brier is twice the energy score for the
distance [x != y], and 1 - Brier(P, y) is the higher-is-better form of `calmkit.metrics`.

From m >= 2 independent draws Brier is estimated without bias by

    1 - 2/m sum_s [x_s = y] + 2/(m (m-1)) sum_{s < t} [x_s = x_t],

the mean of 1 - [x_s = y] - [x_t = y] + [x_s = x_t] over pairs of draws, each term in {0, 1, 2}.

**From draws alone the spherical score has no unbiased estimator**, whatever their number m: the
expectation of any function of m draws is a polynomial of degree at most m in the P(x), and
P(y) / ||P|| is not a polynomial. (Nor is log P(y).) Replacing P by frequencies is biased.

Sources: Brier, "Verification of forecasts expressed in terms of probability", 1950; Good, comment
on "Measuring information and uncertainty", 1971; Gneiting and Raftery, JASA 2007, section 3.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.numerics import in_full_precision
from calmkit.typing import typed

from .checks import check_categorical

__all__ = ["brier_score", "brier_score_of", "collision_rate", "hit_rate", "spherical_score"]


@typed
def brier_score(
    draws: Int[Tensor, "samples *batch tokens"], target: Int[Tensor, "*batch tokens"]
) -> Float[Tensor, "*batch"]:
    """Estimate the Brier score without bias: 1 - 2 `hit_rate` + `collision_rate`, in float64.

    Integers carry no gradient: to train a softmax, use `brier_score_of`.

    Args:
        draws: Independent draws from the prediction; at least two.
        target: The outcome y.

    Raises:
        ValueError: If there are fewer than two draws, or an outcome has no tokens.
    """
    collisions = collision_rate(draws)  # first, because it checks for two draws
    return 1 - 2 * hit_rate(draws, target) + collisions


@typed
def hit_rate(
    draws: Int[Tensor, "samples *batch tokens"], target: Int[Tensor, "*batch tokens"]
) -> Float[Tensor, "*batch"]:
    """Estimate P(y) without bias: 1/m sum_s [x_s = y], in float64.

    Raises:
        ValueError: If there is no draw, or an outcome has no tokens.
    """
    _check_draws(draws, 1)
    return (draws == target).all(dim=-1).double().mean(dim=0)


@typed
def collision_rate(draws: Int[Tensor, "samples *batch tokens"]) -> Float[Tensor, "*batch"]:
    """Estimate sum_x P(x)^2 without bias: 2/(m (m-1)) sum_{s < t} [x_s = x_t], in float64.

    The m draws are sorted, so that equal ones are neighbours. This takes m log m comparisons
    instead of m^2 and memory proportional to the draws, and no hash can confuse two outcomes.

    Args:
        draws: Independent draws; at least two.

    Raises:
        ValueError: If there are fewer than two draws, or an outcome has no tokens.
    """
    _check_draws(draws, 2)
    samples = draws.shape[0]
    rows = draws.movedim(0, -1)  # (*batch, tokens, samples)
    index = torch.arange(samples, device=draws.device)
    order = index.expand(*rows.shape[:-2], samples)
    # Lexicographic order: stable sorts by one token after the other, beginning with the last.
    for token in reversed(rows.unbind(dim=-2)):
        ranks = token.gather(-1, order).sort(dim=-1, stable=True).indices
        order = order.gather(-1, ranks)
    rows = rows.gather(-1, order[..., None, :].expand(rows.shape))

    # A draw pairs with those before it in its run: its index minus the index of the run's first.
    same = (rows[..., 1:] == rows[..., :-1]).all(dim=-2)
    first = torch.where(same, 0, index[1:]).cummax(dim=-1).values
    pairs = (index[1:] - first).sum(dim=-1)
    return pairs.double() / (samples * (samples - 1) / 2)


@typed
def brier_score_of(
    probabilities: Float[Tensor, "*batch outcomes"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Brier score of a known distribution: sum_x (p(x) - [x = y])^2.

    `brier_score` estimates this number from draws. No digits are lost near zero.

    Args:
        probabilities: p, for instance from a softmax; differentiable.
        target: Index y of the outcome.

    Raises:
        ValueError: If a probability is negative, they do not sum to 1 or target is out of range.
            (Values are checked only on the CPU.)
    """
    check_categorical(probabilities, target)
    return in_full_precision(_brier)(probabilities, target)


@typed
def spherical_score(
    probabilities: Float[Tensor, "*batch outcomes"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Spherical score of a known distribution: -p(y) / ||p||_2.

    Args:
        probabilities: p, for instance from a softmax; differentiable.
        target: Index y of the outcome.

    Raises:
        ValueError: If a probability is negative, they do not sum to 1 or target is out of range.
            (Values are checked only on the CPU.)
    """
    check_categorical(probabilities, target)
    return in_full_precision(_spherical)(probabilities, target)


def _check_draws(draws: Tensor, least: int) -> None:
    if draws.shape[0] < least:
        raise ValueError(
            f"draws must hold at least {least} sample{'s' * (least > 1)} to be unbiased; "
            f"got {draws.shape[0]}."
        )
    if draws.shape[-1] < 1:
        raise ValueError("draws must have at least 1 token; got 0.")


# Separate, because the checks must see the precision in which the probabilities were rounded.
def _brier(probabilities: Tensor, target: Tensor) -> Tensor:
    place = target.long()[..., None]
    minus_one = probabilities.new_full(place.shape, -1.0)
    return probabilities.scatter_add(-1, place, minus_one).square().sum(dim=-1)


def _spherical(probabilities: Tensor, target: Tensor) -> Tensor:
    hit = probabilities.gather(-1, target.long()[..., None]).squeeze(-1)
    return -hit / torch.linalg.vector_norm(probabilities, dim=-1)
