"""A trial builds and calls the part under test, and searches for counterexamples.

User settings neither change nor affect a result: the default dtype and device, the random state
and the gradient mode are set for one block and restored afterwards.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch

from calmkit.testing.calls import call_in_words
from calmkit.testing.contract import expect
from calmkit.testing.profiles import Profile

__all__ = ["Trial", "neutral", "seed_globally"]

T = TypeVar("T")


class Trial:
    """One part under test, in one run of one contract.

    Attributes:
        factory: Builds the part.
        profile: How thorough the checks are.
        seed: The source of all randomness.
        last_call: A description of the last call of the part.
        kept: Results that the contracts of one part share, such as a training.
    """

    def __init__(self, factory: Callable[..., Any], profile: Profile, seed: int) -> None:
        self.factory = factory
        self.profile = profile
        self.seed = seed
        self.last_call = "none"
        self.kept: dict[str, Any] = {}

    def generator(self, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
        """The generator with a number, which is reproducible for a seed of the suite."""
        return torch.Generator(device).manual_seed(1_000_003 * self.seed + number)

    def call(self, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call the part and record the call."""
        self.last_call = call_in_words(function, arguments, keywords)
        return function(*arguments, **keywords)

    def built(self, base: type[T], *sizes: Any, number: int = 0, **keywords: Any) -> T:
        """Build a part; parts with the same number are equal.

        Args:
            base: The required base class.
            sizes: Arguments of the factory.
            number: Seeds torch's global generator, from which weights are drawn.
            keywords: Keyword arguments of the factory.
        """
        seed_globally(1_000_003 * self.seed + number)
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

    def search(
        self, examples: Callable[[Any], Any], check: Callable[[Any], None], *, most: int = 2_000
    ) -> None:
        """Run a check on many examples and report the smallest failing one.

        Args:
            examples: Returns a strategy, given the module `hypothesis.strategies`, which is
                imported only here.
            check: Raises an error if an example breaks the contract.
            most: Maximum number of examples, if the profile has more.
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


def seed_globally(seed: int) -> None:
    """Seed torch's global generators: of the CPU alone where there is no other device.

    For each kind of device that is not there, `torch.manual_seed` notes by whom it was called,
    which takes 0.4 ms and more.
    """
    if _has_accelerator():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@functools.cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


@contextmanager
def neutral(seed: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Iterator[None]:
    """A context with default dtype and device, gradients and a seeded global generator.

    Args:
        seed: Seed of torch's global generator.
        dtype: The default dtype; float64 distinguishes rounding from mistakes.
        device: The default device.
    """
    before = torch.get_default_dtype()
    # Entered only if it changes anything: a default device slows down every call in its context.
    moved = torch.get_default_device() != torch.device(device)
    place = torch.device(device) if moved else nullcontext()
    with (
        place,
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        seed_globally(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
