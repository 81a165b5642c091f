r"""Terms beside a head's loss that read one differentiable sample y_t of it at each position t.

*Cross entropy through the decoder.* The sample is decoded by the frozen decoder, and the true
tokens are scored,

    CE_t = -1/K sum_k log p(x_k | y_t),    in nats per token; lower is better.

It tells the head which errors of a latent change tokens. **It is not a proper score of the law of
latents:** its mean over samples is least if every sample is the one latent that decodes best on
average, so that alone it collapses the head to a point. Keep its weight small beside a proper
score, and watch the spread of samples.

*Pull to the aggregate posterior.* Samples of other positions are scored against each target,

    pull_t = S({y_u}, q_t),    u in N = 8 random positions other than t,

with the energy score S. Over random positions, y_u is a draw from the head's aggregate law, so
that this is the energy score of that law against the aggregate posterior of the text: strictly
proper for it. It is least where the aggregate law is right, whatever the conditional laws are, so
that the right head minimises it together with its own score: unlike the cross entropy, the pull
does not move the optimum. It alone teaches nothing about the text. It punishes samples that are
nowhere near the latents of text. Positions of one row are related, so that a batch should hold
several rows; with N or fewer positions it is zero.

Source: for the cross entropy, "SONAR-LLM", arXiv 2508.05305.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.distributions import DiagonalGaussian, standard_uniform
from calmkit.heads import Head
from calmkit.scoring import EnergyScore
from calmkit.typing import typed

__all__ = ["decoded_nats", "differentiable_latents", "pooled", "pooled_score"]

_POOLED = 8


def differentiable_latents(
    head: Head, cond: Tensor, generator: torch.Generator | None
) -> Float[Tensor, "*batch latent"]:
    """One sample of the head at each position, with its gradient.

    Args:
        head: Draws the sample with its own sampling settings.
        cond: The backbone's states.
        generator: Source of randomness; torch's global one if None.

    Raises:
        ValueError: If the sample has no gradient although it should have one.
    """
    latents = head.sample(cond, 1, generator).squeeze(0)
    trained = torch.is_grad_enabled() and any(p.requires_grad for p in head.parameters())
    if trained and not latents.requires_grad:
        raise ValueError(
            f"head must draw samples with a gradient for cross_entropy_weight or pull_weight; "
            f"those of {type(head).__name__} have none. Set both weights to 0, or take a head "
            "such as EnergyHead."
        )
    return latents


@typed
def decoded_nats(
    autoencoder: ChunkAutoencoder,
    latents: Float[Tensor, "*batch latent"],
    tokens: Int[Tensor, "*batch chunk"],
    real: Bool[Tensor, "*batch chunk"],
) -> Float[Tensor, "*batch"]:
    """Mean cross entropy of the real tokens of each chunk, in nats; 0 if none is real.

    Args:
        autoencoder: Its decoder reads the latents.
        latents: A sample of each chunk.
        tokens: The true tokens.
        real: False at places without text.
    """
    nats = autoencoder.token_nats(latents, tokens)
    return torch.where(real, nats, 0.0).sum(dim=-1) / real.sum(dim=-1).clamp_min(1)


@typed
def pooled_score(
    latents: Float[Tensor, "*batch latent"],
    target: DiagonalGaussian,
    counted: Bool[Tensor, "*batch"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch"]:
    """Energy score of samples of other positions against each target; see the module docstring.

    Args:
        latents: A sample of each position.
        target: The posterior of each position.
        counted: Positions whose samples are used; the result elsewhere has no meaning.
        generator: Source of randomness; torch's global one if None.
    """
    keys = standard_uniform(counted.shape, generator, dtype=torch.float32, device=counted.device)
    others = pooled(latents, counted, keys, _POOLED)
    wide = torch.promote_types(latents.dtype, torch.float32)
    target = DiagonalGaussian(target.mean.to(wide), target.std.to(wide))
    score = EnergyScore().score(others.to(wide), target, generator)
    return torch.where(counted.sum() > _POOLED, score, 0.0)


@typed
def pooled(
    latents: Float[Tensor, "*batch latent"],
    counted: Bool[Tensor, "*batch"],
    keys: Float[Tensor, "*batch"],
    num_samples: int,
) -> Float[Tensor, "samples *batch latent"]:
    """For each counted position, the samples of distinct other counted positions.

    The counted positions are put into a random circle; each takes its next neighbours in it.

    Args:
        latents: A sample of each position.
        counted: Positions that take part; more than `num_samples`.
        keys: Numbers in [0, 1); the circle has their order.
        num_samples: Number of other positions.
    """
    # Positions that do not count come last.
    order = torch.where(counted, keys, 1.0).flatten().argsort(stable=True)
    place = order.argsort()
    steps = torch.arange(1, num_samples + 1, device=place.device)
    others = order[(place + steps[:, None]) % counted.sum().clamp_min(1)]
    return latents.flatten(0, -2)[others].view(num_samples, *latents.shape)
