"""A suite: the contracts of one kind of part."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from calmkit.testing.contract import Contract
from calmkit.testing.profiles import Profile
from calmkit.testing.trial import Trial

__all__ = ["Suite", "contracts_of"]


@dataclass(frozen=True)
class Suite:
    """What every part of a kind promises.

    Attributes:
        kind: The kind's name, as users write it.
        trial: Makes a trial of a factory, a profile and a seed.
        contracts: The promises; the first is that the part can be built and used at all.
        docs: The page that explains them.
    """

    kind: str
    trial: Callable[[Callable[..., Any], Profile, int], Trial]
    contracts: tuple[Contract, ...]
    docs: str

    def only(self, names: set[str]) -> tuple[Contract, ...]:
        """The contracts of these names, in the suite's order.

        Raises:
            ValueError: If there is no name, or one that is none of theirs.
        """
        if not names:
            raise ValueError("only must name at least one contract; got none.")
        known = [contract.name for contract in self.contracts]
        if unknown := sorted(names - set(known)):
            raise ValueError(
                f"only must name contracts of the kind {self.kind}; {unknown[0]!r} is none. "
                f"There are: {', '.join(known)}."
            )
        return tuple(contract for contract in self.contracts if contract.name in names)


def contracts_of(*modules: ModuleType) -> tuple[Contract, ...]:
    """Every contract that modules define, in the order in which it stands there."""
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Contract)
    )
