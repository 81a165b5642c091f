"""What heads that wrap another one share: its sampling settings are settings of the whole."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from calmkit.distributions import Target
from calmkit.recording import Factory, check_factory, record_changes

from .base import Head

__all__ = ["WrappingHead", "inner_head"]

AnyWrapping = TypeVar("AnyWrapping", bound="WrappingHead")


class WrappingHead(Head):
    """Base of heads around another head.

    Attributes:
        head: The wrapped head.
    """

    head: Head

    @property
    def sampling_settings(self) -> dict[str, Any]:
        """The head's own settings and those of the wrapped head; its own come first."""
        own = super().sampling_settings
        return {**own, **self.head.sampling_settings, **own}

    def start_from(self, target: Target, generator: torch.Generator | None = None) -> None:
        """Prepare the wrapped head; see `Head.start_from`."""
        self.head.start_from(target, generator)

    def with_sampling(self: AnyWrapping, **settings: Any) -> AnyWrapping:
        """The same head with other settings of its own or of the wrapped head.

        Args:
            settings: Values of `sampling_settings`.

        Raises:
            ValueError: As in `Head.with_sampling`.
        """
        names = self.head.sampling_settings.keys() - self.sampling_arguments
        inside = {name: value for name, value in settings.items() if name in names}
        own = {name: value for name, value in settings.items() if name not in names}
        other = Head.with_sampling(self, **own)
        if inside:
            other._change_inside(inside)
            record_changes(other, {"head": Factory()})
        return other

    def _change_inside(self, settings: dict[str, Any]) -> None:
        """Give the wrapped head, which this copy shares with another one, other settings."""
        self.head = self.head.with_sampling(**settings)


def inner_head(head: Callable[[int, int], Head], cond_size: int, latent_size: int) -> Head:
    """The head that the argument `head` of a wrapping head builds.

    Args:
        head: Builds a head from both sizes.
        cond_size: Features of the condition.
        latent_size: Dimensions of a sample.

    Raises:
        ValueError: If it is no function, or builds something else than a head of these sizes.
    """
    check_factory(head=head)
    built = head(cond_size, latent_size)
    if not isinstance(built, Head):
        raise ValueError(
            "head must build a Head from cond_size and latent_size, and return it; "
            f"got {type(built).__name__}."
        )
    if (built.cond_size, built.latent_size) != (cond_size, latent_size):
        raise ValueError(
            f"head must build one of the sizes that it is given, cond_size = {cond_size} and "
            f"latent_size = {latent_size}; got {built.cond_size} and {built.latent_size}."
        )
    return built
