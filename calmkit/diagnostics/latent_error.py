r"""How far drawn latents, and their mean, are from the latent of the true chunk.

With n samples x_j at each point, their mean x, and the posterior's mean m of the true chunk, two
distances are averaged over points,

    MSE(a) = 1/l ||a - m||^2,    cosine(a) = a . m / (||a|| ||m||),

for the samples, for their mean, and for two guesses that ignore the text: the mean latent mu, the
best constant, and the posterior mean of another chunk (`other`).

The MSE of a perfect head is not zero, since the next chunk is uncertain. If the head is
calibrated, its samples have twice the MSE of the exact conditional mean, and the mean of n samples
1 + 1/n times that of the exact one (up to the posterior's own variance). So a head that draws
well can have a larger MSE than the constant. The mean of the samples is the one to compare with
it: if it is not nearer, the head's states say nothing about the latent. Cosines of latents whose
mean is far from zero are large for every pair; compare them with that of mu.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from calmkit.distributions import DiagonalGaussian
from calmkit.metrics import Estimate
from calmkit.typing import typed

from .base import Diagnostic
from .groups import mean_over_groups, within_two_errors

__all__ = ["Distances", "LatentError", "latent_error"]


@dataclass(frozen=True)
class Distances:
    """Distance of each guess to the posterior's mean.

    Attributes:
        draws: Of single samples of the head.
        mean: Of the mean of its samples.
        constant: Of the mean latent.
        other: Of another chunk's posterior mean.
    """

    draws: Estimate
    mean: Estimate
    constant: Estimate
    other: Estimate


@dataclass(frozen=True)
class LatentError(Diagnostic):
    """Distances of samples and of trivial guesses.

    Attributes:
        mse: Mean squared error per dimension, in squared units of the latents; lower is better.
        cosine: Cosine; higher is better.
        gain: MSE of the constant minus that of the mean, point by point; higher is better.
        samples: n, draws at each point.
    """

    mse: Distances
    cosine: Distances
    gain: Estimate
    samples: int

    meaning = (
        "the mean of the draws is no nearer to the true latent than one constant is: the "
        "states say nothing about it, or too few draws were averaged"
    )

    @property
    def explained(self) -> float:
        """Share of the constant's MSE that the mean of the samples saves; 1 is perfect."""
        constant = self.mse.constant.value
        return self.gain.value / constant if constant > 0 else 0.0

    @property
    def is_bad(self) -> bool:
        """Whether the gain is not above two standard errors."""
        return within_two_errors(self.gain)

    @property
    def summary(self) -> str:
        """Both distances of each guess, and the share of the error that is saved."""
        names = {
            "mean": f"mean of {self.samples} draws",
            "draws": "single draws",
            "constant": "mean latent",
            "other": "another chunk",
        }
        found = ", ".join(
            f"{name} {mse.value:.3g} ± {mse.standard_error:.2g} ({cosine.value:.3f})"
            for name, mse, cosine in (
                (name, getattr(self.mse, guess), getattr(self.cosine, guess))
                for guess, name in names.items()
            )
        )
        return f"latent MSE (cosine): {found}; the mean of draws saves {self.explained:.1%}"


@typed
@torch.no_grad()
def latent_error(
    samples: Float[Tensor, "samples points latent"],
    target: DiagonalGaussian,
    groups: Int[Tensor, " points"],
) -> LatentError:
    """Measure both distances; see the module docstring.

    The other chunk of a point is half of all points further on.

    Args:
        samples: The head's samples at each point, in the order of the text.
        target: Posterior of the true chunk, `points latent`.
        groups: Document or row of each point, for the standard errors.

    Raises:
        ValueError: If there is no sample, or there are fewer than two groups.
    """
    if samples.shape[0] < 1:
        raise ValueError("samples must hold at least 1 draw at each point; got 0.")
    wide = samples.double()
    true = target.mean.double()
    guesses = {
        "draws": wide,
        "mean": wide.mean(dim=0, keepdim=True),
        "constant": true.mean(dim=0).expand(1, *true.shape),
        "other": true.roll(len(true) // 2, dims=0)[None],
    }
    squares = {name: (x - true).square().mean(dim=(0, -1)) for name, x in guesses.items()}
    cosines = {
        name: cosine_similarity(x, true[None], dim=-1).mean(dim=0) for name, x in guesses.items()
    }
    return LatentError(
        mse=Distances(**{name: mean_over_groups(x, groups) for name, x in squares.items()}),
        cosine=Distances(**{name: mean_over_groups(x, groups) for name, x in cosines.items()}),
        gain=mean_over_groups(squares["constant"] - squares["mean"], groups),
        samples=samples.shape[0],
    )
