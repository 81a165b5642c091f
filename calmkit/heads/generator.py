r"""The one-step generator that `EnergyHead` and `DriftingHead` train: noise and state to a sample.

    e_0 = LN(W eps),  eps from `noise`, e.g. U[-1/2, 1/2];     c = LN(W' h)
    e <- e + block(e, c)   (depth times);           z = output(e)

A sample takes one network evaluation and has no density. The first linear layer of a block reads
the pair [LN(e); c]. Here it is split into W_e LN(e) + W_c c, and the second term is computed once
per position instead of once per sample: the same function with up to a sixth fewer operations.

In the published code the output is initialised to zero, so that all initial samples are equal.
Here the output starts with unit spread: for standardised latents, training starts from a
distribution of the right scale.

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from calmkit.bounds import check_at_least, check_in
from calmkit.nn import scaled_normal_
from calmkit.typing import typed

from .base import NoiseHead, check_num_samples, guided
from .noise import Noise, UniformNoise

__all__ = ["GeneratorHead"]

# sqrt(E silu(x)^2) for x ~ N(0, 1).
_SILU_SCALE = 0.596


class GeneratorHead(NoiseHead):
    """A sampler of one network evaluation; subclasses define the loss of its samples."""

    sampling_arguments = frozenset({"noise_scale"})

    evaluations_per_sample = 1

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
        noise_scale: float = 1.0,
    ) -> None:
        """Build the network; see `EnergyHead` for the arguments.

        Raises:
            ValueError: If a size or the noise scale is out of range.
        """
        super().__init__(cond_size, latent_size)
        check_at_least(1, width=width, depth=depth, noise_size=noise_size)
        self.noise_size = noise_size
        self.num_samples = num_samples
        self.noise = UniformNoise() if noise is None else noise
        if not isinstance(self.noise, Noise):
            raise ValueError(f"noise must be a Noise, such as GaussianNoise(); got {noise!r}.")
        self.noise_scale = noise_scale
        self._check_sampling()
        self.noise_embedding = nn.Linear(noise_size, width)
        self.noise_norm = nn.LayerNorm(width, eps=1e-6)
        self.cond_embedding = nn.Linear(cond_size, width)
        self.cond_norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(GeneratorBlock(width) for _ in range(depth))
        self.output_norm = nn.LayerNorm(width, eps=1e-6)
        self.output = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, latent_size)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise with unit spread of the output and small contributions of the blocks."""
        scaled_normal_(self)
        scaled_normal_(self.output[2], gain=1 / _SILU_SCALE)
        for block in self.blocks:
            scaled_normal_(cast(GeneratorBlock, block).down, gain=1 / math.sqrt(len(self.blocks)))

    def _check_sampling(self) -> None:
        check_in("[0, inf)", noise_scale=self.noise_scale)

    @typed
    def sample_from(
        self, cond: Float[Tensor, "*batch cond"], noise: Float[Tensor, "samples *batch noise"]
    ) -> Float[Tensor, "samples *batch latent"]:
        """The deterministic map from noise to samples.

        Args:
            cond: Conditions.
            noise: Draws from the head's noise.
        """
        self._check_cond(cond)
        cond = self.cond_norm(self.cond_embedding(cond))
        hidden = self.noise_norm(self.noise_embedding(self._read(noise)))
        for block in self.blocks:
            hidden = block(hidden, cond)
        return self._read(self.output(self.output_norm(hidden)))  # autocast leaves it lower

    @typed
    def sample_guided(
        self,
        cond: Float[Tensor, "*batch cond"],
        null: Float[Tensor, " cond"],
        scale: float,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Extrapolate from the unconditional to the conditional sample of the same noise."""
        noise = self._sampling_noise(cond, num_samples, generator)
        return guided(lambda c: self.sample_from(c, noise), cond, null, scale)

    def _sampling_noise(
        self, cond: Tensor, num_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        return self.noise_scale * self._draw(cond, num_samples, generator)

    def _draw(self, cond: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
        check_num_samples(num_samples)
        shape = (num_samples, *cond.shape[:-1], self.noise_size)
        return self.noise.draw(shape, generator, dtype=cond.dtype, device=cond.device)

    def _training_samples(self, cond: Tensor, generator: torch.Generator | None) -> Tensor:
        """N samples of each position, at noise scale 1."""
        return self.sample_from(cond, self._draw(cond, self.num_samples, generator))


class GeneratorBlock(nn.Module):
    """Gated residual MLP on the pair [LN(e); c], with c's part computed once per position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.from_hidden = nn.Linear(width, width, bias=False)
        self.from_cond = nn.Linear(width, width)
        self.inner = nn.Linear(width, width)
        self.gate_and_up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(width, width)

    @typed
    def forward(
        self, hidden: Float[Tensor, "samples *batch width"], cond: Float[Tensor, "*batch width"]
    ) -> Float[Tensor, "samples *batch width"]:
        """Add the block's branch to `hidden`."""
        x = silu(self.from_hidden(self.norm(hidden)) + self.from_cond(cond))
        x = silu(self.inner(x))
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return hidden + self.down(silu(gate) * up)
