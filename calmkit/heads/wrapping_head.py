"""What heads that wrap another one share: its sampling settings are settings of the whole."""

from typing import Any, TypeVar

import torch

from calmkit.distributions import Target
from calmkit.recording import Factory, record_changes

from .base import Head

__all__ = ["WrappingHead"]

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
