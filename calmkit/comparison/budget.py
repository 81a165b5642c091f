"""Training steps of each variant under a common budget.

With `steps`, every variant trains for the steps in its config. With `flops` and `seconds`, only
the first variant does, and the cost of its training is the budget of all. For a variant v whose
steps cost c_v each,

    steps_v = round(steps_1 c_1 / c_v).

A softmax baseline takes the FLOPs of the first variant, whatever the budget of the others.

FLOPs come from accounting. Seconds per step are measured on throw-away models, with the variants
taking turns so that a slow phase of the machine affects all of them. Warm-up and validation
intervals keep their share of the steps.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from calmkit.accounting import account_of
from calmkit.config import Comparison, ConfigError, assemble
from calmkit.experiments import Trainer, model_objective
from calmkit.training import TrainingSettings

from .softmax_baseline import is_softmax

__all__ = ["plan_steps", "with_steps"]

# With fewer steps, rounding can change the budget by 2 per cent or more.
_FEWEST_STEPS = 25
_ROUNDS, _STEPS_A_ROUND = 5, 2


def plan_steps(
    comparison: Comparison, trainers: Mapping[str, Trainer], trainings: Mapping[str, str]
) -> dict[str, int]:
    """Steps of each variant, by name.

    Args:
        comparison: The comparison.
        trainers: The trainer of each variant, by name.
        trainings: The key of each variant's training; a shared training is measured once.

    Raises:
        ConfigError: If a variant has no fixed number of FLOPs, or too few steps in its budget.
    """
    steps = {v.name: v.experiment.training.steps for v in comparison.variants}
    first, of_first = next(iter(steps.items()))
    softmax = [name for name in steps if is_softmax(comparison, name)]
    # The softmax has the operations of the first variant under every budget.
    groups = [(_flops, [first, *softmax], "")] if softmax else []
    if comparison.budget != "steps":
        measure = _flops if comparison.budget == "flops" else _seconds
        others = [name for name in steps if name not in softmax]
        groups.append((measure, others, ", or use budget: steps"))
    for measure, names, remedy in groups:
        one_of = {trainings[name]: name for name in names}
        found = measure({name: trainers[name] for name in one_of.values()})
        budget = of_first * found[one_of[trainings[first]]]
        for name in names:
            steps[name] = round(budget / found[one_of[trainings[name]]])
            _check_enough(name, steps[name], first, of_first, remedy)
    return steps


def _check_enough(name: str, count: int, first: str, of_first: int, remedy: str) -> None:
    if count < _FEWEST_STEPS:
        raise ConfigError(
            f"variant {name}: a budget of {of_first} steps of {first} must be at least "
            f"{_FEWEST_STEPS} of its own, or rounding makes it unequal; it is {count}. Give "
            f"{first} more steps{remedy}."
        )


def with_steps(settings: TrainingSettings, steps: int) -> TrainingSettings:
    """Change the number of steps; warm-up and validation intervals scale with it."""
    share = steps / settings.steps
    return replace(
        settings,
        steps=steps,
        warmup_steps=min(steps, round(settings.warmup_steps * share)),
        validate_every=max(1, round(settings.validate_every * share))
        if settings.validate_every
        else 0,
    )


def step_flops(trainer: Trainer) -> float:
    """FLOPs of one training step.

    Raises:
        ValueError: If they depend on the data.
    """
    experiment = trainer.experiment
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = assemble(experiment, experiment.head)
    tokens = experiment.training.batch_size * experiment.positions * experiment.chunk_size
    return tokens * sum(account_of(model, experiment.positions).training_flops.values())


def _flops(trainers: Mapping[str, Trainer]) -> dict[str, float]:
    found = {}
    for name, trainer in trainers.items():
        try:
            found[name] = step_flops(trainer)
        except ValueError as error:
            raise ConfigError(f"variant {name}: budget flops: {error}") from None
    return found


def _seconds(trainers: Mapping[str, Trainer]) -> dict[str, float]:
    """Median seconds per step; the variants take turns."""
    steppers = {name: _Stepper(trainer) for name, trainer in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(_ROUNDS + 1):
        for name, stepper in steppers.items():
            seconds = stepper.seconds(_STEPS_A_ROUND)
            if turn > 0:  # the first turn warms up
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


class _Stepper:
    """Times training steps on a model of its own."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, experiment = trainer, trainer.experiment
        model = self._model = trainer.build(None).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = experiment.optimizer(trained)
        self._batch_at, self._step = trainer.batches(experiment.training), 0
        self._generator = torch.Generator(trainer.fabric.device).manual_seed(experiment.seed)

    def seconds(self, steps: int) -> float:
        """Mean time of the next training steps."""
        device = self._trainer.fabric.device
        began = time.perf_counter()
        for _ in range(steps):
            batch = self._batch_at(self._step).to(device)
            with self._trainer.fabric.autocast():
                means = model_objective(self._model, batch, self._generator)
            loss = means.values["loss"]
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._step += 1
            float(loss.detach())  # waits for the device
        return (time.perf_counter() - began) / steps
