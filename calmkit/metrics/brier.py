r"""Brier score of discrete predictions, from draws alone.

    Brier(P, y) = 2 P(y) - sum_x P(x)^2

Orientation: **higher is better**; at most 1, reached by a certain and right prediction; a certain
and wrong one has -1. Strictly proper. From n >= 2 independent draws x_s it is estimated without
bias by

    2/n sum_s [x_s = y] - 2/(n (n-1)) sum_{s < t} [x_s = x_t],

the mean over all pairs of draws of [x_s = y] + [x_t = y] - [x_s = x_t]. Brier-n is the score of
the next n tokens taken together, as one outcome.

Source: Brier, "Verification of forecasts expressed in terms of probability", 1950; from two draws
in arXiv 2510.27688.
"""

from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["brier_ngram", "expected_brier"]


@typed
def brier_ngram(
    draws: Int[Tensor, "samples *batch tokens"], target: Int[Tensor, "*batch tokens"], order: int
) -> Float[Tensor, "*batch starts"]:
    """Estimate Brier-n at every place where n tokens fit, without bias.

    Args:
        draws: Independent draws of the tokens, at least two.
        target: The tokens that came.
        order: n, tokens in an outcome.

    Returns:
        The score of the n-gram from each start 0, ..., tokens - n.

    Raises:
        ValueError: If there are fewer than two draws, or n tokens do not fit.
    """
    num_samples, length = draws.shape[0], draws.shape[-1]
    if num_samples < 2:
        raise ValueError(f"draws must hold at least 2 samples to be unbiased; got {num_samples}.")
    if not 1 <= order <= length:
        raise ValueError(f"order must be in [1, {length}], the number of tokens; got {order}.")
    right = _windows(draws == target, order).double().mean(dim=0)
    collide = right.new_zeros(right.shape)
    # One sample against all later ones at a time: memory grows with draws, not with pairs.
    for sample in range(num_samples - 1):
        same = _windows(draws[sample] == draws[sample + 1 :], order)
        collide = collide + same.sum(dim=0)
    return 2 * right - collide / (num_samples * (num_samples - 1) / 2)


@typed
def expected_brier(
    probabilities: Float[Tensor, " vocab"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Brier score of a known distribution: 2 p(y) - sum p^2."""
    return 2 * probabilities[target] - probabilities.square().sum()


def _windows(equal: Tensor, order: int) -> Tensor:
    """Whether all of each `order` neighbouring places are equal."""
    return equal.unfold(-1, order, 1).all(dim=-1)
