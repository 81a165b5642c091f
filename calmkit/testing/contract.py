"""A contract: one promise that every part of a kind makes, and how it is put to the test.

A contract is written as a function whose name is the contract's and whose docstring begins with
the promise in one sentence:

    @contract()
    def positions_do_not_mix(trial: HeadTrial) -> None:
        '''Loss and samples of a position depend on its own condition and target only.'''

It calls the part through its trial, which remembers the last call, and states with `expect` what
must hold. What it raises, or what the part raises in it, is the failure.
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
        name: As users write it to exempt a part from it.
        sentence: The promise.
        run: Raises where a trial breaks the promise.
        applies: Why it does not apply to a trial; None if it does.
        searches: Whether it runs many examples of hypothesis; one that is exempt is then not run.
    """

    name: str
    sentence: str
    run: Callable[[Any], None]
    applies: Callable[[Any], str | None]
    searches: bool


class Broken(AssertionError):
    """A promise that does not hold.

    Attributes:
        seen: What the part did.
        expected: What it should have done.
        cause: What usually lies behind it.
    """

    def __init__(self, *, seen: str, expected: str, cause: str, told: str = "") -> None:
        """Compose the message.

        Args:
            seen: What the part did.
            expected: What it should have done.
            cause: What usually lies behind it.
            told: Both in one sentence, without its full stop; made of the two if empty.
        """
        super().__init__(told or f"{seen}; expected {expected}")
        self.seen = seen
        self.expected = expected
        self.cause = cause


def contract(
    *, applies: Callable[[Any], str | None] | None = None, searches: bool = False
) -> Callable[[Callable[[Any], None]], Contract]:
    """Make a contract of a function of a trial.

    Args:
        applies: Why it does not apply to a trial; it always does if None.
        searches: Whether it runs many examples of hypothesis.
    """

    def make(run: Callable[[Any], None]) -> Contract:
        sentence = inspect.cleandoc(run.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        return Contract(run.__name__, sentence, run, applies or _always, searches)

    return make


def expect(holds: object, *, seen: object, expected: object, cause: str) -> None:
    """State what must hold.

    Args:
        holds: Whether it does.
        seen: What the part did.
        expected: What it should have done.
        cause: What usually lies behind it.

    Raises:
        Broken: If it does not hold.
    """
    if not holds:
        raise Broken(seen=str(seen), expected=str(expected), cause=cause)


def _always(trial: object) -> str | None:
    return None
