"""Runs contracts on a part and collects the results."""

import functools
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import TypeCheckError

from calmkit import recording
from calmkit.testing.calls import name_of
from calmkit.testing.contract import Broken, Contract
from calmkit.testing.profiles import Profile
from calmkit.testing.report import Failure, Result
from calmkit.testing.suite import Suite
from calmkit.testing.trial import Trial, neutral

__all__ = ["PartUnderTest"]

# Files between a contract and the part: this package, and the wrapper of every constructor.
_OURS = (os.path.dirname(__file__), recording.__file__)


@dataclass(eq=False)
class PartUnderTest:
    """A factory, with the settings for running the contracts of its kind.

    The first contract of a suite requires that the part can be built and used. If it is broken,
    the others are not run, since they would report the same error.

    Attributes:
        suite: The contracts.
        factory: Builds the part.
        profile: How thorough the checks are.
        seed: The source of all randomness.
        exempt: Names of contracts that need not hold, with reasons.
        reported: Whether a failure was already reported.
        kept: Results that the trials of its contracts share.
    """

    suite: Suite
    factory: Callable[..., Any]
    profile: Profile
    seed: int
    exempt: dict[str, str]
    reported: bool = False
    kept: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse unknown names, missing reasons and the exemption of all contracts."""
        self.suite.check_names("exempt", self.exempt)
        for name, reason in self.exempt.items():
            if not reason:
                raise ValueError(f"exempt must give a reason for {name}; got {reason!r}.")
        if self.exempt.keys() >= {contract.name for contract in self.suite.contracts}:
            raise ValueError("exempt must leave something to run; it names every contract.")

    @functools.cached_property
    def first(self) -> tuple[Result, BaseException | None]:
        """The result of the first contract: whether the part can be built and used."""
        return self._run(self.suite.contracts[0])

    def run(self, contract: Contract) -> tuple[Result, BaseException | None]:
        """The result of one contract, and the error if it failed."""
        if contract is self.suite.contracts[0]:
            return self.first
        if self.first[0].status == "failed":
            reason = f"{self.first[0].name} is broken"
            return Result(contract.name, contract.sentence, "not run", reason), None
        return self._run(contract)

    def _run(self, contract: Contract) -> tuple[Result, BaseException | None]:
        start = time.perf_counter()
        reason = self.exempt.get(contract.name)
        if reason is not None and contract.searches:
            return Result(contract.name, contract.sentence, "exempt", reason), None
        trial, error = self.suite.trial(self.factory, self.profile, self.seed), None
        trial.kept = self.kept
        try:
            with neutral(self.seed):
                if (why := contract.applies(trial)) is not None and reason is None:
                    return Result(contract.name, contract.sentence, "does not apply", why), None
                if why is None:
                    contract.run(trial)
        except Exception as raised:
            error = _first_of(raised)
        seconds = time.perf_counter() - start
        if reason is None and error is None:
            return Result(contract.name, contract.sentence, "passed", seconds=seconds), None
        if reason is not None and error is not None:
            return Result(contract.name, contract.sentence, "exempt", reason, None, seconds), None
        failure = self._failure(contract, trial, error)
        result = Result(contract.name, contract.sentence, "failed", "", failure, seconds)
        return result, error

    def _failure(self, contract: Contract, trial: Trial, error: Exception | None) -> Failure:
        repeat = (
            f'check_part("{self.suite.kind}", {name_of(self.factory)}, '
            f'only=["{contract.name}"], profile="{self.profile.name}", seed={self.seed})'
        )
        if error is None:
            seen = "the contract holds, or does not apply; it is exempt: "
            seen += self.exempt[contract.name]
            expected = "a contract that is broken, where a part is exempt from it"
            cause = "the exemption is no longer needed: remove it"
        elif isinstance(error, Broken):
            seen, expected, cause = error.seen, error.expected, error.cause
        elif isinstance(error, TypeCheckError) and "return value" in str(error):
            seen = f"{_one_line(error)}{_place(error)}"
            expected = "a result of the shape and dtype that the annotation states"
            cause = "an axis is missing, summed away or flattened, or the dtype is another"
        else:
            seen, expected = f"{_one_line(error)}{_place(error)}", "no error"
            cause = (
                "the part refuses, or cannot handle, a call that every part of its kind must take"
            )
        return Failure(trial.last_call, seen, expected, cause, self.suite.docs, repeat)


def _first_of(error: Exception) -> Exception:
    """The error itself, or the first of a group: hypothesis groups flaky errors."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"


def _place(error: Exception) -> str:
    """The innermost line of the traceback outside this package and installed libraries."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*_OURS, "<")) and "site-packages" not in frame.filename:
            return f" (at {os.path.basename(frame.filename)}:{frame.lineno})"
    return ""
