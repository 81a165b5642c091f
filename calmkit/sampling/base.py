"""The interface of samplers: the black box they draw from, and their result.

A *black box* draws independent candidates of a chunk for every row of a batch, without their
probabilities. A sampler chooses one chunk per row from such draws.

Tokens may be integers of any dtype: samplers compute in int64 and return the dtype of the draws.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

from calmkit.typing import typed

__all__ = [
    "Draw",
    "DrawForm",
    "PlainSampler",
    "SampledChunks",
    "Sampler",
    "SelectableDraw",
    "at_once",
    "check_number",
    "draw_checked",
    "flattened",
    "is_integer",
]


# On a GPU, to start the work and wait for its end takes most of the time.
_ON_CPU, _ON_OTHERS = 32, 8192


def at_once(device: torch.device) -> int:
    """So many candidates are drawn and decoded in hardly more time than one.

    Args:
        device: Where they are computed.
    """
    return _ON_CPU if device.type == "cpu" else _ON_OTHERS


@runtime_checkable
class Draw(Protocol):
    """A black box."""

    def __call__(self, n: int, /) -> Integer[Tensor, "n *batch chunk"]:
        """Draw n independent candidates of every row."""
        ...


@runtime_checkable
class SelectableDraw(Draw, Protocol):
    """A black box that can draw for some of its rows only, which saves work."""

    def select(self, rows: Int[Tensor, " chosen"]) -> "SelectableDraw":
        """The same black box for these rows of the flattened batch."""
        ...


@typed
@dataclass(frozen=True, eq=False)
class SampledChunks:
    """One chunk for each row.

    Attributes:
        tokens: The chunks, in the dtype of the draws.
        draws: Number of candidates that the black box drew for each row, used or not. A box
            without `select` draws for all its rows at each call.
        settled: False where the draws did not suffice for the requested temperature and the chunk
            comes from a less sharp distribution; each sampler documents which.
    """

    tokens: Integer[Tensor, "*batch chunk"]
    draws: Int[Tensor, "*batch"]
    settled: Bool[Tensor, "*batch"]


@runtime_checkable
class Sampler(Protocol):
    """Chooses one chunk per row."""

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Choose one chunk per row.

        Args:
            draw: The black box.
            generator: Randomness of the choice itself.
        """
        ...


@dataclass(frozen=True)
class PlainSampler:
    """Temperature 1: the first draw."""

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw once."""
        tokens = draw_checked(draw, 1)[0]
        ones = torch.ones_like(tokens[..., 0], dtype=torch.long)
        return SampledChunks(tokens, ones, ones.bool())


@dataclass(frozen=True)
class DrawForm:
    """The shape and dtype that all draws of a black box share.

    Attributes:
        batch: Shape of its rows.
        chunk: Number of tokens in a chunk.
        dtype: Dtype of the tokens; None if none has been decoded.
    """

    batch: tuple[int, ...]
    chunk: int
    dtype: torch.dtype | None = None

    @staticmethod
    def of(candidates: Tensor) -> "DrawForm":
        """The form of one draw, (n, *batch, chunk)."""
        _, *batch, chunk = candidates.shape
        return DrawForm(tuple(batch), chunk, candidates.dtype)

    def of_rows(self, rows: int) -> "DrawForm":
        """The form for some of the rows, flattened."""
        return DrawForm((rows,), self.chunk, self.dtype)


def draw_checked(draw: Draw, n: int, like: DrawForm | None = None) -> Tensor:
    """Candidates of a black box; every draw of every sampler is checked here or in `undecoded`.

    Args:
        draw: The black box.
        n: Number of candidates.
        like: The form of its earlier draws; None at the first.

    Raises:
        ValueError: If the draws are not integers, there are not n of them, or rows, chunk size or
            dtype differ from those of earlier draws.
    """
    candidates = draw(n)
    if not isinstance(candidates, Tensor):
        raise ValueError(f"draw({n}) must return a tensor; got {type(candidates).__name__}.")
    dtype, shape = candidates.dtype, tuple(candidates.shape)
    if len(shape) < 2 or shape[0] != n or not is_integer(dtype):
        raise ValueError(
            f"draw({n}) must return integers of shape ({n}, *batch, chunk); got {dtype} of shape "
            f"{shape}."
        )
    if like is not None and DrawForm.of(candidates) != like:
        raise ValueError(
            f"draw({n}) must return {like.dtype} of shape {(n, *like.batch, like.chunk)}, as "
            f"earlier draws do; got {dtype} of shape {shape}."
        )
    return candidates


def is_integer(dtype: torch.dtype) -> bool:
    """Whether tensors of a dtype can hold tokens; booleans cannot."""
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def flattened(candidates: Tensor) -> Tensor:
    """Candidates (n, *batch, chunk) as (n, rows, chunk), in int64: no sum of tokens overflows."""
    n, *batch, chunk = candidates.shape
    return candidates.reshape(n, math.prod(batch), chunk).long()


def check_number(name: str, value: object, least: int, rule: str = "") -> None:
    """Refuse values that are not whole numbers or are too small.

    Args:
        name: Name of the argument.
        value: Its value.
        least: The smallest allowed number.
        rule: Text that replaces `least` in the message, to give a reason.

    Raises:
        ValueError: If the value is not an `int` or is below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number; got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {rule or least}; got {value}.")
