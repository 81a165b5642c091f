"""The contract of a generative head: a conditional distribution over vectors, as a sampler.

A head knows nothing of text. Its condition is any vector, its target any latent vector or the
Gaussian that an autoencoder gives for one.

Precision, for all heads alike: a condition must have the dtype of the head's weights, or be one
that autocast lowers. Targets and latents may have any: they are taken to the weights' dtype, or to
float32 if that is wider. Noise is drawn and errors are measured in it; only what the network reads
is rounded further. Losses and log-densities have float32 at least, samples the weights' dtype.
"""

import abc
import copy
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.distributions import DiagonalGaussian, standard_normal
from calmkit.recording import Recorded, record_changes

__all__ = ["Head", "check_num_samples", "guided", "starting_noise"]

AnyHead = TypeVar("AnyHead", bound="Head")


class Head(nn.Module, Recorded, abc.ABC):
    """Conditional sampler of vectors that can be trained on examples.

    A concrete head's constructor starts `(cond_size, latent_size, *, ...)`, so that a config
    states shared sizes once.

    Attributes:
        cond_size: Features of the condition.
        latent_size: Dimensions of a sample.
        sampling_arguments: Names of the constructor arguments that change samples but not
            training. The head keeps each in an attribute of the same name; `with_sampling` gives
            a trained head other values.
    """

    sampling_arguments: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, cond_size: int, latent_size: int) -> None:
        super().__init__()
        check_at_least(1, cond_size=cond_size, latent_size=latent_size)
        self.cond_size = cond_size
        self.latent_size = latent_size

    @property
    @abc.abstractmethod
    def evaluations_per_sample(self) -> int | None:
        """How often the network runs to draw one sample; None where that depends on the data."""

    @abc.abstractmethod
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Training loss of each position, unreduced; lower is better.

        Args:
            cond: Conditions.
            target: What a sample should look like, as a distribution per position.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If condition or target has another size than the head was built for, or
                the condition another dtype.
        """

    @abc.abstractmethod
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition.

        Args:
            cond: Conditions.
            num_samples: Number of samples of each position.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the condition has another size or dtype than the head, or the number of
                samples is negative.
        """

    def sample_guided(
        self,
        cond: Float[Tensor, "*batch cond"],
        null: Float[Tensor, " cond"],
        scale: float,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw samples with classifier-free guidance, where a head can; see `GuidedHead`.

        Args:
            cond: Conditions.
            null: The condition that stands for none.
            scale: Weight of the condition: 1 is the conditional law.
            num_samples: Number of samples of each position.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If this head has no guidance.
        """
        raise ValueError(f"{type(self).__name__} cannot be guided; use scale = 0 or 1.")

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """What the head samples with, by the names that `with_sampling` takes."""
        return {name: getattr(self, name) for name in sorted(self.sampling_arguments)}

    def with_sampling(self: AnyHead, **settings: Any) -> AnyHead:
        """The same head with other settings of sampling.

        The weights are shared: training or moving one of the two heads trains or moves both. This
        head stays as it is, and the new one is saved with its own settings.

        Args:
            settings: Values of `sampling_arguments`; those not named are this head's.

        Raises:
            ValueError: If the head has no such setting, or refuses the value.
        """
        if unknown := settings.keys() - self.sampling_settings.keys():
            allowed = ", ".join(self.sampling_settings) or "none"
            raise ValueError(
                f"{min(unknown)} must be one of the settings that {type(self).__name__} samples "
                f"with: {allowed}. Give any other argument to the constructor."
            )
        other = copy.copy(self)
        # One dictionary of parameters for both, but room for a setting that is a module.
        vars(other)["_modules"] = dict(self._modules)
        for name, value in settings.items():
            setattr(other, name, value)
        other._check_sampling()
        record_changes(other, settings)
        return other

    def _check_sampling(self) -> None:
        """Refuse values of `sampling_arguments`; for the constructor, and for `with_sampling`."""

    def _check_cond(self, cond: Tensor) -> None:
        if cond.shape[-1] != self.cond_size:
            raise ValueError(
                f"cond must have cond_size = {self.cond_size} features; got {cond.shape[-1]}."
            )
        own = self._dtype()
        if cond.dtype == own:
            return
        # Autocast lowers what its layers read, float64 aside.
        lowered = torch.is_autocast_enabled(cond.device.type)
        if not lowered or torch.float64 in (cond.dtype, own):
            raise ValueError(
                f"cond must have the dtype of the head's weights, {own}; got {cond.dtype}. "
                f"Convert it, or the head by `head.to({cond.dtype})`."
            )

    def _checked_target(self, target: DiagonalGaussian) -> DiagonalGaussian:
        """The target in the dtype that losses are computed in, once its size is found right."""
        if target.mean.shape[-1] != self.latent_size:
            raise ValueError(
                f"target must have latent_size = {self.latent_size} dimensions; "
                f"got {target.mean.shape[-1]}."
            )
        dtype = self._wide_dtype()
        return DiagonalGaussian(target.mean.to(dtype), target.std.to(dtype))

    def _checked_latents(self, latents: Tensor) -> Tensor:
        """Latents in the dtype that densities are computed in, once their size is found right."""
        if latents.shape[-1] != self.latent_size:
            raise ValueError(
                f"latents must have latent_size = {self.latent_size} dimensions; "
                f"got {latents.shape[-1]}."
            )
        return latents.to(self._wide_dtype())

    def _read(self, x: Tensor) -> Tensor:
        """In the dtype of the weights, as the network must have its inputs."""
        return x.to(self._dtype())

    def _dtype(self) -> torch.dtype:
        """Of the weights; PyTorch's default for a head that has none."""
        weight = next(self.parameters(), None)
        return torch.get_default_dtype() if weight is None else weight.dtype

    def _wide_dtype(self) -> torch.dtype:
        return torch.promote_types(self._dtype(), torch.float32)


def check_num_samples(num_samples: int) -> None:
    """Refuse a negative number of samples; none at all is an empty result."""
    check_at_least(0, num_samples=num_samples)


def guided(
    network: Callable[[Tensor], Tensor], cond: Tensor, null: Tensor, scale: float
) -> Tensor:
    """`(1 - scale) network(null) + scale network(cond)`, a function of the condition."""
    return torch.lerp(network(null.expand_as(cond)), network(cond), scale)


def starting_noise(
    like: Tensor, num_samples: int, size: int, generator: torch.Generator | None
) -> Tensor:
    """Normal noise (num_samples, *batch, size), in dtype and on the device of `like`.

    Under autocast it has float32 at least: a sampler that starts from it then adds up its many
    small steps in that precision, also if the condition came out of a layer in bfloat16.
    """
    check_num_samples(num_samples)
    dtype = like.dtype
    if torch.is_autocast_enabled(like.device.type):
        dtype = torch.promote_types(dtype, torch.float32)
    shape = (num_samples, *like.shape[:-1], size)
    return standard_normal(shape, generator, dtype=dtype, device=like.device)
