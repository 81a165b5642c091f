r"""Noise temperature: less noise into a sampler, and its samples concentrate.

A flow or a diffusion model turns Gaussian noise into a sample. In sampling, not in training, the
noise can be

    scaled,       x = c eps:                          variance c^2, `noise_scale` = c;
    truncated,    x = eps given |eps| <= r:           per dimension, `truncation` = r sigmas,

or both, c eps given |eps| <= r. Truncated noise is drawn by inversion: for u ~ U[-1, 1],

    eps = sqrt(2) erfinv(u erf(r / sqrt(2))).

Where noise maps to samples linearly, as for a Gaussian target, this is an exact temperature: the
density p becomes p^(1/c^2) up to a constant, and all standard deviations shrink by c. Elsewhere it
is not. If the target has several modes, c = 0 picks the sample of the mean noise, which may lie
anywhere between them, and the weights of the modes change in no simple way. A temperature of the
*decoded chunks*, exact for any head, is in `calmkit.sampling`.

Sources: Li et al., arXiv 2406.11838 (MAR), which scales the noise of each reverse step; truncation
as in Brock et al., arXiv 1809.11096, section 3.1.
"""

import math

import torch
from torch import Tensor

from calmkit.bounds import check_in, check_positive
from calmkit.distributions import standard_uniform

from .base import NoiseHead, check_num_samples, starting_noise

__all__ = ["TemperedHead"]


class TemperedHead(NoiseHead):
    """A head that samples from Gaussian noise; subclasses set the two attributes.

    Attributes:
        noise_scale: Factor on the noise of samples.
        truncation: Largest absolute value of the noise before scaling, in standard deviations;
            None if it is unbounded.
    """

    sampling_arguments = frozenset({"noise_scale", "truncation"})

    noise_scale: float
    truncation: float | None

    def _check_sampling(self) -> None:
        check_in("[0, inf)", noise_scale=self.noise_scale)
        if self.truncation is not None:
            check_positive(truncation=self.truncation)

    def _sampling_noise(
        self, cond: Tensor, num_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """Scaled and truncated noise, one vector per sample and position."""
        if self.truncation is None:
            noise = starting_noise(cond, num_samples, self.latent_size, generator)
        else:
            noise = self._truncated_noise(cond, num_samples, self.truncation, generator)
        return self.noise_scale * noise

    def _truncated_noise(
        self, cond: Tensor, num_samples: int, bound: float, generator: torch.Generator | None
    ) -> Tensor:
        check_num_samples(num_samples)
        shape = (num_samples, *cond.shape[:-1], self.latent_size)
        # In half precision the tails would be drawn from a handful of values.
        wide = torch.promote_types(cond.dtype, torch.float32)
        u = 2 * standard_uniform(shape, generator, dtype=wide, device=cond.device) - 1
        noise = math.sqrt(2) * torch.erfinv(u * math.erf(bound / math.sqrt(2)))
        noise = noise.clamp(-bound, bound)  # u = -1 and a bound of many sigmas give infinity
        return noise if torch.is_autocast_enabled(cond.device.type) else noise.to(cond.dtype)
