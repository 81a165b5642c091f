r"""Mixture density head: a mixture of Gaussians with an exact likelihood.

    p(z | h) = sum_k pi_k N(z; mu_k, diag(sigma_k^2) + U_k U_k^T),    all functions of h,

where U_k has `rank` columns, none by default. The loss is the cross entropy -E log p(v | h) under
the target. It is exact for one component and for point masses; otherwise it is estimated from a
few draws, without bias and with little variance. The formulas of loss and density are in
`gaussian_mixture`.

*Initialisation.* Components that start equal stay equal, since their gradients are equal.
Components that start far apart are as bad: each latent belongs to the nearest one alone, and a
component far from all data never learns. For sigma near 1, the log-densities of two components at
a draw from one of them differ by about |mu_k - mu_j|^2 / 2. This is about a nat in any dimension l
if the variance between components is

    b = min(1/2, 1/l).

Half of it is fixed and half is a random dependence on the condition, with which trials found more
modes. sigma is the rest: for standardised latents the mixture starts with their mean and variance.
Use more components than there are modes. With 8 modes on a ring, 8 components missed one in half
of the trials, and 16 in none.

*Floor.* On point masses the likelihood is unbounded, since a component can shrink around a single
outcome. `min_std`, a floor of sigma, bounds it.

Source: Bishop, "Mixture Density Networks", 1994.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.distributions import DiagonalGaussian, Target, standard_normal, standard_uniform
from calmkit.nn import ResidualMLP
from calmkit.typing import typed

from .base import Head, starting_noise
from .gaussian import check_min_std, initial_std, positive_std
from .gaussian_mixture import GaussianMixture

__all__ = ["MixtureHead"]

# Initial share of the variance explained by the factors. At U = 0 its gradient would be zero.
_EXPLAINED = 0.1


class MixtureHead(Head):
    """A mixture of Gaussians, trained by maximum likelihood."""

    evaluations_per_sample = 1

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        components: int = 8,
        rank: int = 0,
        draws: int = 4,
        min_std: float = 0.01,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            components: Number of Gaussians.
            rank: Columns of each U; 0 for diagonal covariances.
            draws: Draws from the target per position in a training step.
            min_std: Floor of each sigma, for latents of unit variance.

        Raises:
            ValueError: If a number is out of range.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, components=components, draws=draws)
        if not 0 <= rank <= latent_size:
            raise ValueError(f"rank must be in [0, latent_size = {latent_size}]; got {rank}.")
        check_min_std(min_std)
        self.components = components
        self.rank = rank
        self.draws = draws
        self.min_std = min_std
        # Outputs per component: the weight's logit, mu, raw sigma, U row by row.
        self._splits = [1, latent_size, latent_size, latent_size * rank]
        self.network = ResidualMLP(
            cond_size, components * sum(self._splits), width=width, depth=depth
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as described above, with the exact variance of the fixed part."""
        self.network.reset_parameters()
        count, size, rank = self.components, self.latent_size, self.rank
        between = min(0.5, 1 / size) if count > 1 else 0.0
        explained = _EXPLAINED if rank > 0 else 0.0
        mean = torch.randn(count, size)
        mean = mean - mean.mean(dim=0)
        mean = mean * (between / 2 / mean.square().mean(dim=0).clamp_min(1e-12)).sqrt()
        std = torch.full((count, size), math.sqrt(1 - between - explained))
        factor = torch.randn(count, size, rank)
        factor = factor * math.sqrt(explained) / factor.norm(dim=-1, keepdim=True)
        output = self.network.output
        weight = torch.zeros(count, sum(self._splits), output.in_features)
        # The last hidden layer has unit mean square. Only weights and means depend on it
        # initially.
        nn.init.normal_(weight[:, : 1 + size], std=math.sqrt(between / 2 / output.in_features))
        bias = [torch.zeros(count, 1), mean, initial_std(std, self.min_std), factor.flatten(1)]
        with torch.no_grad():
            output.weight.copy_(weight.flatten(0, 1))
            output.bias.copy_(torch.cat(bias, dim=-1).flatten())

    @typed
    def distribution(self, cond: Float[Tensor, "*batch cond"]) -> GaussianMixture:
        """The predicted distribution of each position, in float32 at least."""
        self._check_cond(cond)
        output = self.network(cond)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        output = output.unflatten(-1, (self.components, sum(self._splits)))
        logit, mean, raw, factor = output.split(self._splits, dim=-1)
        return GaussianMixture(
            log_weights=logit.squeeze(-1).log_softmax(dim=-1),
            mean=mean,
            std=positive_std(raw, self.min_std),
            factor=factor.reshape(*mean.shape, self.rank),
        )

    @typed
    def log_prob(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Exact log-density of one vector per position, in nats."""
        return self.distribution(cond).log_prob(self._checked_latents(latents))

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "draws *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """Cross entropy with the target, in nats; see `GaussianMixture.cross_entropy`.

        Args:
            cond: Conditions.
            target: Distribution of the latents.
            noise: Standard normal noise of its draws.
        """
        return self.distribution(cond).cross_entropy(target, noise)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """-E log p(v | h) for v ~ target, without bias; see `Head.loss`."""
        target = self._checked_target(target)
        mean = target.mean
        noise = standard_normal(
            (self.draws, *mean.shape), generator, dtype=mean.dtype, device=mean.device
        )
        return self.loss_from(cond, target, noise)

    @typed
    def sample_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        uniform: Float[Tensor, "samples *batch"],
        noise: Float[Tensor, "samples *batch noise"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """Samples from given noise; see `GaussianMixture.sample_from`.

        Args:
            cond: Conditions.
            uniform: Draws from [0, 1), which select components.
            noise: Standard normal draws, `latent_size + rank` per sample.
        """
        return self.distribution(cond).sample_from(uniform, noise)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition; see `Head.sample`."""
        noise = starting_noise(cond, num_samples, self.latent_size + self.rank, generator)
        # In lower precision, components of small weight would never be selected.
        dtype = torch.promote_types(noise.dtype, torch.float32)
        uniform = standard_uniform(noise.shape[:-1], generator, dtype=dtype, device=noise.device)
        return self.sample_from(cond, uniform, noise)
