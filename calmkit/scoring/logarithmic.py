r"""Logarithmic score: the rule of maximum likelihood, for predictions with a density.

    S(p, y) = -log p(y),    E_{v ~ q} S(p, v) = entropy of q + KL(q || p).

Orientation: **lower is better**, in nats. Strictly proper by Gibbs' inequality, KL >= 0 with
equality at p = q only. Up to affine changes it is the only strictly proper score that is *local*,
a function of p(y) alone (with more than two outcomes).

It needs a density: from samples alone it has no unbiased estimator. Beware:

- Densities have units. Latents scaled by c increase each score by latent * log c, and a score may
  be negative: compare models only on the same latents.
- One outcome with p = 0 makes the score infinite, however good the rest is.
- For a point mass it has no minimum: it falls without bound as p narrows around y.

The expectation over a Gaussian target is estimated by scoring its draws.

Sources: Good, "Rational decisions", 1952; Bernardo, "Expected information as expected utility",
Annals of Statistics 1979; Gneiting and Raftery, JASA 2007, section 4.1.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from calmkit.finite import check_finite
from calmkit.numerics import in_full_precision
from calmkit.typing import typed

from .checks import check_dimensions

__all__ = ["log_score"]


@typed
@in_full_precision
def log_score(
    log_prob: Callable[[Tensor], Tensor], observation: Float[Tensor, "*batch latent"]
) -> Float[Tensor, "*batch"]:
    """The negative log-density at an observation: -log p(y), in nats.

    Exact, and differentiable wherever log_prob is. log_prob is called once, outside autocast, with
    the observation at least in float32.

    Args:
        log_prob: Log-density of the prediction in nats, one for each position: from
            "*batch latent" to "*batch", for instance `DiagonalGaussian.log_prob`, or
            `lambda z: head.log_prob(condition, z)`.
        observation: The outcome y. For several, add a leading axis that log_prob understands.

    Raises:
        ValueError: If the observation has no dimension or is not finite, or log_prob returns
            another shape.
    """
    check_dimensions(observation=observation)
    check_finite(observation=observation)
    found = log_prob(observation)
    batch = observation.shape[:-1]
    if found.shape != batch:
        raise ValueError(
            f"log_prob must return one number for each observation, shape {tuple(batch)}; "
            f"got {tuple(found.shape)}."
        )
    return -found
