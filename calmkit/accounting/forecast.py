"""What a training will need, before it starts: memory of each device, FLOPs, tokens, time.

With R devices, B rows in a batch and b rows in a micro-batch, each device takes B / (R b) forward
and backward passes per step. Memory of a device, in bytes, where F counts the frozen weights, W
the trained ones, G the gradients, S the optimiser's state, E the averages, and A(b) the
activations of a micro-batch:

    one device       F + W + G + S + E + A(b)
    replicas (ddp)   F + W + 2 G + S + E + A(b)              gradients, and their messages
    shards (fsdp)    F + (W + G + S + E) / R + A(b) + 3 U

where U is the largest unit that is gathered at a time: its weights, those of the next one, which
are fetched meanwhile, and its gradient. F, W, G, S and A(b) come from a dry run of the step (see
`step_memory`). For long micro-batches, A(b) is extrapolated from two shorter ones.

    seconds = FLOPs / (R * peak of a device * share of it that is reached)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from .step_memory import StepMemory, step_memory

__all__ = ["ASSUMED_SHARE", "Forecast", "TrainingPlan", "forecast"]

ASSUMED_SHARE = 0.4
"""Share of a device's peak that a training is assumed to reach."""

M = TypeVar("M", bound=nn.Module)

# Rows of a dry run hold this many positions together, if it can: its time grows with them.
_POSITIONS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a training divides its work.

    Attributes:
        steps: Optimiser steps.
        batch_size: B, rows in a batch, over all devices.
        micro_batch: b, rows of one forward and backward pass; None: all rows of a device.
        positions: Positions in a row.
        chunk_size: K, tokens at a position.
        devices: R.
        shards: Whether weights, gradients and state are divided among the devices.
        mixed: Whether matrix products are in bfloat16.
        averages: Whether averaged weights are kept.
    """

    steps: int
    batch_size: int
    micro_batch: int | None
    positions: int
    chunk_size: int
    devices: int = 1
    shards: bool = False
    mixed: bool = False
    averages: bool = False

    @property
    def rows_at_once(self) -> int:
        """Rows of one forward and backward pass."""
        of_device = -(-self.batch_size // self.devices)
        return of_device if self.micro_batch is None else min(self.micro_batch, of_device)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of text in a batch."""
        return self.batch_size * self.positions * self.chunk_size


@dataclass(frozen=True)
class Forecast:
    """What a training will need.

    Attributes:
        plan: How it divides its work.
        memory: Bytes on each device, by kind.
        flops_per_step: FLOPs of a step on all devices, without what is only recomputed.
    """

    plan: TrainingPlan
    memory: Mapping[str, float]
    flops_per_step: float

    @property
    def total_memory(self) -> float:
        """Bytes on each device."""
        return sum(self.memory.values())

    @property
    def tokens(self) -> int:
        """Tokens of text in the batches of all steps."""
        return self.plan.steps * self.plan.tokens_per_step

    @property
    def flops(self) -> float:
        """FLOPs of all steps."""
        return self.plan.steps * self.flops_per_step

    def seconds(self, peak: float, share: float = ASSUMED_SHARE) -> float:
        """Time of all steps.

        Args:
            peak: FLOPs per second of one device at most.
            share: Share of it that is reached.
        """
        return self.flops / (peak * share * self.plan.devices)


def forecast(
    module: M,
    loss_of: Callable[[int], Callable[[M], Tensor]],
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    plan: TrainingPlan,
    units: Sequence[nn.Module] = (),
    *,
    linear_from: int = 0,
) -> Forecast:
    """Forecast a training, without memory for the module.

    Args:
        module: The module, on any device, including the meta device.
        loss_of: The loss of a micro-batch with the given number of rows.
        optimizer: Builds the optimiser over the trained parameters.
        plan: How the training divides its work.
        units: Disjoint parts of the module that shards gather one by one.
        linear_from: Number of positions from which memory grows in proportion to more of them.
    """
    rows = plan.rows_at_once
    accumulates = rows * plan.devices < plan.batch_size

    def measure(count: int) -> StepMemory:
        loss = loss_of(count)
        return step_memory(module, loss, optimizer, mixed=plan.mixed, accumulates=accumulates)

    step = max(1, _POSITIONS_AT_ONCE // (2 * plan.positions), -(-linear_from // plan.positions))
    if rows <= 2 * step:
        found = measure(rows)
    else:
        found = _extrapolated(measure(step), measure(2 * step), step, rows)
    trained = [p.numel() for p in module.parameters() if p.requires_grad]
    held = {
        "weights": found.weights,
        "gradients": found.gradients,
        "optimizer": found.optimizer_state,
        "averages": 4.0 * sum(trained) if plan.averages else 0.0,
    }
    passing = {"activations": found.activations, "temporary": found.temporaries}
    if plan.shards:
        frozen = found.weights - found.gradients
        held = {kind: size / plan.devices for kind, size in held.items()}
        held["weights"] = frozen + found.gradients / plan.devices
        passing["gathered"] = 3.0 * _largest_unit(module, units)
    elif plan.devices > 1:
        passing["messages"] = found.gradients
    return Forecast(plan, held | passing, found.flops * plan.batch_size / rows)


def _extrapolated(some: StepMemory, more: StepMemory, step: int, rows: int) -> StepMemory:
    """The cost of more rows, from that of `step` and `2 * step` rows; all but weights grow."""
    times = (rows - 2 * step) / step
    values = {
        name: value + times * (value - vars(some)[name]) for name, value in vars(more).items()
    }
    return StepMemory(**values)


def _largest_unit(module: nn.Module, units: Sequence[nn.Module]) -> int:
    """Bytes of the trained weights of the largest unit; what is in none of them is one more."""
    sizes = [_trained_bytes(unit) for unit in units]
    return max([_trained_bytes(module) - sum(sizes), *sizes])


def _trained_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
