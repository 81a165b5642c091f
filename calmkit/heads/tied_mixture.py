r"""Tied mixture head: every state mixes the same Gaussians, with weights of its own.

    p(z | h) = sum_k pi_k(h) N(z; mu_k + d(h), diag(sigma_k^2)).

The components (mu_k, sigma_k) are parameters that all conditions share; the network gives the
weights pi(h) and a common shift d(h). Hidden Markov models of speech call this a tied, or
semi-continuous, mixture. A component costs one output of the network, as a token of a softmax
does, instead of the 2 l + 1 of `MixtureHead`, so that thousands are affordable.

*Why.* Where latents gather at many places, as those of a chunk autoencoder do at its chunks, a
head of few components must carry every choice between places through a few numbers: means in l
dimensions. Here the choice is a softmax over components, whose gradient is that of a classifier,

    d log p(z | h) / d logit_k = r_k(z) - pi_k(h),    r_k(z) = pi_k N_k(z) / p(z | h),

with soft labels r_k. For K = 1, with one component at each token's posterior, it learns as a
softmax model does. It remains a density over latents, with exact samples.

*Start.* A component far from all latents never learns, and gradient steps move means slowly.
Before training, `start_from` places the components on latents of the text, the most frequent
distinct ones. The cell of a component holds the latents nearest to it: the logarithm of their
share is its logit. Its variance in each dimension is their mean squared distance from it, plus
1 / (4 l) of the squared distance to the nearest other component.
Without this start components begin as those of `MixtureHead`, which suits laws of few dimensions.

*Density.* The squared distances of all positions to all components are one matrix product,

    sum_i (z_i - mu_ki)^2 / sigma_ki^2 = (z^2, z) . (sigma_k^-2, -2 mu_k sigma_k^-2) + const_k,

in float32 at least. The difference loses digits where sigma is far below the spread of the
latents, which the floor `min_std` prevents, and on GPUs that are told to multiply in TF32
(`torch.set_float32_matmul_precision`), which nothing here does.

Source: Huang and Jack, "Semi-continuous hidden Markov models for speech signals", 1989; Bellegarda
and Nahamoo, "Tied mixture continuous parameter modeling for speech recognition", 1990.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from calmkit.bounds import check_at_least
from calmkit.distributions import DiagonalGaussian, Target, standard_uniform
from calmkit.finite import check_finite
from calmkit.nn import ResidualMLP
from calmkit.numerics import in_full_precision, log_sum_exp
from calmkit.typing import typed

from .base import Head, starting_noise
from .gaussian import check_min_std, initial_std, positive_std

__all__ = ["TiedMixtureHead"]

# Rows of a table of distances to components: with 65,536 of them it takes 64 MB.
_ROWS_AT_ONCE = 256
# In batches of other shapes, the posterior of the same chunk differs in its last digits.
_DIGITS = 3


class TiedMixtureHead(Head):
    """A mixture of Gaussians that all conditions share, trained by maximum likelihood."""

    evaluations_per_sample = 1

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        components: int = 1024,
        draws: int = 1,
        min_std: float = 0.05,
    ) -> None:
        """Build the network and the components.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            components: Number of Gaussians.
            draws: Draws from the target per position in a training step.
            min_std: Floor of each sigma, for latents of unit variance.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, components=components, draws=draws)
        check_min_std(min_std)
        self.components = components
        self.draws = draws
        self.min_std = min_std
        # Vectors, which optimisers do not decay: components would be pulled to one place.
        self.flat_mean = nn.Parameter(torch.empty(components * latent_size))
        self.flat_raw_std = nn.Parameter(torch.empty(components * latent_size))
        self.network = ResidualMLP(cond_size, components + latent_size, width=width, depth=depth)
        self.reset_parameters()

    @property
    def mean(self) -> Tensor:
        """The mu_k as a table, (components, latent)."""
        return self.flat_mean.unflatten(0, (self.components, self.latent_size))

    @property
    def raw_std(self) -> Tensor:
        """The sigma_k before `positive_std`, as a table, (components, latent)."""
        return self.flat_raw_std.unflatten(0, (self.components, self.latent_size))

    def reset_parameters(self) -> None:
        """Initialise to mean 0 and variance 1 for each condition, with equal weights."""
        self.network.reset_parameters()
        nn.init.zeros_(self.network.output.weight)
        between = min(0.5, 1 / self.latent_size) if self.components > 1 else 0.0
        mean = torch.randn_like(self.mean)
        mean = mean - mean.mean(dim=0)
        mean = mean * (between / mean.square().mean(dim=0).clamp_min(1e-12)).sqrt()
        std = torch.full_like(self.raw_std, math.sqrt(1 - between))
        with torch.no_grad():
            self.mean.copy_(mean)
            self.raw_std.copy_(initial_std(std, self.min_std))

    @torch.no_grad()
    def start_from(self, target: Target, generator: torch.Generator | None = None) -> None:
        """Place the components on latents like those to be learned; see `Head.start_from`."""
        target = self._checked_target(target)
        mean, std = (x.reshape(-1, self.latent_size) for x in (target.mean, target.std))
        if len(mean) == 0:
            raise ValueError("target must hold at least one latent; got none.")
        check_finite(**{"target.mean": mean, "target.std": std})
        place = _most_frequent(mean, self.components, generator)
        # With fewer distinct latents than components, the others start at further draws.
        others = torch.randint(
            len(mean), (self.components - len(place),), generator=generator, device=mean.device
        )
        further = DiagonalGaussian(mean[others], std[others]).sample(1, generator)[0]
        start = torch.cat([mean[place], further])
        between = _distance_to_nearest(start)[:, None].square() / (4 * self.latent_size)
        share, variance = _cells(start, mean, std)
        width = (variance + between).sqrt().clamp_min(2 * self.min_std)
        self.mean.copy_(start)
        self.raw_std.copy_(initial_std(width, self.min_std))
        self.network.output.bias[: self.components].copy_(share.log())

    @typed
    def log_prob(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Exact log-density of one vector per position, in nats."""
        latents = self._checked_latents(latents)
        log_weights, shift = self._weights_and_shift(cond)
        std = positive_std(self.raw_std, self.min_std)
        return _log_prob(log_weights, self.mean, std, latents - shift)

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "draws *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """Mean of -log p(v | h) over given draws, in nats.

        Args:
            cond: Conditions.
            latents: Draws v from the target.

        Raises:
            ValueError: If the draws have the wrong size.
        """
        latents = self._checked_latents(latents)
        log_weights, shift = self._weights_and_shift(cond)
        std = positive_std(self.raw_std, self.min_std)
        log_weights = log_weights.expand(len(latents), *log_weights.shape)
        return -_log_prob(log_weights, self.mean, std, latents - shift).mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """-E log p(v | h) for v ~ target, without bias; see `Head.loss`."""
        return self.loss_from(cond, self._checked_target(target).sample(self.draws, generator))

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        uniform: Float[Tensor, "samples *batch"],
        noise: Float[Tensor, "samples *batch latent"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """`mu_k + d(h) + sigma_k noise` for the k that `uniform` selects.

        Args:
            cond: Conditions.
            uniform: Draws from [0, 1); k is the first with pi_1 + ... + pi_k above it.
            noise: Standard normal draws.
        """
        log_weights, shift = self._weights_and_shift(cond)
        # Without the last sum, which is 1 only up to rounding, k cannot exceed its range.
        upper = log_weights.exp().cumsum(dim=-1)[..., :-1].contiguous()
        wanted = uniform.movedim(0, -1).to(upper.dtype).contiguous()
        chosen = torch.searchsorted(upper, wanted, right=True).movedim(-1, 0)
        chosen = chosen.contiguous()  # torch.compile takes what it selects for contiguous
        std = positive_std(self.raw_std, self.min_std)
        return (self.mean[chosen] + std[chosen] * noise + shift).to(noise.dtype)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition; see `Head.sample`."""
        noise = starting_noise(cond, num_samples, self.latent_size, generator)
        # In lower precision, components of small weight would never be selected.
        dtype = torch.promote_types(noise.dtype, torch.float32)
        uniform = standard_uniform(noise.shape[:-1], generator, dtype=dtype, device=noise.device)
        return self.sample_from(cond, uniform, noise)

    def _weights_and_shift(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of pi(h), and d(h), in float32 at least."""
        self._check_cond(cond)
        output = self.network(cond)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        logits, shift = output.split([self.components, self.latent_size], dim=-1)
        return logits.log_softmax(dim=-1), shift


@typed
@in_full_precision
def _log_prob(
    log_weights: Float[Tensor, "*batch components"],
    mean: Float[Tensor, "components latent"],
    std: Float[Tensor, "components latent"],
    latents: Float[Tensor, "*batch latent"],
) -> Float[Tensor, "*batch"]:
    precision = std.square().reciprocal()
    scaled = mean * precision
    constant = (mean * scaled + 2 * std.log() + math.log(2 * math.pi)).sum(dim=-1)
    # One product makes one large table, not five.
    read = torch.cat([latents.square(), latents], dim=-1)
    weight = torch.cat([-0.5 * precision, scaled], dim=-1)
    return log_sum_exp(log_weights + linear(read, weight, -0.5 * constant))


def _most_frequent(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Rows of the most frequent distinct vectors, at most `count`; random among equals."""
    _, kind, found = x.round(decimals=_DIGITS).unique(
        dim=0, return_inverse=True, return_counts=True
    )
    row = torch.empty_like(found).scatter_(0, kind, torch.arange(len(x), device=x.device))
    random = torch.rand(len(found), generator=generator, device=x.device)
    return row[(found + random).topk(min(count, len(found))).indices]


def _distance_to_nearest(x: Tensor) -> Tensor:
    """From each vector to the nearest other one; 0 for a single vector."""
    if len(x) == 1:
        return x.new_zeros(1)
    parts = (
        torch.cdist(part, x).topk(2, largest=False).values[:, 1] for part in x.split(_ROWS_AT_ONCE)
    )
    return torch.cat(list(parts))


def _cells(place: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the latents that are nearest to each place, and their variance around it.

    A place without latents has the share of half a latent and no variance.
    """
    parts = [torch.cdist(part, place).argmin(dim=-1) for part in mean.split(_ROWS_AT_ONCE)]
    nearest = torch.cat(parts)
    count = torch.bincount(nearest, minlength=len(place)).to(mean.dtype)
    squares = (mean - place[nearest]).square() + std.square()
    variance = torch.zeros_like(place).index_add_(0, nearest, squares)
    share = count.clamp_min(0.5) / count.clamp_min(0.5).sum()
    return share, variance / count.clamp_min(1)[:, None]
