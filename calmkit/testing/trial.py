"""A trial: the part under test, how it is built, called, and searched for a counterexample.

Nothing of the user's is changed: default dtype, random state and gradient mode are set for one
block and set back behind it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from calmkit.testing.calls import call_in_words
from calmkit.testing.profiles import Profile

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["Trial", "neutral"]

T = TypeVar("T")

# A number costs a fraction of an example, and few problems tell a slightly improper rule.
_NUMBERS_PER_EXAMPLE = 10


class Trial:
    """One part under test, in one run of one contract.

    Attributes:
        factory: Builds the part.
        profile: How thoroughly to look.
        seed: Where all randomness comes from.
        last_call: The last call of the part, in words.
    """

    def __init__(self, factory: Callable[..., Any], profile: Profile, seed: int) -> None:
        self.factory = factory
        self.profile = profile
        self.seed = seed
        self.last_call = "none"

    def generator(self, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of a number: the same for the same seed of the suite."""
        return torch.Generator(device).manual_seed(1_000_003 * self.seed + number)

    def call(self, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call the part, and remember the call."""
        self.last_call = call_in_words(function, arguments, keywords)
        return function(*arguments, **keywords)

    def search(
        self, strategy: "SearchStrategy[Any] | range", check: Callable[[Any], None]
    ) -> None:
        """Try a check on many examples; the smallest that fails is the one that is reported.

        Args:
            strategy: What examples look like. Of a range the first numbers are taken: where an
                example is only the seed of a problem there is nothing to search, and hypothesis
                would draw others in a process with other modules, whose constants it reads.
            check: Raises where an example fails.
        """
        if isinstance(strategy, range):
            for number in strategy[: _NUMBERS_PER_EXAMPLE * self.profile.examples]:
                with neutral(self.seed):
                    check(number)
            return
        import hypothesis

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=self.profile.examples,
            deadline=None,
            database=None,
            derandomize=False,
            report_multiple_bugs=False,
            print_blob=False,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )
        @hypothesis.given(strategy)
        def run(example: Any) -> None:
            with neutral(self.seed):
                check(example)

        run()


@contextmanager
def neutral(seed: int, dtype: torch.dtype = torch.float64) -> Iterator[None]:
    """A block with a default dtype, gradients and a seeded global generator; then as before.

    Args:
        seed: Of torch's global generator.
        dtype: The default dtype; float64 tells rounding from mistakes.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
