"""The contract of a generative head: a sampler for a conditional distribution over vectors.

A head does not depend on text. Its condition is any vector; its target is a latent vector or the
Gaussian posterior of an autoencoder.

All heads treat precision in the same way. A condition must have the dtype of the head's weights,
unless autocast lowers it. Targets and latents may have any dtype. They are converted to the
weights' dtype, or to float32 if that is wider. Noise and errors have this dtype too; only the
inputs of the network are rounded further. Losses and log-densities are at least float32, and
samples have the weights' dtype.
"""

import abc
import copy
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.distributions import DiagonalGaussian, Target, standard_normal
from calmkit.private_torch import runs_while_tracing
from calmkit.recording import Recorded, record_changes
from calmkit.typing import typed

__all__ = ["Head", "NoiseHead", "check_num_samples", "guided", "starting_noise"]

AnyHead = TypeVar("AnyHead", bound="Head")


class Head(nn.Module, Recorded, abc.ABC):
    """A conditional sampler of vectors that can be trained on examples.

    The constructor of a concrete head starts with `(cond_size, latent_size, *, ...)`, so that a
    config states shared sizes once.

    Attributes:
        cond_size: Features of the condition.
        latent_size: Dimensions of a sample.
        sampling_arguments: Names of the constructor arguments that change samples but not
            training. The head stores each in an attribute of the same name; `with_sampling`
            changes them in a trained head.
    """

    extra_repr = Recorded.extra_repr

    sampling_arguments: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, cond_size: int, latent_size: int) -> None:
        super().__init__()
        check_at_least(1, cond_size=cond_size, latent_size=latent_size)
        self.cond_size = cond_size
        self.latent_size = latent_size

    @property
    @abc.abstractmethod
    def evaluations_per_sample(self) -> int | None:
        """Network evaluations per sample; None if they depend on the data."""

    @abc.abstractmethod
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Training loss of each position, unreduced; lower is better.

        Args:
            cond: Conditions.
            target: The target distribution of each position; a tensor is a point mass.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the condition or target has the wrong size, or the condition the wrong
                dtype.
        """

    def start_from(self, target: Target, generator: torch.Generator | None = None) -> None:
        """Prepare an untrained head for latents like these; most heads need nothing.

        `calmkit train` and `compare` call it once, before the first step. A head that overrides
        it may set its parameters from the latents' law as a whole, without conditions.

        Args:
            target: Latents of some of the training text, each a Gaussian or a point.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the target has the wrong size, holds nothing, or is not finite.
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
            num_samples: Number of samples per position.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the condition has the wrong size or dtype, or the number of samples is
                negative.
        """

    def sample_guided(
        self,
        cond: Float[Tensor, "*batch cond"],
        null: Float[Tensor, " cond"],
        scale: float,
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw samples with classifier-free guidance, if supported; see `GuidedHead`.

        Args:
            cond: Conditions.
            null: The null condition.
            scale: Guidance scale; 1 is the conditional distribution.
            num_samples: Number of samples per position.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If this head does not support guidance.
        """
        raise ValueError(f"{type(self).__name__} cannot be guided; use scale = 0 or 1.")

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """The current sampling settings, by the argument names of `with_sampling`."""
        return {name: getattr(self, name) for name in sorted(self.sampling_arguments)}

    def with_sampling(self: AnyHead, **settings: Any) -> AnyHead:
        """The same head with other sampling settings.

        The weights are shared: training or moving one of the two heads trains or moves both. This
        head is not changed, and the new one is saved with its own settings.

        Args:
            settings: Values of `sampling_arguments`; the others are copied from this head.

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
        # Both share the dictionary of parameters, but a setting may be a module.
        vars(other)["_modules"] = dict(self._modules)
        for name, value in settings.items():
            setattr(other, name, value)
        other._check_sampling()
        record_changes(other, settings)
        return other

    def _check_sampling(self) -> None:
        """Check `sampling_arguments`; called by the constructor and `with_sampling`."""

    def _check_cond(self, cond: Tensor) -> None:
        if cond.shape[-1] != self.cond_size:
            raise ValueError(
                f"cond must have cond_size = {self.cond_size} features; got {cond.shape[-1]}."
            )
        own = self._dtype()
        if cond.dtype == own:
            return
        # Autocast lowers the inputs of its layers, except float64.
        lowered = torch.is_autocast_enabled(cond.device.type)
        if not lowered or torch.float64 in (cond.dtype, own):
            raise ValueError(
                f"cond must have the dtype of the head's weights, {own}; got {cond.dtype}. "
                f"Convert it, or the head by `head.to({cond.dtype})`."
            )

    def _checked_target(self, target: Target, cond: Tensor | None = None) -> DiagonalGaussian:
        """Check the size of the target and convert it to a Gaussian in the dtype of the loss.

        Args:
            target: The target.
            cond: The condition, if the target must be compared with it: a target of another
                batch is refused. It may be left out where a function under `@typed` receives
                tensors of both.
        """
        target = DiagonalGaussian.of(target)
        if cond is not None and cond.shape[:-1] != target.mean.shape[:-1]:
            raise ValueError(
                f"target must have the batch of cond, {tuple(cond.shape[:-1])}; "
                f"got {tuple(target.mean.shape[:-1])}."
            )
        if target.mean.shape[-1] != self.latent_size:
            raise ValueError(
                f"target must have latent_size = {self.latent_size} dimensions; "
                f"got {target.mean.shape[-1]}."
            )
        dtype = self._wide_dtype()
        return target.to(dtype)

    def _checked_latents(self, latents: Tensor) -> Tensor:
        """Check the size of latents and convert them to the dtype of densities."""
        if latents.shape[-1] != self.latent_size:
            raise ValueError(
                f"latents must have latent_size = {self.latent_size} dimensions; "
                f"got {latents.shape[-1]}."
            )
        return latents.to(self._wide_dtype())

    def _read(self, x: Tensor) -> Tensor:
        """Convert an input of the network to the dtype of the weights."""
        return x.to(self._dtype())

    @runs_while_tracing  # a change of the weights' dtype compiles anew
    def _dtype(self) -> torch.dtype:
        """The dtype of the weights; PyTorch's default for a head without weights."""
        weight = next(self.parameters(), None)
        return torch.get_default_dtype() if weight is None else weight.dtype

    def _wide_dtype(self) -> torch.dtype:
        return torch.promote_types(self._dtype(), torch.float32)


