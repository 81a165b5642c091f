r"""Blockwise head: the latent in blocks, each predicted from the condition and the blocks before.

    p(z | h) = prod_b p_b(z_b | h_b),    h_b = h + W_b z_<b,    h_1 = h,

where the z_b are consecutive blocks of equal size, and each p_b is a head of its own. By the chain
rule this describes every law whose blocks the inner heads can describe, given those before.

*Why.* A head that chooses among n places, such as `TiedMixtureHead`, covers one token with n =
vocabulary places, but a chunk of K tokens has n^K. If each token has its own part of the latent
(`TokenwiseAutoencoder`), a head per token chooses among n places at a time.

*Training.* Every block reads the true blocks before it, drawn once per position from the target:

    loss = sum_b loss_b(h_b(v_<b), target_b),    v ~ target.

The dimensions of a target are independent: v_<b says nothing about target_b, and the loss is an
unbiased estimate. If the loss_b are -E log p_b, the sum is -E log p(v | h). W_b starts at zero, so
that all heads first see the condition at its own scale.

*Sampling* draws one block after another, so that its evaluations are those of all inner heads.

Source: the chain rule; as a network that is trained so, Uria et al., "Neural autoregressive
distribution estimation", arXiv 1605.02226.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.distributions import DiagonalGaussian, Target
from calmkit.recording import built_by
from calmkit.typing import typed

from .base import Head
from .tied_mixture import TiedMixtureHead
from .wrapping_head import WrappingHead

__all__ = ["BlockwiseHead"]


class BlockwiseHead(WrappingHead):
    """One head for each block of dimensions, which reads the blocks before it.

    Attributes:
        heads: The head of each block. A sampling setting is one of all of them.
    """

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        head: Callable[[int, int], Head] | None = None,
        blocks: int = 2,
    ) -> None:
        """Build the heads and what they read of earlier blocks.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            head: Builds the head of a block from `cond_size` and the dimensions of a block; called
                once per block. A `TiedMixtureHead` if None.
            blocks: Number of blocks.

        Raises:
            ValueError: If the blocks do not divide the dimensions, or `head` does not build heads
                of these sizes.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, blocks=blocks)
        if latent_size % blocks != 0:
            raise ValueError(f"blocks must divide latent_size = {latent_size}; got {blocks}.")
        self.blocks = blocks
        self.block_size = latent_size // blocks
        make = TiedMixtureHead if head is None else head
        self.heads = nn.ModuleList(
            built_by("head", make, Head, cond_size=cond_size, latent_size=self.block_size)
            for _ in range(blocks)
        )
        self.from_earlier = nn.ModuleList(
            nn.Linear(before * self.block_size, cond_size) for before in range(1, blocks)
        )
        for parameter in self.from_earlier.parameters():
            nn.init.zeros_(parameter)

    @property
    def head(self) -> Head:  # pyrefly: ignore[bad-override]
        """The head of the first block; the others are built in the same way."""
        return self._heads[0]

    @property
    def evaluations_per_sample(self) -> int | None:
        """The sum over the heads; None if one of them does not know."""
        total = 0
        for head in self._heads:
            count = head.evaluations_per_sample
            if count is None:
                return None
            total += count
        return total

    def start_from(self, target: Target, generator: torch.Generator | None = None) -> None:
        """Prepare each head for its part of the latents; see `Head.start_from`."""
        for head, part in self._parts(self._checked_target(target)):
            head.start_from(part, generator)

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        latents: Float[Tensor, "*batch latent"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The sum of the heads' losses, given the latents whose earlier blocks they read.

        Args:
            cond: Conditions.
            target: The target of each position.
            latents: A draw v from each target.
            generator: Source of randomness of the heads; torch's global one if None.
        """
        losses = [
            head.loss(self._cond(cond, latents, block), part, generator)
            for block, (head, part) in enumerate(self._parts(target))
        ]
        return torch.stack(losses).sum(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Sum of the heads' losses, each given the true earlier blocks; see `Head.loss`."""
        self._check_cond(cond)
        target = self._checked_target(target, cond)
        return self.loss_from(cond, target, target.sample(1, generator)[0], generator)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw block after block; see `Head.sample`."""
        self._check_cond(cond)
        first, *others = self._heads
        latents = first.sample(cond, num_samples, generator)
        for block, head in enumerate(others, start=1):
            # Each sample of the earlier blocks makes a condition of its own.
            drawn = head.sample(self._cond(cond, latents, block), 1, generator)[0]
            latents = torch.cat([latents, drawn], dim=-1)
        return latents

    @property
    def log_prob(self) -> Callable[[Tensor, Tensor], Tensor]:
        """`log_prob(cond, latents)`: the sum of the heads' log-densities, in nats.

        Raises:
            AttributeError: If the heads have no density; `hasattr` is then False.
        """
        if not hasattr(self.head, "log_prob"):
            raise AttributeError("log_prob")
        return self._log_prob

    def __getattr__(self, name: str) -> Any:
        """As of any module, but a missing density is explained."""
        if name == "log_prob":  # nn.Module would replace the error of the property
            raise AttributeError(
                f"log_prob of BlockwiseHead is the sum of its heads'; {type(self.head).__name__} "
                "has none. Give it heads with a density."
            )
        return super().__getattr__(name)

    @typed
    def _log_prob(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        self._check_cond(cond)
        latents = self._checked_latents(latents)
        parts = latents.split(self.block_size, dim=-1)
        densities = [cast(Callable[..., Tensor], head.log_prob) for head in self._heads]
        logs = [
            density(self._cond(cond, latents, block), part)
            for block, (density, part) in enumerate(zip(densities, parts, strict=True))
        ]
        return torch.stack(logs).sum(dim=0)

    def _cond(self, cond: Tensor, latents: Tensor, block: int) -> Tensor:
        """h_b; the latents may have more batch axes in front."""
        if block == 0:
            return cond
        earlier = latents[..., : block * self.block_size]
        return cond + self.from_earlier[block - 1](self._read(earlier))

    @property
    def _heads(self) -> list[Head]:
        return [cast(Head, head) for head in self.heads]

    def _parts(self, target: DiagonalGaussian) -> list[tuple[Head, DiagonalGaussian]]:
        """Each head with its part of the target."""
        means, stds = (x.split(self.block_size, dim=-1) for x in (target.mean, target.std))
        parts = map(DiagonalGaussian, means, stds)
        return list(zip(self._heads, parts, strict=True))

    def _change_inside(self, settings: dict[str, Any]) -> None:
        self.heads = nn.ModuleList(head.with_sampling(**settings) for head in self._heads)
