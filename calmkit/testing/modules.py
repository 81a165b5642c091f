"""Conditions for parts with weights: gradients, saved states, low precision."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from calmkit.testing.contract import Broken, expect
from calmkit.testing.expecting import expect_finite, expect_same
from calmkit.testing.trial import Trial

__all__ = [
    "adam",
    "autocast",
    "expect_all_learn",
    "expect_finite_gradients",
    "expect_small_error",
    "expect_the_same_loaded",
    "gradients_of_training",
]

# Inputs of a layer that takes the whole step.
_NARROW = 64


def adam(groups: Sequence[dict[str, Any]]) -> torch.optim.Adam:
    """Adam that updates all tensors in one call where PyTorch can: for real numbers.

    Args:
        groups: Parameters and their step size.
    """
    real = all(p.is_floating_point() for group in groups for p in group["params"])
    return torch.optim.Adam(groups, fused=real)


def gradients_of_training(
    part: nn.Module, loss: Callable[[int], Tensor], *, steps: int = 10, lr: float = 0.01
) -> list[dict[str, Tensor]]:
    """Train a part with Adam and return the gradients of each step, by parameter.

    Args:
        part: The part to train.
        loss: The loss as a function of the step.
        steps: Number of steps.
        lr: Learning rate, which is reduced for the matrices of wide layers.
    """
    optimizer = adam(_by_width(part, lr))
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
    """Require a gradient of each parameter that is always finite and nonzero in some step.

    One step is not enough: gradients may cancel in it, and layers initialised to zero block those
    of other layers.
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
    """Require finite gradients of a loss in all parameters that have one.

    Args:
        part: The part with the parameters.
        loss: The loss, which is summed.
        where: Completes the phrase "the gradient of weight".
        cause: The usual cause of a non-finite gradient.
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
    """Require the same results of a part that loads the state of another.

    Args:
        trial: Records the calls.
        saved: The part whose state is saved to a file.
        other: The part that loads it.
        results: Descriptions and functions of the compared results.
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
    """Autocast to bfloat16 without PyTorch's warning about slow norms of mixed dtypes."""
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        yield


def expect_small_error(got: Tensor, want: Tensor, most: float, *, what: str, cause: str) -> None:
    """Require that the norm of the error is small relative to the norm of the correct result.

    Args:
        got: The result, in any dtype.
        want: The correct result.
        most: The largest accepted ratio.
        what: A description of the result, in the plural.
        cause: The usual cause of a larger error.
    """
    error = float((got.double() - want.double()).norm() / want.double().norm())
    seen = f"{what} are off by {error:.2g} of their norm"
    expect(error < most, seen=seen, expected=f"less than {most:g}", cause=cause)