class NoiseHead(Head):
    """A head whose sample is a function of its condition and one vector of noise."""

    @abc.abstractmethod
    def sample_from(
        self, cond: Float[Tensor, "*batch cond"], noise: Float[Tensor, "samples *batch noise"], /
    ) -> Float[Tensor, "samples *batch latent"]:
        """The samples of given noise: the deterministic part of sampling."""

    def _sampling_noise(
        self, cond: Tensor, num_samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """The noise of new samples; by default standard normal."""
        return starting_noise(cond, num_samples, self.latent_size, generator)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw independent samples for each condition; see `Head.sample`."""
        self._check_cond(cond)
        return self.sample_from(cond, self._sampling_noise(cond, num_samples, generator))


def check_num_samples(num_samples: int) -> None:
    """Refuse a negative number of samples; zero gives an empty result."""
    check_at_least(0, num_samples=num_samples)


def guided(
    network: Callable[[Tensor], Tensor], cond: Tensor, null: Tensor, scale: float
) -> Tensor:
    """`(1 - scale) network(null) + scale network(cond)`, a function of the condition."""
    return torch.lerp(network(null.expand_as(cond)), network(cond), scale)


def starting_noise(
    like: Tensor, num_samples: int, size: int, generator: torch.Generator | None
) -> Tensor:
    """Standard normal noise (num_samples, *batch, size) in the dtype and on the device of `like`.

    Under autocast it is at least float32, so that a sampler accumulates its many small steps in
    that precision even if the condition is in bfloat16.
    """
    check_num_samples(num_samples)
    dtype = like.dtype
    if torch.is_autocast_enabled(like.device.type):
        dtype = torch.promote_types(dtype, torch.float32)
    shape = (num_samples, *like.shape[:-1], size)
    return standard_normal(shape, generator, dtype=dtype, device=like.device)
