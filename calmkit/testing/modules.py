"""What contracts state about parts that hold weights: gradients, saved states, low precision."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from calmkit.testing.contract import Broken, expect
from calmkit.testing.expecting import expect_finite, expect_same
from calmkit.testing.trial import Trial

__all__ = [
    "autocast",
    "expect_all_learn",
    "expect_finite_gradients",
    "expect_small_error",
    "expect_the_same_loaded",
    "gradients_of_training",
]

# Inputs of a layer that takes the whole step.
_NARROW = 64


def gradients_of_training(
    part: nn.Module, loss: Callable[[int], Tensor], *, steps: int = 10, lr: float = 0.01
) -> list[dict[str, Tensor]]:
    """Train a part by Adam; the gradients of each step, by parameter.

    Args:
        part: What is trained.
        loss: Of the number of the step.
        steps: How many.
        lr: Their size; smaller for the matrices of wide layers.
    """
    optimizer = torch.optim.Adam(_by_width(part, lr))
    seen = []
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).sum().backward()
        named = part.named_parameters()
        seen.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        optimizer.step()
    optimizer.zero_grad()
    return seen


def _by_width(part: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Groups of parameters, each with the step size that suits its width.

    Adam moves every weight by the step size, so what a layer gives moves by that times its
    inputs: the step that makes a narrow part lively would make a wide one overflow.
    """
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in part.parameters():
        if parameter.requires_grad:
            width = max(1, parameter.shape[1:].numel()) if parameter.ndim > 1 else 1
            groups.setdefault(width, []).append(parameter)
    return [
        {"params": parameters, "lr": lr * min(1.0, _NARROW / width)}
        for width, parameters in groups.items()
    ]


def expect_all_learn(part: nn.Module, steps: list[dict[str, Tensor]]) -> None:
    """Each parameter had a gradient that was finite, and in some step not zero.

    One step is not enough: signs may cancel in it, and what starts at zero hides what is behind.

    Args:
        part: What was trained.
        steps: From `gradients_of_training`.
    """
    for name in (name for name, p in part.named_parameters() if p.requires_grad):
        gradients = [step[name] for step in steps if name in step]
        if not gradients:
            raise Broken(
                seen=f"{name} has no gradient in any of {len(steps)} steps",
                expected="a gradient for each parameter",
                cause="it is not used, or is used behind detach(), .data or no_grad",
            )
        for gradient in gradients:
            cause = "a root, a logarithm or a division at zero, or the gradient of a norm there"
            expect_finite(gradient, what=f"the gradient of {name}", cause=cause)
        expect(
            any(bool((gradient != 0).any()) for gradient in gradients),
            seen=f"the gradient of {name} is zero in all of {len(steps)} steps",
            expected="one that is not, in some step",
            cause="what it gives is multiplied by zero, or rounded, before it reaches the loss",
        )


def expect_finite_gradients(part: nn.Module, loss: Tensor, *, where: str, cause: str) -> None:
    """The gradients of a loss are finite, in those parameters that have one.

    Args:
        part: Holds the parameters.
        loss: Is summed.
        where: Completes the sentence "the gradient of weight".
        cause: What usually lies behind another.
    """
    part.zero_grad()
    loss.sum().backward()
    for name, parameter in part.named_parameters():
        if parameter.grad is not None:
            expect_finite(parameter.grad, what=f"the gradient of {name}{where}", cause=cause)


def expect_the_same_loaded(
    trial: Trial,
    saved: nn.Module,
    other: nn.Module,
    results: Mapping[str, Callable[[nn.Module], Tensor]],
) -> None:
    """A part that loads the state of another one gives the same results.

    Args:
        trial: Remembers the calls.
        saved: Its state goes through a file.
        other: Loads it.
        results: What is compared, in words and as a function of either part.
    """
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    trial.call(other.load_state_dict, torch.load(file, weights_only=True))
    cause = "a tensor that the results need is neither a parameter nor a persistent buffer"
    for what, run in results.items():
        expect_same(run(other), run(saved), what=what, than="of the saved part", cause=cause)


@contextmanager
def autocast() -> Iterator[None]:
    """Autocast to bfloat16, without what PyTorch warns of: a norm of two dtypes is slower."""
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        yield


def expect_small_error(got: Tensor, want: Tensor, most: float, *, what: str, cause: str) -> None:
    """The norm of the error is a small part of the norm of what is right.

    Args:
        got: In any dtype.
        want: The right numbers.
        most: The largest quotient that is accepted.
        what: What was computed, in words, in the plural.
        cause: What usually lies behind a larger error.
    """
    error = float((got.double() - want.double()).norm() / want.double().norm())
    seen = f"{what} are off by {error:.2g} of their norm"
    expect(error < most, seen=seen, expected=f"less than {most:g}", cause=cause)
