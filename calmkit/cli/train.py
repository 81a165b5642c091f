"""`calmkit train`: train one model from scratch, or fine-tune a saved one."""

from pathlib import Path

from calmkit import config
from calmkit.comparison import result_of_one
from calmkit.data import Corpus
from calmkit.experiments import (
    CHECKPOINTS,
    EvaluationPlan,
    check_resumable,
    finetune,
    inputs_of,
    prepare,
    prepare_finetuning,
    train,
)
from calmkit.reports import RESULTS
from calmkit.saving import WEIGHTS_FILE

from .display import Display
from .mistakes import mistakes, mistakes_in_checkpoints
from .output import held, new_console, start_output, write_and_show
from .trust import without_trust

__all__ = ["run"]

_HELP = """in addition to the keys of a config below:
  --trust        with --checkpoint: comma-separated packages outside calmkit whose classes the
                 saved model and its config may name; their code runs
"""


def run(options: list[str]) -> None:
    """Train, save and report; options are the keys of a config and `--trust`."""
    if "--help" in options:
        print(_HELP)
    with mistakes():
        options, trust = without_trust(options)
        parsed = config.parse(options, command="calmkit train", trust=trust)
        _check_no_comparison(parsed.experiment.output)
        check_resumable(parsed.experiment.output, parsed.text)
    if parsed.experiment.finetune is not None:
        _finetune(parsed.experiment, parsed.text, trust)
        return
    with mistakes(), Display(new_console()) as display:
        corpus = prepare(parsed.experiment, display)
    with held(parsed.experiment.output):
        _train(parsed.experiment, corpus, parsed.text)


def _check_no_comparison(output: Path) -> None:
    """Refuse a folder that holds the results of a comparison."""
    trained_here = (output / WEIGHTS_FILE).exists() or (output / CHECKPOINTS).exists()
    if (output / RESULTS).is_file() and not trained_here:
        raise ValueError(
            f"output must not hold the results of a comparison, which would be lost; {output} "
            "does. Choose another."
        )


def _train(experiment: config.TrainExperiment, corpus: Corpus, text: str) -> None:
    with mistakes():
        check_resumable(experiment.output, text, **inputs_of(experiment, corpus))
        start_output(experiment.output, "train", text)
    console = new_console()
    with mistakes_in_checkpoints(), Display(console) as display:
        record = train(experiment, corpus, config_text=text, display=display)
    plan = EvaluationPlan.of_training(experiment, corpus, text)
    result = result_of_one(record, plan, experiment.output.name)
    write_and_show(result, experiment.output, console)


def _finetune(experiment: config.TrainExperiment, text: str, trust: tuple[str, ...]) -> None:
    """Fine-tune a saved model on pairs, without reading its training text.

    Args:
        experiment: An experiment with `finetune` and `checkpoint` set.
        text: The effective config.
        trust: Packages outside calmkit that the model's parts come from.
    """
    with mistakes():
        prepared = prepare_finetuning(experiment, trust=trust)
    with held(experiment.output):
        with mistakes():
            check_resumable(experiment.output, text, **prepared.inputs)
            start_output(experiment.output, "train", text)
        console = new_console()
        with mistakes_in_checkpoints(), Display(console) as display:
            result = finetune(experiment, prepared, config_text=text, display=display)
    files = f"{experiment.output}/: finetuning.json, config.yaml, the model"
    console.print(f"{result}\n{files}", markup=False, highlight=False)
