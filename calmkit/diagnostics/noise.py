r"""Accuracy of the decoder under noise on its latents.

With m, s the posterior of a chunk x, e standard normal noise and v_i = Var[m_i] + E[s_i^2] the
variance of latents over all chunks,

    accuracy(t) = mean of [decode(m + t sqrt(v) e)_k = x_k]    over noise, chunks and places k.

t is the error of a latent in units of the spread of all latents: at t = 1 it is as far off as
another chunk. No head is perfect: if the curve falls early, small errors of a head cause wrong
tokens. The decoder was trained with noise of the posterior's own size, decode(m + s e).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .aggregate import latent_variance
from .base import Diagnostic

__all__ = ["NoiseCurve", "noise_curve"]

# The paper's autoencoder restores 99.9 %; this limit allows ten times as many errors.
_LEAST_MEAN_ACCURACY = 0.99
# With the noise it was trained with, a good decoder loses a few per cent at most.
_LEAST_POSTERIOR_ACCURACY = 0.95
# The accuracy that defines the tolerated noise.
_TOLERATED = 0.9


@dataclass(frozen=True)
class NoiseCurve(Diagnostic):
    """Accuracy of an autoencoder under noise on its latents; higher is better.

    Attributes:
        sizes: Noise t, in standard deviations of all latents.
        accuracy: Share of tokens restored at each size.
        from_mean: Share restored from the posterior's mean, without noise.
        from_posterior: Share restored from draws of the posterior.
        posterior_size: The posterior's own noise in the same unit: the root of the mean of
            s_i^2 / v_i over chunks and dimensions that vary.
    """

    sizes: tuple[float, ...]
    accuracy: tuple[float, ...]
    from_mean: float
    from_posterior: float
    posterior_size: float

    meaning = (
        "no head can write better than this decoder reads; train the autoencoder longer, "
        "give it more dimensions, or more noise in training"
    )

    @property
    def tolerated(self) -> float:
        """The largest size up to which nine tokens in ten are restored; 0 if none is."""
        reached = 0.0
        for size, accuracy in zip(self.sizes, self.accuracy, strict=True):
            if accuracy < _TOLERATED:
                break
            reached = size
        return reached

    @property
    def is_bad(self) -> bool:
        """Whether accuracy is below 99 % from the mean, or 95 % from posterior draws."""
        return (
            self.from_mean < _LEAST_MEAN_ACCURACY
            or self.from_posterior < _LEAST_POSTERIOR_ACCURACY
        )

    @property
    def summary(self) -> str:
        """The accuracies and the curve."""
        curve = ", ".join(
            f"{accuracy:.0%} at {size:g}"
            for size, accuracy in zip(self.sizes, self.accuracy, strict=True)
        )
        return (
            f"tokens restored: {self.from_mean:.2%} from the mean, {self.from_posterior:.2%} from "
            f"posterior draws (noise {self.posterior_size:.2g}); under noise in units of the "
            f"latents' spread {curve}; nine in ten up to {self.tolerated:g}"
        )


@typed
@torch.no_grad()
def noise_curve(
    autoencoder: ChunkAutoencoder,
    posterior: DiagonalGaussian,
    tokens: Int[Tensor, "points chunk"],
    noise: Float[Tensor, "samples points latent"],
    *,
    sizes: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5),
) -> NoiseCurve:
    """Measure accuracy under noise of growing size; see the module docstring.

    Args:
        autoencoder: The autoencoder; put it in evaluation mode first.
        posterior: Posterior of each chunk in its context.
        tokens: The chunks, from held-out text.
        noise: Standard normal noise e; the same at every size, so that the curve is smooth.
        sizes: The sizes t, ascending.

    Raises:
        ValueError: If sizes are not ascending and at least 0.
    """
    if not sizes or sizes[0] < 0 or list(sizes) != sorted(sizes):
        raise ValueError(f"sizes must be ascending numbers, at least 0; got {tuple(sizes)}.")
    variance = latent_variance(posterior)
    varies = variance > 0
    own = posterior.std.square()[:, varies] / variance[varies]

    def accuracy(latents: Tensor) -> float:
        return float((autoencoder.decode_tokens(latents) == tokens).double().mean())

    std = variance.sqrt().to(posterior.mean.dtype)  # under autocast a mean of squares is wider
    everywhere = DiagonalGaussian(posterior.mean, std.expand_as(posterior.mean))
    return NoiseCurve(
        sizes=tuple(float(size) for size in sizes),
        accuracy=tuple(accuracy(everywhere.rsample_from(size * noise)) for size in sizes),
        from_mean=accuracy(posterior.mean),
        from_posterior=accuracy(posterior.rsample_from(noise)),
        posterior_size=float(own.mean().sqrt()) if bool(varies.any()) else 0.0,
    )
