"""Steps of each variant under a common budget.

With `steps` every variant does what its config says. With `flops` and `seconds` the first variant
does, and what that costs is what all get: for variant v with cost c_v of a step,

    steps_v = round(steps_1 c_1 / c_v).

Operations come from accounting. Seconds of a step are measured on a model that is thrown away, for
all variants in turns, so that what slows the machine down slows all of them. Warm-up and the
intervals between validations keep their share of the steps.
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

__all__ = ["plan_steps", "with_steps"]

# With fewer, rounding to whole steps is an error of 2 per cent or more.
_FEWEST_STEPS = 25
_ROUNDS, _STEPS_A_ROUND = 5, 2


def plan_steps(
    comparison: Comparison, trainers: Mapping[str, Trainer], trainings: Mapping[str, str]
) -> dict[str, int]:
    """Steps of each variant, by name.

    Args:
        comparison: The comparison.
        trainers: What each variant is trained by, by name.
        trainings: Keys of their trainings; those that share one have it measured once.

    Raises:
        ConfigError: If a variant's operations cannot be told, or its budget is a few steps only.
    """
    steps = {v.name: v.experiment.training.steps for v in comparison.variants}
    if comparison.budget == "steps":
        return steps
    measure = _flops if comparison.budget == "flops" else _seconds
    one_of = {key: name for name, key in trainings.items()}
    found = measure({name: trainers[name] for name in one_of.values()})
    costs = {name: found[one_of[key]] for name, key in trainings.items()}
    first = comparison.variants[0].name
    planned = {name: round(steps[first] * costs[first] / cost) for name, cost in costs.items()}
    for name, count in planned.items():
        if count < _FEWEST_STEPS:
            raise ConfigError(
                f"variant {name}: a budget of {steps[first]} steps of {first} must be at least "
                f"{_FEWEST_STEPS} of its own, or rounding makes it unequal; it is {count}. Give "
                f"{first} more steps, or take budget: steps."
            )
    return planned


def with_steps(settings: TrainingSettings, steps: int) -> TrainingSettings:
    """The same run, longer or shorter: warm-up and validations keep their share."""
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
    """Operations of one training step.

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
    """Median seconds of a step, measured in turns."""
    steppers = {name: _Stepper(trainer) for name, trainer in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(_ROUNDS + 1):
        for name, stepper in steppers.items():
            seconds = stepper.seconds(_STEPS_A_ROUND)
            if turn > 0:  # the first one warms up
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


class _Stepper:
    """Trains a model of its own, to see how long a step takes."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, experiment = trainer, trainer.experiment
        model = self._model = trainer.build(None).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = experiment.optimizer(trained)
        self._batch_at, self._step = trainer.batches(experiment.training), 0
        self._generator = torch.Generator(trainer.fabric.device).manual_seed(experiment.seed)

    def seconds(self, steps: int) -> float:
        """Mean time of so many further steps."""
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
