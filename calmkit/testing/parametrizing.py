"""`parametrize_contracts`: a part's suite as tests of pytest, one for each contract."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calmkit.testing.contract import Contract
from calmkit.testing.kinds import suite_of
from calmkit.testing.profiles import profile_named
from calmkit.testing.running import PartUnderTest

if TYPE_CHECKING:
    from pytest import MarkDecorator

__all__ = ["parametrize_contracts"]

_NOTHING: Mapping[str, str] = {}


def parametrize_contracts(
    kind: str,
    parts: Mapping[str, Callable[..., Any]],
    *,
    exempt: Mapping[str, str] = _NOTHING,
    profile: str = "standard",
    seed: int = 0,
) -> "MarkDecorator":
    """Decorate a test function of one argument, `check`, which it calls.

    Args:
        kind: As for `check_part`.
        parts: Factories by the name of the part, which is the first half of a test's id.
        exempt: Names of contracts that need not hold, each with the reason: for every part, or
            as `part/contract` for one.
        profile: `quick`, `standard` or `deep`.
        seed: The same seed repeats a run.

    Raises:
        ValueError: If a kind, a profile, a part or the name of a contract is unknown, there is no
            part, or nothing would be left to run.
        ImportError: If hypothesis or pytest is not installed.
    """
    import pytest

    suite = suite_of(kind)
    if not parts:
        raise ValueError("parts must hold at least one part; got none.")
    for name in exempt:
        part, slash, _ = name.rpartition("/")
        if slash and part not in parts:
            raise ValueError(
                f"exempt must name parts that there are; {part!r} is none of {', '.join(parts)}."
            )
    checks = []
    for part, factory in parts.items():
        # A name of its own goes before that of all.
        reasons = {name: reason for name, reason in exempt.items() if "/" not in name} | {
            name.rpartition("/")[2]: reason
            for name, reason in exempt.items()
            if name.rpartition("/")[0] == part and "/" in name
        }
        under_test = PartUnderTest(suite, factory, profile_named(profile), seed, reasons)
        checks += [
            pytest.param(_Check(under_test, contract), id=f"{part}-{contract.name}")
            for contract in suite.contracts
        ]
    return pytest.mark.parametrize("check", checks)


@dataclass(frozen=True, eq=False)
class _Check:
    """One contract of one part, as pytest sees it."""

    part: PartUnderTest
    contract: Contract

    def __call__(self) -> None:
        """Pass, fail, or end as skipped or as an expected failure."""
        __tracebackhide__ = True
        import pytest

        result, error = self.part.run(self.contract)
        if result.status == "not run" and not self.part.told:
            # Run alone: whoever chose this test has seen no other one fail.
            result, error = self.part.first
        if result.status == "failed":
            self.part.told = True
            raise AssertionError(result.explain()) from error
        if result.status == "exempt":
            pytest.xfail(result.reason)
        if result.status in ("does not apply", "not run"):
            pytest.skip(f"{result.status}: {result.reason}")
