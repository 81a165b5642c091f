"""Conditions on results for all kinds: shapes, dtypes, equality, refusals."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from calmkit.testing.contract import Broken, expect
from calmkit.testing.trial import Trial
from calmkit.typing import checks_are_on

__all__ = [
    "expect_different",
    "expect_dtype",
    "expect_finite",
    "expect_refused",
    "expect_same",
    "expect_shape",
    "expect_unchanged",
    "expect_untouched_randomness",
    "no_shape_checks",
]

T = TypeVar("T")


def expect_shape(tensor: object, shape: Sequence[int], *, what: str, cause: str) -> None:
    """Require a tensor of a given shape."""
    if not isinstance(tensor, Tensor):
        raise Broken(seen=f"{what} is a {type(tensor).__name__}", expected="a tensor", cause=cause)
    seen = f"{what} has shape {tuple(tensor.shape)}"
    expect(tuple(tensor.shape) == tuple(shape), seen=seen, expected=tuple(shape), cause=cause)


def expect_dtype(tensor: Tensor, dtype: torch.dtype, *, what: str, cause: str) -> None:
    """Require a tensor of a given dtype."""
    seen = f"{what} is {tensor.dtype}, with torch's default {torch.get_default_dtype()}"
    expect(tensor.dtype == dtype, seen=seen, expected=dtype, cause=cause)


def expect_finite(tensor: Tensor, *, what: str, cause: str) -> None:
    """Require a tensor without NaN or infinity."""
    bad = int((~tensor.isfinite()).sum())
    seen = f"{what}: {bad} of {tensor.numel()} numbers are NaN or infinite"
    expect(bad == 0, seen=seen, expected="finite numbers", cause=cause)


def expect_same(
    got: Tensor,
    want: Tensor,
    *,
    what: str,
    than: str,
    cause: str,
    rtol: float = 1e-7,
    atol: float = 1e-7,
) -> None:
    """Require two tensors of one shape that agree to rounding; NaN equals nothing.

    Args:
        got: The result.
        want: The expected result.
        what: A description of the result.
        than: A description of the expected result.
        cause: The usual cause of a difference.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """
    expect_shape(got, want.shape, what=what, cause=cause)
    close = torch.isclose(got, want.to(got.dtype), rtol=rtol, atol=atol)
    if not bool(close.all()):
        apart = float((got - want).detach().abs().max())
        count = int((~close).sum())
        raise Broken(
            seen=f"{what}: {count} of {got.numel()} numbers differ, by up to {apart:.2g}",
            expected=f"the same as {than}",
            cause=cause,
        )


def expect_different(got: Tensor, other: Tensor, *, what: str, than: str, cause: str) -> None:
    """Require that at least one number differs."""
    expect(
        got.numel() == 0 or not bool(torch.isclose(got, other, rtol=1e-9, atol=1e-12).all()),
        seen=f"{what} is the same as {than}, in all {got.numel()} numbers",
        expected="other numbers",
        cause=cause,
    )


def expect_unchanged(before: Sequence[Tensor], after: Sequence[Tensor], *, names: str) -> None:
    """Require unchanged arguments."""
    for old, new, name in zip(before, after, names.split(), strict=True):
        expect(
            torch.equal(old, new),
            seen=f"{name} was changed in place",
            expected="arguments that are only read",
            cause="an in-place operation, such as add_ or an assignment to a slice",
        )


def expect_untouched_randomness(run: Callable[[], T], *, cause: str) -> T:
    """Run a function that must neither read nor advance torch's global generator.

    Args:
        run: Calls the part with a generator.
        cause: The usual cause of a changed state.

    Returns:
        The result of the function.
    """
    torch.rand(3)  # reveals a part that seeds the global generator with the same seed
    before = torch.get_rng_state()
    result = run()
    expect(
        torch.equal(torch.get_rng_state(), before),
        seen="the state of torch's global generator was moved",
        expected="numbers from the generator that is passed in only",
        cause=cause,
    )
    return result


def expect_refused(
    trial: Trial,
    function: Callable[..., object],
    *arguments: Any,
    naming: str,
    rule: str,
    remedy: str = "",
) -> None:
    """Require a ValueError or TypeError whose message names the wrong argument.

    Args:
        trial: Makes the call.
        function: The function.
        arguments: Arguments of the call; one of them is wrong.
        naming: A word of the message: the argument's name, or several separated by `|`.
        rule: The rule that the call breaks.
        remedy: How a part can refuse such a call.
    """
    words = naming.split("|")
    named = words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    expected = f"a ValueError or TypeError whose message names {named}: {rule}"
    try:
        result = trial.call(function, *arguments)
    except (ValueError, TypeError) as error:
        seen = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        found = any(word in _complaint(error) for word in words)
        cause = "the refusal does not say which argument is wrong"
        expect(found, seen=seen, expected=expected, cause=cause)
    except Exception as error:
        raise Broken(
            seen=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            expected=expected,
            cause="the argument is not checked before it is used",
        ) from error
    else:
        shape = f" of shape {tuple(result.shape)}" if isinstance(result, Tensor) else ""
        raise Broken(
            seen=f"a result{shape}",
            expected=expected,
            cause="the argument is not checked, so that a mistake becomes a wrong number"
            + (f"; {remedy}" if remedy else ""),
        )


def _complaint(error: Exception) -> str:
    """The message; for a failed shape check without its list of all arguments."""
    text = str(error)
    if isinstance(error, TypeCheckError):
        text = text.partition("Called with parameters:")[0]
    return text


def no_shape_checks(trial: object) -> str | None:
    """The reason why a contract that relies on shape checks does not apply."""
    return None if checks_are_on() else "shape checks are turned off: CALMKIT_TYPECHECK=0"
