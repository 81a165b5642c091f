r"""Nats of a chunk under a continuous model: bounds from weighted draws of its latent.

A model whose head has the density p(z | h) and whose decoder gives tokens the probability p(x | z)
gives the chunk x the probability P(x | h), an integral over all latents z. With draws z_1 ... z_S
of a proposal r,

    -log P(x | h) <= -E log 1/S sum_s w_s,    w_s = p(x | z_s) p(z_s | h) / r(z_s),

and both sides are equal in the limit of many draws, since the mean weight is an unbiased estimate
of P (Burda et al., "Importance Weighted Autoencoders", arXiv 1509.00519).

*Proposal.* The autoencoder's posterior q(z | x) is a bad one: a decoder reads x from a region far
wider than q, and the head's law covers all of it. What is wanted is p(z | h) p(x | z), and for a
mixture of Gaussians p it is a mixture again if p(x | z) is replaced by N(z; m, t^2 I), with m the
mean of q: every component is pulled towards m. The draws come in equal parts from the head's law
itself and from it pulled with the widths t = 1 and t = 2, so that r is the mean of three mixtures
and no weight exceeds 3.

A head without a density gives draws only. With r = p the weights are p(x | z_s), and the same
bound holds. It is loose where the probability of a chunk is below about 1/S: `by_draws`.

Lower is better. Text drawn from these models takes the decoder's likeliest tokens, and P uses the
decoder's probabilities; the two laws are close if the decoder is sure.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.gaussian_mixture import GaussianMixture
from calmkit.models import CALM

__all__ = ["ChunkNats", "chunk_nats"]

WIDTHS = (1.0, 2.0)  # in units of the latents' spread
POINTS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ChunkNats:
    """Upper bounds of -log P of each chunk, (points,), in nats.

    Attributes:
        many: From all S draws; of a head without a density, its own draws.
        few: From a quarter of them, the mean over the quarters.
        by_draws: From draws of the head alone, a third of S if the head has a density.
        probability: Unbiased estimate of P.
    """

    many: Tensor
    few: Tensor
    by_draws: Tensor
    probability: Tensor


@torch.no_grad()
def chunk_nats(
    model: CALM,
    cond: Tensor,
    tokens: Tensor,
    posterior: DiagonalGaussian,
    *,
    draws: int,
    generator: Generator,
) -> ChunkNats:
    """Bounds for each chunk.

    Args:
        model: The model, in evaluation mode.
        cond: The state before each chunk, (points, hidden).
        tokens: The chunks, (points, chunk).
        posterior: The autoencoder's posterior of each.
        draws: S, a positive multiple of 12.
        generator: Source of the draws.

    Raises:
        ValueError: If the number of draws is not a positive multiple of 12, or the head's mixture
            has covariances that are not diagonal.
    """
    if draws < 1 or draws % 12:
        raise ValueError(
            f"draws must be a positive multiple of 12, three proposals in quarters; got {draws}."
        )
    parts = [
        _bounds(model, cond[part], tokens[part], posterior.mean[part], draws, generator)
        for part in torch.arange(len(cond)).split(POINTS_AT_ONCE)
    ]
    names = ("many", "few", "by_draws", "probability")
    return ChunkNats(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _bounds(
    model: CALM,
    cond: Tensor,
    tokens: Tensor,
    center: Tensor,
    draws: int,
    generator: Generator,
) -> ChunkNats:
    law = predicted_mixture(model, cond)
    if law is None:
        weights = _decoded(model, model.head.sample(cond, draws, generator), tokens)
        alone = weights
    else:
        proposals = [law, *(pulled(law, center, width) for width in WIDTHS)]
        each = draws // len(proposals)
        drawn = [_sample(one, each, generator) for one in proposals]
        # In turns, so that every quarter has as many of each.
        latents = torch.stack(drawn, dim=1).flatten(0, 1)
        decoded = _decoded(model, latents, tokens)
        logs = torch.stack([_log_prob(one, latents) for one in proposals])
        weights = decoded + logs[0] - _log_mean(logs)
        alone = decoded[:: len(proposals)]
    quarters = [_log_mean(quarter) for quarter in weights.chunk(4)]
    return ChunkNats(
        many=-_log_mean(weights),
        few=-torch.stack(quarters).mean(dim=0),
        by_draws=-_log_mean(alone),
        probability=weights.exp().mean(dim=0),
    )


def predicted_mixture(model: CALM, cond: Tensor) -> GaussianMixture | None:
    """The head's law as a mixture of Gaussians with diagonal covariances; None if it is not one.

    Raises:
        ValueError: If the covariances are not diagonal.
    """
    head: Any = model.head
    if not hasattr(head, "distribution"):
        return None
    law = head.distribution(cond)
    if isinstance(law, GaussianMixture):
        if law.factor.shape[-1] > 0:
            raise ValueError(
                f"head must predict diagonal covariances; got rank {law.factor.shape[-1]}."
            )
        return law
    one = law.mean.new_zeros(*law.mean.shape[:-1], 1)
    factor = law.mean.new_zeros(*law.mean.shape[:-1], 1, law.mean.shape[-1], 0)
    return GaussianMixture(one, law.mean[..., None, :], law.std[..., None, :], factor)


def pulled(law: GaussianMixture, center: Tensor, width: float) -> GaussianMixture:
    """The law times N(z; center, width^2 I), normalised."""
    own, pull, center = law.std.square(), width**2, center[..., None, :]
    variance = own * pull / (own + pull)
    mean = variance * (law.mean / own + center / pull)
    squares = (center - law.mean).square() / (own + pull) + (own + pull).log()
    log_weights = (law.log_weights - squares.sum(dim=-1) / 2).log_softmax(dim=-1)
    return GaussianMixture(log_weights, mean, variance.sqrt(), law.factor)


def _sample(law: GaussianMixture, count: int, generator: Generator) -> Tensor:
    shape = (count, *law.log_weights.shape[:-1])
    uniform = torch.rand(shape, generator=generator, dtype=law.mean.dtype)
    noise = torch.randn((*shape, law.noise_size), generator=generator, dtype=law.mean.dtype)
    return law.sample_from(uniform, noise)


def _log_prob(law: GaussianMixture, latents: Tensor) -> Tensor:
    """Log-density of each latent, (draws, points)."""
    return torch.stack([law.log_prob(one) for one in latents]).double()


def _log_mean(logs: Tensor) -> Tensor:
    return logs.logsumexp(dim=0) - math.log(len(logs))


def _decoded(model: CALM, latents: Tensor, tokens: Tensor) -> Tensor:
    """Log p(x | z) of each latent, (draws, points)."""
    nats = model.autoencoder.token_nats(latents, tokens.expand(len(latents), *tokens.shape))
    return -nats.sum(dim=-1).double()
