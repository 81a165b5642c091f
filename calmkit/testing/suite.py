"""A suite: the contracts of one kind of part."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from calmkit.spelling import did_you_mean
from calmkit.testing.contract import Contract
from calmkit.testing.profiles import Profile
from calmkit.testing.trial import Trial

__all__ = ["Suite", "contracts_of"]


@dataclass(frozen=True)
class Suite:
    """The contracts that every part of a kind must fulfil.

    Attributes:
        kind: The kind's name, as users write it.
        trial: Creates a trial from a factory, a profile and a seed.
        contracts: The contracts; the first requires that the part can be built and used.
        docs: The page that explains them.
    """

    kind: str
    trial: Callable[[Callable[..., Any], Profile, int], Trial]
    contracts: tuple[Contract, ...]
    docs: str

    def only(self, names: set[str]) -> tuple[Contract, ...]:
        """The contracts of these names, in the suite's order.

        Raises:
            ValueError: If there is no name, or an unknown one.
        """
        if not names:
            raise ValueError("only must name at least one contract; got none.")
        self.check_names("only", sorted(names))
        return tuple(contract for contract in self.contracts if contract.name in names)

    def check_names(self, argument: str, names: Iterable[str]) -> None:
        """Refuse the first name that no contract has, with the name that was probably meant.

        Args:
            argument: The argument that holds the names.
            names: The names.

        Raises:
            ValueError: If there is such a name.
        """
        known = [contract.name for contract in self.contracts]
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{argument} must name contracts of the kind {self.kind}; {name!r} is none."
                    f"{did_you_mean(name, known)} There are: {', '.join(known)}."
                )


def contracts_of(*modules: ModuleType) -> tuple[Contract, ...]:
    """All contracts that modules define, in the order of their definition."""
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Contract)
    )
