"""The interface of a diagnostic: numbers, whether they are bad, and what a bad value means.

The limits are rules of thumb; each diagnostic states its limit with a reason. They suggest where
to look and prove nothing.
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
        """The numbers, in one phrase."""

    @property
    @abc.abstractmethod
    def meaning(self) -> str:
        """The meaning of a bad value, and a remedy."""

    @property
    def verdict(self) -> str:
        """One line: `ok` or `BAD`, the numbers, and the meaning of a bad value."""
        return f"{'BAD' if self.is_bad else 'ok '}  {self.summary}. Bad means: {self.meaning}."
