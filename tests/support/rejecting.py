"""How the suites themselves are tested: by parts that are broken on purpose."""

import inspect

from calmkit.testing import check_part
from calmkit.testing.kinds import suite_of


def failure_of(kind, factory, contract, profile="quick"):
    """How a part breaks one contract; it must be usable, and break it."""
    report = check_part(kind, factory, only=[contract], profile=profile)
    (result,) = report.results
    assert result.status == "failed", f"{contract} does not reject it: {result.status}"
    return result


def assert_rejected(kind, factory, contract, words, profile="quick"):
    """The failure names the call, and says what was seen in words of the mutant's own."""
    result = failure_of(kind, factory, contract, profile)
    assert words in result.explain(), result.explain()
    assert result.failure.cause and result.failure.expected
    assert result.sentence.endswith("."), result.sentence


def assert_accepted(kind, factory, profile="quick", exempt=()):
    """All that applies passes, but for what the part is exempt from."""
    report = check_part(kind, factory, profile=profile, exempt=dict.fromkeys(exempt, "on purpose"))
    assert report.passed, str(report)


def mutants_of(table):
    """(contract, name, factory, words) of a table {contract: {factory: words}}."""
    for contract, mutants in table.items():
        for factory, words in mutants.items():
            name = factory.__name__ if inspect.isclass(factory) else factory.__qualname__
            yield contract, name, factory, words


def contracts_with_too_few(kind, table, least=3):
    """Contracts of a kind that not enough mutants break, and names that are none."""
    names = {contract.name for contract in suite_of(kind).contracts}
    few = {name for name in names if len(table.get(name, ())) < least}
    return few | (set(table) - names)
