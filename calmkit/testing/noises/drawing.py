"""The shape, dtype and randomness of a noise."""

import torch

from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_different,
    expect_dtype,
    expect_finite,
    expect_same,
    expect_shape,
    expect_untouched_randomness,
)
from calmkit.testing.noises.trial import NoiseTrial
from calmkit.testing.tensors import EMPTY_BATCHES, batches
from calmkit.testing.trial import neutral, seed_globally

__all__ = [
    "can_be_built_and_used",
    "compiles",
    "device_is_that_asked_for",
    "draws_depend_on_seed",
    "dtype_is_that_asked_for",
    "finite_in_every_dtype",
    "global_randomness_is_left_alone",
    "same_seed_same_numbers",
    "shapes_are_those_asked_for",
    "without_a_generator_it_draws_globally",
]

_GLOBAL = "a call such as torch.randn without generator="


@contract()
def can_be_built_and_used(trial: NoiseTrial) -> None:
    """A noise is built, and draws numbers of a given shape."""
    got = trial.draw(trial.build(), (4, 3))
    cause = "the shape is flattened, or one number is drawn for all places of an axis"
    expect_shape(got, (4, 3), what="what draw returns", cause=cause)


@contract(searches=True)
def shapes_are_those_asked_for(trial: NoiseTrial) -> None:
    """Any shape can be drawn: without axes, and with axes of length one or zero."""
    noise = trial.build()

    def check(shape: tuple[int, ...]) -> None:
        cause = "an axis is squeezed, or the numbers of axes are built in"
        expect_shape(trial.draw(noise, shape), shape, what="what draw returns", cause=cause)

    trial.search(batches, check)
    for shape in EMPTY_BATCHES:
        check(shape)


@contract()
def same_seed_same_numbers(trial: NoiseTrial) -> None:
    """Two generators with one seed give the same numbers."""
    noise = trial.build()
    first, again = (trial.draw(noise, (4, 3), number=5) for _ in range(2))
    cause = f"{_GLOBAL}, or numbers that are kept between calls"
    expect_same(again, first, what="what is drawn", than="from the same seed before", cause=cause)


@contract()
def global_randomness_is_left_alone(trial: NoiseTrial) -> None:
    """Given a generator, a noise neither reads nor advances torch's global one."""
    noise = trial.build()
    expect_untouched_randomness(lambda: trial.draw(noise, (4, 3)), cause=_GLOBAL)


@contract()
def draws_depend_on_seed(trial: NoiseTrial) -> None:
    """Another seed gives other numbers, and so does a second draw from one generator."""
    noise, generator = trial.build(), trial.generator(7)
    first = trial.draw(noise, (40, 3), generator=generator)
    cause = "a generator of its own with a fixed seed, or a table of numbers"
    for than, other in (
        ("the next ones", trial.draw(noise, (40, 3), generator=generator)),
        ("those from another seed", trial.draw(noise, (40, 3), number=8)),
    ):
        expect_different(first, other, what="what is drawn", than=than, cause=cause)


@contract()
def without_a_generator_it_draws_globally(trial: NoiseTrial) -> None:
    """Without a generator, the numbers depend on torch's global seed."""
    noise, draws = trial.build(), []
    for seed in (3, 3, 4):
        seed_globally(seed)
        draws.append(trial.draw_globally(noise, (40, 3)))
    first, again, other = draws
    cause = "a new generator is made, of a fixed seed or of the time"
    than = "from the same global seed"
    expect_same(again, first, what="what is drawn", than=than, cause=cause)
    than = "from another global seed"
    expect_different(other, first, what="what is drawn", than=than, cause=cause)


@contract()
def dtype_is_that_asked_for(trial: NoiseTrial) -> None:
    """Numbers have the requested dtype for any default dtype."""
    noise = trial.build()
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for default in (torch.float64, torch.float32):
            with neutral(trial.seed, default):
                got = trial.draw(noise, (4, 3), dtype=dtype)
                cause = "a tensor is made without dtype=, or cast to a fixed one"
                expect_dtype(got, dtype, what="what draw returns", cause=cause)


@contract()
def device_is_that_asked_for(trial: NoiseTrial) -> None:
    """Numbers are on the requested device, even if torch's default is another."""
    noise = trial.build()
    with neutral(trial.seed, device="meta"):  # a device that every machine has
        got = trial.draw(noise, (4, 3))
    cause = "a tensor is made without device="
    expect(got.device.type == "cpu", seen=f"numbers on {got.device}", expected="cpu", cause=cause)


@contract()
def finite_in_every_dtype(trial: NoiseTrial) -> None:
    """No number is NaN or infinite, even in 16 bits."""
    noise = trial.build()
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        got = trial.draw(noise, (trial.profile.rows, 4), dtype=dtype)
        cause = (
            "the logarithm or the quantile of a uniform number that is 0 or 1, as one of some "
            "hundreds is in 16 bits: draw in float32 and cast"
        )
        expect_finite(got, what=f"draws in {dtype}", cause=cause)


@contract()
def compiles(trial: NoiseTrial) -> None:
    """Drawing is one graph for torch.compile with fullgraph=True, with the same numbers."""
    noise = trial.build()
    options = {"dtype": torch.float64, "device": torch.device("cpu")}
    name = f"{type(noise).__name__}.draw"
    expect_one_graph(trial, lambda: noise.draw((4, 3), None, **options), name=name)
