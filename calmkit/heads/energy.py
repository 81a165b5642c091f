r"""Energy head: a one-step generator trained with a strictly proper scoring rule.

N samples of each position are scored against its target, by default with the energy score

    1/N sum_n E||z_n - v|| - 1/(N (N-1)) sum_{n < k} ||z_n - z_k||,    v ~ target.

Neither a density nor iterative sampling is needed. The network is that of `generator`.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import Target
from calmkit.scoring import EnergyScore, ScoringRule
from calmkit.typing import typed

from .generator import GeneratorHead
from .noise import Noise

__all__ = ["EnergyHead"]


class EnergyHead(GeneratorHead):
    """A one-step generator trained with a scoring rule."""

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        noise_size: int = 64,
        num_samples: int = 8,
        noise: Noise | None = None,
        rule: ScoringRule | None = None,
        noise_scale: float = 1.0,
    ) -> None:
        """Build the network.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            noise_size: Dimensions of the noise.
            num_samples: N, samples per position in training; at least the rule's minimum.
            noise: Noise distribution; uniform on [-1/2, 1/2] as published if None.
            rule: Scoring rule to minimise; the energy score with alpha = 1 if None.
            noise_scale: Factor on the noise of samples; it is 1 in training. Below 1 samples
                concentrate; at 0 they are equal. The norm after the noise embedding removes most
                of the effect until the noise is small compared with that embedding's bias.

        Raises:
            ValueError: If a size or the noise scale is out of range, or the rule is none.
        """
        super().__init__(
            cond_size,
            latent_size,
            width=width,
            depth=depth,
            noise_size=noise_size,
            num_samples=num_samples,
            noise=noise,
            noise_scale=noise_scale,
        )
        self.rule = EnergyScore() if rule is None else rule
        if not isinstance(self.rule, ScoringRule):
            raise ValueError(f"rule must be a ScoringRule, such as EnergyScore(); got {rule!r}.")
        if num_samples < self.rule.min_samples:
            raise ValueError(
                f"num_samples must be at least {self.rule.min_samples} for "
                f"{type(self.rule).__name__} to be unbiased; got {num_samples}."
            )

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Score of N samples of each position, under the head's rule; see `Head.loss`."""
        target = self._checked_target(target)
        return self.rule.score(self._training_samples(cond, generator), target, generator)
