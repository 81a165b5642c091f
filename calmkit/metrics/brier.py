r"""Brier score of discrete predictions, from draws alone.

    Brier(P, y) = 2 P(y) - sum_x P(x)^2

Orientation: **higher is better**. A certain and correct prediction scores 1, the maximum; a
certain and wrong one scores -1. Strictly proper. From n >= 2 independent draws x_s it is estimated
without bias by

    2/n sum_s [x_s = y] - 2/(n (n-1)) sum_{s < t} [x_s = x_t],

the mean over all pairs of draws of [x_s = y] + [x_t = y] - [x_s = x_t]. Brier-n is the score of
the next n tokens taken together, as one outcome. It equals 1 minus the loss of
`calmkit.scoring.brier_score`, with which it shares its two estimates.

Source: Brier, "Verification of forecasts expressed in terms of probability", 1950; from two draws
in arXiv 2510.27688.
"""

from jaxtyping import Float, Int
from torch import Tensor

from calmkit.scoring import collision_rate, hit_rate
from calmkit.typing import typed

__all__ = ["brier", "brier_ngram", "expected_brier", "ngram_rates"]


@typed
def brier(
    draws: Int[Tensor, "samples *batch tokens"], target: Int[Tensor, "*batch tokens"]
) -> Float[Tensor, "*batch"]:
    """Estimate the Brier score of all tokens together, as one outcome, without bias.

    Args:
        draws: Independent draws of the tokens, at least two.
        target: The true tokens.

    Raises:
        ValueError: If there are fewer than two draws.
    """
    return 2 * hit_rate(draws, target) - collision_rate(draws)


@typed
def brier_ngram(
    draws: Int[Tensor, "samples *batch tokens"], target: Int[Tensor, "*batch tokens"], order: int
) -> Float[Tensor, "*batch starts"]:
    """Estimate Brier-n of every n-gram without bias.

    Args:
        draws: Independent draws of the tokens, at least two.
        target: The true tokens.
        order: n, the number of tokens in an outcome.

    Returns:
        The score of the n-gram from each start 0, ..., tokens - n.

    Raises:
        ValueError: If there are fewer than two draws, or fewer than n tokens.
    """
    hits, collisions = ngram_rates(draws, target, order)
    return 2 * hits - collisions


@typed
def ngram_rates(
    draws: Int[Tensor, "samples *batch tokens"], target: Int[Tensor, "*batch tokens"], order: int
) -> tuple[Float[Tensor, "*batch starts"], Float[Tensor, "*batch starts"]]:
    """Estimate P(y) and sum_x P(x)^2 of n-grams separately: the two terms of `brier_ngram`.

    Args:
        draws: Independent draws of the tokens, at least two.
        target: The true tokens.
        order: n, the number of tokens in an outcome.

    Raises:
        ValueError: If there are fewer than two draws, or fewer than n tokens.
    """
    length = draws.shape[-1]
    if not 1 <= order <= length:
        raise ValueError(f"order must be in [1, {length}], the number of tokens; got {order}.")
    # Windows are outcomes of `order` tokens: (*batch, starts, order).
    windows, truth = draws.unfold(-1, order, 1), target.unfold(-1, order, 1)
    return hit_rate(windows, truth), collision_rate(windows)


@typed
def expected_brier(
    probabilities: Float[Tensor, " vocab"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Brier score of a known distribution: 2 p(y) - sum p^2."""
    return 2 * probabilities[target.long()] - probabilities.square().sum()
