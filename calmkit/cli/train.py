"""`calmkit train`: train one model from scratch, or fine-tune a saved one.

With several devices, this process prepares the text and then starts one process more for each
further device, by the same command line. Only the first of all processes shows and writes; the
others end with the training.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from calmkit import config
from calmkit.accounting import Forecast
from calmkit.cluster import LostProcessError, check_agreement, ending_together
from calmkit.comparison import result_of_one
from calmkit.experiments import (
    CHECKPOINTS,
    EvaluationPlan,
    RunProgress,
    RunRecord,
    Silent,
    check_resumable,
    code_of_result,
    fabric_of,
    finetune,
    inputs_of,
    prepare,
    prepare_finetuning,
    train,
)
from calmkit.forecasts import (
    evaluation_advice,
    forecast_finetuning,
    forecast_training,
    memory_advice,
    validation_advice,
)
from calmkit.reports import RESULTS
from calmkit.saving import WEIGHTS_FILE
from calmkit.training import OutOfMemory

from .display import Display
from .forecast_tables import forecast_notes, forecast_table
from .mistakes import Failed, Mistake, mistakes, mistakes_in_checkpoints
from .next_commands import next_commands
from .output import held, new_console, start_output, write_and_show
from .parent_watch import ending_with_parent
from .trust import without_trust

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["run"]

Forecaster = Callable[[config.TrainExperiment, int], Mapping[str, Forecast]]


def run(options: list[str]) -> None:
    """Train, save and report; options are the keys of a config and `--trust`."""
    with mistakes():
        given, trust = without_trust(options)
        parsed = config.parse(given, command="calmkit train", trust=trust)
        experiment, text = parsed.experiment, parsed.text
        _check_no_comparison(experiment.output)
        check_resumable(experiment.output, text)
        fabric = fabric_of(experiment)
        if not experiment.dry_run:
            _check_command_line(fabric, options)
    plan: EvaluationPlan | None = None
    with mistakes(), _display(fabric) as display:
        if experiment.finetune is None:
            corpus = prepare(experiment, display)
            inputs = inputs_of(experiment, corpus)
            plan = EvaluationPlan.of_training(experiment, corpus, text)
            forecast = partial(forecast_training, corpus=corpus)
            work = partial(train, corpus=corpus)
        else:
            pairs = prepare_finetuning(experiment, trust=trust)
            inputs = pairs.inputs
            forecast = partial(forecast_finetuning, prepared=pairs)
            work = partial(finetune, prepared=pairs)

    def forecaster(changed: config.TrainExperiment, devices: int) -> Mapping[str, Forecast]:
        return forecast(changed, devices=devices)

    forecasts = _forecast(experiment, forecaster, fabric)
    if experiment.dry_run:
        return
    with _held(experiment.output, fabric), _advice(experiment, forecaster, fabric):
        with mistakes():
            check_resumable(experiment.output, text, **inputs)
            if fabric.is_global_zero:
                start_output(experiment.output, "train", text)
        with _all_processes(fabric, text, inputs):
            with mistakes_in_checkpoints(), _display(fabric) as display:
                result = work(
                    experiment,
                    config_text=text,
                    display=display,
                    fabric=fabric,
                    forecasts=forecasts,
                )
        if isinstance(result, RunRecord) and plan is not None:
            _show_scores(result, plan, experiment.output)
        elif result is not None:
            files = f"{experiment.output}/: finetuning.json, config.yaml, the model"
            new_console().print(f"{result}\n{files}", markup=False, highlight=False)
        if result is not None:
            ways = next_commands(experiment.output, text)
            new_console().print(ways, markup=False, highlight=False, soft_wrap=True)


def _check_no_comparison(output: Path) -> None:
    """Refuse a folder that holds the results of a comparison."""
    trained_here = (output / WEIGHTS_FILE).exists() or (output / CHECKPOINTS).exists()
    if (output / RESULTS).is_file() and not trained_here:
        raise ValueError(
            f"output must not hold the results of a comparison, which would be lost; {output} "
            "does. Choose another."
        )


def _check_command_line(fabric: "Fabric", options: Sequence[str]) -> None:
    """Refuse to start processes by a command line other than this command's."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    if environment is None or environment.creates_processes_externally:
        return
    if fabric.world_size > 1 and sys.argv[len(sys.argv) - len(options) :] != list(options):
        raise ValueError(
            "devices must be 1 when calmkit is called inside a program, whose command line would "
            f"be run again for each further device; got {fabric.world_size}. Run `calmkit train` "
            "by itself, or the program under torchrun."
        )


def _display(fabric: "Fabric") -> AbstractContextManager[RunProgress]:
    return Display(new_console()) if fabric.is_global_zero else nullcontext(Silent())


def _held(output: Path, fabric: "Fabric") -> AbstractContextManager[object]:
    return held(output) if fabric.is_global_zero else nullcontext()


def _forecast(
    experiment: config.TrainExperiment, forecaster: Forecaster, fabric: "Fabric"
) -> Mapping[str, Forecast]:
    """Forecast what the training needs, and show it; only the first process does."""
    if not fabric.is_global_zero:
        return {}
    forecasts = forecaster(experiment, fabric.world_size)
    console = new_console()
    console.print(forecast_table(forecasts, fabric.device))
    notes = forecast_notes(forecasts, fabric.device)
    console.print(notes, markup=False, highlight=False)
    return forecasts


@contextmanager
def _advice(
    experiment: config.TrainExperiment, forecaster: Forecaster, fabric: "Fabric"
) -> Iterator[None]:
    """Turn an `OutOfMemory` into a `Mistake` that says what to change."""
    try:
        yield
    except OutOfMemory as error:
        stage, during = error.stage, error.during
    else:
        return
    # Outside of the handler, whose traceback keeps the tensors of the failed step.
    if during == "validation":
        raise Mistake(validation_advice(stage, experiment))
    if during == "evaluation":
        raise Mistake(evaluation_advice(stage, experiment))
    raise Mistake(memory_advice(stage, experiment, fabric.world_size, forecaster))


@contextmanager
def _all_processes(fabric: "Fabric", text: str, inputs: Mapping[str, str]) -> Iterator[None]:
    """Start the other processes of the training; in the block, the end of one ends all.

    Raises:
        Mistake: If another process has other inputs, another config, or other code of calmkit or
            PyTorch.
        Failed: If another process has ended or does not answer.
    """
    with ending_with_parent():
        fabric.launch()
    try:
        with ending_together(fabric):
            with mistakes():
                code = json.dumps(code_of_result(text))
                check_agreement(
                    fabric, {**inputs, "config": text, "code": code, "PyTorch": torch.__version__}
                )
            yield
    except LostProcessError as error:
        raise Failed(str(error)) from None


def _show_scores(record: RunRecord, plan: EvaluationPlan, output: Path) -> None:
    result = result_of_one(record, plan, output.name)
    console = new_console()
    report = write_and_show(result, output, console)
    if (quality := report.lines[0].text_quality) is not None:
        console.print(f"text  {quality.verdict}", markup=False, highlight=False, soft_wrap=True)
