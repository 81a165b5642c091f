"""What a diagnostic is: numbers, whether they are bad, and what that would mean.

Limits that make a number bad are rules of thumb, stated with their reasons beside each
diagnostic. They point at a place to look; they prove nothing.
"""

import abc

__all__ = ["Diagnostic"]


class Diagnostic(abc.ABC):
    """One measured property of a model. Concrete ones are frozen dataclasses of its numbers."""

    @property
    @abc.abstractmethod
    def is_bad(self) -> bool:
        """Whether the numbers are on the wrong side of their limit."""

    @property
    @abc.abstractmethod
    def summary(self) -> str:
        """The numbers, in half a line."""

    @property
    @abc.abstractmethod
    def meaning(self) -> str:
        """What a bad value means, and what to do."""

    @property
    def verdict(self) -> str:
        """One line: `ok` or `BAD`, the numbers, and what a bad value means."""
        return f"{'BAD' if self.is_bad else 'ok '}  {self.summary}. Bad means: {self.meaning}."
