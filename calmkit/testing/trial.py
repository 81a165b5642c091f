"""A trial: the part under test, how it is built, called, and searched for a counterexample.

Nothing of the user's is changed, and nothing of the user's changes a result: default dtype and
device, random state and gradient mode are set for one block and set back behind it.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from calmkit.testing.calls import call_in_words
from calmkit.testing.contract import expect
from calmkit.testing.profiles import Profile

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
        kept: What the contracts of one part share: a training need not be repeated for each.
    """

    def __init__(self, factory: Callable[..., Any], profile: Profile, seed: int) -> None:
        self.factory = factory
        self.profile = profile
        self.seed = seed
        self.last_call = "none"
        self.kept: dict[str, Any] = {}

    def generator(self, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator of a number: the same for the same seed of the suite."""
        return torch.Generator(device).manual_seed(1_000_003 * self.seed + number)

    def call(self, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call the part, and remember the call."""
        self.last_call = call_in_words(function, arguments, keywords)
        return function(*arguments, **keywords)

    def built(self, base: type[T], *sizes: Any, number: int = 0, **keywords: Any) -> T:
        """What the factory builds; two of one number are equal.

        Args:
            base: The class it must derive from.
            sizes: What the factory is called with.
            number: Seeds torch's global generator, from which weights are drawn.
            keywords: What else it is called with.
        """
        torch.manual_seed(1_000_003 * self.seed + number)
        part = self.call(self.factory, *sizes, **keywords)
        room = ".".join(base.__module__.split(".")[:2])
        expect(
            isinstance(part, base),
            seen=f"a {type(part).__name__}",
            expected=f"a subclass of {room}.{base.__name__}",
            cause="the factory returns something else, or the class does not derive from it",
        )
        return part

    def takes(self, keyword: str) -> bool:
        """Whether the factory has a parameter of this name."""
        try:
            return keyword in inspect.signature(self.factory).parameters
        except (TypeError, ValueError):
            return False

    def each_of(self, numbers: range, check: Callable[[int], None]) -> None:
        """Try a check on the first of some numbers, more of them in a deeper profile.

        Where an example is only the seed of a problem there is nothing to search, and hypothesis
        would draw others in a process with other modules, whose constants it reads.
        """
        for number in numbers[: _NUMBERS_PER_EXAMPLE * self.profile.examples]:
            with neutral(self.seed):
                check(number)

    def search(
        self, examples: Callable[[Any], Any], check: Callable[[Any], None], *, most: int = 2_000
    ) -> None:
        """Try a check on many examples; the smallest that fails is the one that is reported.

        Args:
            examples: From the module `hypothesis.strategies`, which is imported only here, to the
                strategy that draws them.
            check: Raises where an example breaks the contract.
            most: How many to try, if the profile has more.
        """
        import hypothesis
        from hypothesis import strategies

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=min(most, self.profile.examples),
            deadline=None,
            database=None,
            derandomize=False,
            report_multiple_bugs=False,
            print_blob=False,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck),
            verbosity=hypothesis.Verbosity.quiet,
        )
        @hypothesis.given(examples(strategies))
        def run(example: Any) -> None:
            with neutral(self.seed):
                check(example)

        run()


@contextmanager
def neutral(seed: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Iterator[None]:
    """A block with a default dtype and device, gradients and a seeded global generator.

    Args:
        seed: Of torch's global generator.
        dtype: The default dtype; float64 tells rounding from mistakes.
        device: The default device.
    """
    before, place = torch.get_default_dtype(), torch.get_default_device()
    moved = place != torch.device(device)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        if moved:
            torch.set_default_device(device)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
            if moved:
                torch.set_default_device(place)
