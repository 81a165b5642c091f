"""What came out: a result for each contract, and the report of a part."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Failure", "Report", "Result", "Status"]

Status = Literal["passed", "failed", "exempt", "does not apply", "not run"]


@dataclass(frozen=True)
class Failure:
    """How a contract was broken.

    Attributes:
        call: The call that broke it.
        seen: What the part did.
        expected: What it should have done.
        cause: What usually lies behind it.
        docs: The page that explains the contract.
        repeat: The line that repeats it.
    """

    call: str
    seen: str
    expected: str
    cause: str
    docs: str
    repeat: str

    def __str__(self) -> str:
        """One line for each."""
        width = max(map(len, vars(self)))
        return "\n".join(f"  {name:<{width}}  {text}" for name, text in vars(self).items())


@dataclass(frozen=True)
class Result:
    """What one contract came to.

    Attributes:
        name: The contract's name.
        sentence: The promise.
        status: What came of it.
        reason: Why it is exempt, does not apply or was not run.
        failure: How it was broken.
        seconds: How long that took.
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
        kind: What kind of part it is.
        part: Its name.
        profile: How thoroughly it was looked at.
        seed: What repeats the run.
        results: One for each contract of the kind, in a fixed order.
    """

    kind: str
    part: str
    profile: str
    seed: int
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether something ran and passed, and nothing failed."""
        found = self.counts()
        return found["passed"] > 0 and found["failed"] == 0

    def counts(self) -> Counter[str]:
        """How many results there are of each status."""
        return Counter(result.status for result in self.results)

    def failures(self) -> Iterator[Result]:
        """The results that failed."""
        return (result for result in self.results if result.status == "failed")

    def to_dict(self) -> dict[str, Any]:
        """All of it, as numbers, texts, lists and dictionaries."""
        return {**asdict(self), "results": list(map(asdict, self.results)), "passed": self.passed}

    def __str__(self) -> str:
        """A table, and each failure in full."""
        # All that was not run, for the same reason, is counted in the first line.
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
