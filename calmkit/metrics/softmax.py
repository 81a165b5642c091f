r"""Brier scores of models with known probabilities: with less noise, or none.

Brier-1 is exact: 2 p(y) - sum_x p(x)^2. For n tokens, the probability of the target is a product
along the true text. The collision term is a sum over all n-grams. Only the first n - 1 tokens are
drawn; the sum over the last one is exact (Rao-Blackwell):

    sum_x P(x)^2 = E_x[ p(x_1) p(x_2 | x_1) ... p(x_(n-1) | ...) sum_v p(v | x_1 ... x_(n-1))^2 ]

over x_1 ... x_(n-1) drawn from the model. Orientation: **higher is better**.
"""

from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["softmax_brier", "softmax_collision"]


@typed
def softmax_brier(
    log_probabilities: Float[Tensor, "*batch vocab"], target: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Brier-1 of a softmax, exactly: 2 p(y) - sum p^2, in float64.

    Args:
        log_probabilities: Normalised over the vocabulary.
        target: The true tokens.
    """
    p = log_probabilities.double().exp()
    return 2 * p.gather(-1, target.long()[..., None])[..., 0] - p.square().sum(dim=-1)


@typed
def softmax_collision(
    drawn: Float[Tensor, "samples *batch steps"], last: Float[Tensor, "samples *batch vocab"]
) -> Float[Tensor, "*batch"]:
    """Estimate sum_x P(x)^2 over (steps + 1)-grams without bias, in float64.

    Args:
        drawn: Log-probability of each drawn token given those before it.
        last: Log-probabilities of the token after them, over the vocabulary.
    """
    prefix = drawn.double().sum(dim=-1).exp()
    squares = (2 * last.double()).exp_().sum(dim=-1)
    return (prefix * squares).mean(dim=0)
