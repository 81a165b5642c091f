r"""A gate for autoencoders: pass or fail at the noise that a head makes.

A head's sample is not the latent of a chunk but near one. How near is measured without knowing
which chunk was meant: the sample y is decoded, and its tokens are encoded again in its place, to
the mean m(y). With v_i the variance of all latents,

    head noise = sqrt(mean of (y_i - m_i(y))^2 / v_i)    over points and dimensions that vary.

A head that draws from posteriors has the posterior's own noise. The measure is a lower bound:
where noise makes the decoder choose another chunk, y is near that chunk.

The gate adds Gaussian noise of this size to the means of real chunks, as in `noise_curve`, and
passes if at least 95 % of the tokens are restored *at every place of the chunk*. A mean over
places hides a last token that is lost in the noise.

Before there is a head, choose the size. A small energy head after 500 steps made a noise of 0.78,
ten times that of the posterior (0.08).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .aggregate import latent_variance
from .base import Diagnostic

__all__ = ["DecoderGate", "decoder_gate", "head_noise"]

_LEAST_ACCURACY = 0.95


@dataclass(frozen=True)
class DecoderGate(Diagnostic):
    """Accuracy of an autoencoder by place in the chunk; higher is better.

    Attributes:
        size: Noise, in standard deviations of all latents.
        by_place: Share of tokens restored under this noise at each place.
        from_mean: The same without noise.
    """

    size: float
    by_place: tuple[float, ...]
    from_mean: tuple[float, ...]

    meaning = (
        "the decoder loses tokens at the errors that this head makes; train the autoencoder "
        "with more dropout of latents or more dimensions, or the head for longer"
    )

    @property
    def is_bad(self) -> bool:
        """Whether fewer than 95 % are restored at any place."""
        return min(self.by_place) < _LEAST_ACCURACY

    @property
    def summary(self) -> str:
        """Pass or fail, and the accuracies by place."""
        noisy, clean = (
            ", ".join(f"{x:.2%}" for x in each) for each in (self.by_place, self.from_mean)
        )
        return (
            f"gate {'failed' if self.is_bad else 'passed'} at a head's noise of {self.size:.2g}: "
            f"restored by place {noisy} (without noise {clean})"
        )


@typed
@torch.no_grad()
def decoder_gate(
    autoencoder: ChunkAutoencoder,
    posterior: DiagonalGaussian,
    tokens: Int[Tensor, "points chunk"],
    noise: Float[Tensor, "samples points latent"],
    *,
    size: float,
) -> DecoderGate:
    """Test an autoencoder under noise of one size; see the module docstring.

    Args:
        autoencoder: The autoencoder; put it in evaluation mode first.
        posterior: Posterior of each chunk in its context.
        tokens: The chunks, from held-out text.
        noise: Standard normal noise.
        size: From `head_noise`, or a demand, in standard deviations of all latents.

    Raises:
        ValueError: If the size is negative.
    """
    check_at_least(0, size=size)
    std = latent_variance(posterior).sqrt().to(posterior.mean.dtype)
    spread = DiagonalGaussian(posterior.mean, std.expand_as(posterior.mean))

    def by_place(latents: Tensor) -> tuple[float, ...]:
        right = (autoencoder.decode_tokens(latents) == tokens).double()
        return tuple(right.flatten(0, -2).mean(dim=0).tolist())

    noisy = by_place(spread.rsample_from(size * noise))
    return DecoderGate(size=float(size), by_place=noisy, from_mean=by_place(posterior.mean))


@typed
@torch.no_grad()
def head_noise(
    autoencoder: ChunkAutoencoder,
    batch: ChunkBatch,
    row: Int[Tensor, " points"],
    position: Int[Tensor, " points"],
    samples: Float[Tensor, "points latent"],
    variance: Float[Tensor, " latent"],
) -> float:
    """The size of a head's noise; see the module docstring.

    Args:
        autoencoder: Decodes the samples and encodes their tokens.
        batch: Rows of true text.
        row: Row of each point.
        position: Position of each point in its row.
        samples: A sample of the head for each point.
        variance: Of all latents, from `latent_variance`.
    """
    tokens, points = batch.tokens[row].clone(), torch.arange(len(row), device=row.device)
    tokens[points, position] = autoencoder.decode_tokens(samples).to(tokens.dtype)
    lengths = tuple(batch.lengths[index] for index in row.tolist())
    again = autoencoder.encode_rows(ChunkBatch(tokens, batch.real[row], lengths))
    error = (samples - again.mean[points, position]).double().square()
    varies = variance > 0
    return float((error[:, varies] / variance[varies].double()).mean().sqrt())
