"""A contract: one promise of every part of a kind, with its test.

A contract is written as a function with the contract's name. Its docstring starts with the promise
in one sentence:

    @contract()
    def positions_do_not_mix(trial: HeadTrial) -> None:
        '''Loss and samples of a position depend on its own condition and target only.'''

The function calls the part through its trial, which records the last call, and states its
conditions with `expect`. Any error that it or the part raises is a failure.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Broken", "Contract", "contract", "expect"]


@dataclass(frozen=True)
class Contract:
    """One promise.

    Attributes:
        name: Its name, as used for exemptions.
        sentence: The promise.
        run: Raises an error if a trial breaks the promise.
        applies: Returns the reason why it does not apply to a trial; None if it applies.
        searches: Whether it runs many hypothesis examples; such a contract is skipped if exempt.
    """

    name: str
    sentence: str
    run: Callable[[Any], None]
    applies: Callable[[Any], str | None]
    searches: bool


class Broken(AssertionError):
    """A broken promise.

    Attributes:
        seen: The observed behaviour.
        expected: The expected behaviour.
        cause: The usual cause.
    """

    def __init__(self, *, seen: str, expected: str, cause: str, message: str = "") -> None:
        """Compose the message.

        Args:
            seen: The observed behaviour.
            expected: The expected behaviour.
            cause: The usual cause.
            message: Both in one sentence, without its full stop; composed of both if empty.
        """
        super().__init__(message or f"{seen}; expected {expected}")
        self.seen = seen
        self.expected = expected
        self.cause = cause


def contract(
    *, applies: Callable[[Any], str | None] | None = None, searches: bool = False
) -> Callable[[Callable[[Any], None]], Contract]:
    """Decorate a function of a trial as a contract.

    Args:
        applies: Returns the reason why it does not apply to a trial; it always applies if None.
        searches: Whether it runs many hypothesis examples.
    """

    def make(run: Callable[[Any], None]) -> Contract:
        sentence = inspect.cleandoc(run.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        return Contract(run.__name__, sentence, run, applies or _always, searches)

    return make


def expect(holds: object, *, seen: object, expected: object, cause: str) -> None:
    """Require a condition.

    Args:
        holds: The condition.
        seen: The observed behaviour.
        expected: The expected behaviour.
        cause: The usual cause.

    Raises:
        Broken: If the condition is false.
    """
    if not holds:
        raise Broken(seen=str(seen), expected=str(expected), cause=cause)


def _always(trial: object) -> str | None:
    return None
