"""The result of a contract, and the report of a part."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Failure", "Report", "Result", "Status"]

Status = Literal["passed", "failed", "exempt", "does not apply", "not run"]


@dataclass(frozen=True)
class Failure:
    """The details of a broken contract.

    Attributes:
        call: The call that broke it.
        seen: The observed behaviour.
        expected: The expected behaviour.
        cause: The usual cause.
        docs: The page that explains the contract.
        repeat: The line of code that repeats the check.
    """

    call: str
    seen: str
    expected: str
    cause: str
    docs: str
    repeat: str

    def __str__(self) -> str:
        """One line per attribute."""
        width = max(map(len, vars(self)))
        return "\n".join(f"  {name:<{width}}  {text}" for name, text in vars(self).items())


@dataclass(frozen=True)
class Result:
    """The result of one contract.

    Attributes:
        name: The contract's name.
        sentence: The promise.
        status: The outcome.
        reason: Why the contract is exempt, does not apply or was not run.
        failure: The details if it is broken.
        seconds: Duration of the check.
    """

    name: str
    sentence: str
    status: Status
    reason: str = ""
    failure: Failure | None = None
    seconds: float = 0.0

    def explain(self) -> str:
        """The failure in full."""
        text = f"{self.name}: {self.sentence}"
        return text if self.failure is None else f"{text}\n{self.failure}"


@dataclass(frozen=True)
class Report:
    """The results of one part.

    Attributes:
        kind: The kind of the part.
        part: Its name.
        profile: Name of the profile.
        seed: Seed of the run.
        results: One result per contract of the kind, in a fixed order.
    """

    kind: str
    part: str
    profile: str
    seed: int
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether some contract passed and none failed."""
        found = self.counts()
        return found["passed"] > 0 and found["failed"] == 0

    def counts(self) -> Counter[str]:
        """Number of results of each status."""
        return Counter(result.status for result in self.results)

    def failures(self) -> Iterator[Result]:
        """The results that failed."""
        return (result for result in self.results if result.status == "failed")

    def to_dict(self) -> dict[str, Any]:
        """The report as numbers, strings, lists and dictionaries."""
        return {**asdict(self), "results": list(map(asdict, self.results)), "passed": self.passed}

    def __str__(self) -> str:
        """A table, and each failure in full."""
        # Contracts that were not run, all for one reason, are only counted in the first line.
        shown = [result for result in self.results if result.status != "not run"]
        width, wide = (
            max((len(text) for text in texts), default=0)
            for texts in ([one.name for one in shown], [one.status for one in shown])
        )
        rows = [
            f"  {result.name:<{width}}  {result.status:<{wide}}  {result.reason}".rstrip()
            for result in shown
        ]
        counted = ", ".join(f"{count} {status}" for status, count in self.counts().items())
        if not self.counts()["passed"]:
            counted += "; nothing ran and passed, which is a failure"
        article = "an" if self.kind[0] in "aeiou" else "a"
        run = f"profile {self.profile}, seed {self.seed}"
        head = f"{self.part}, {article} {self.kind}, {run}: {counted}"
        return "\n".join([head, *rows, *(f"\n{x.explain()}" for x in self.failures())])
