"""`calmkit evaluate`: evaluate a saved model on held-out text, and diagnose its parts."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from calmkit.comparison import result_of_one
from calmkit.config import parse_function
from calmkit.diagnostics import TextQuality, diagnose
from calmkit.experiments import (
    Checkpoint,
    EvaluationPlan,
    evaluate_checkpoint,
    load_checkpoint,
    plan_evaluation,
)
from calmkit.files import replace_file
from calmkit.models import CALM
from calmkit.reports import write_diagnosis
from calmkit.training import out_of_memory_in

from .mistakes import mistakes
from .output import folder_for_results, held, new_console, write_and_show
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Evaluate and report; see `_options`."""
    console = new_console()
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit evaluate")
        folder, output, diagnostics = (
            chosen.pop(name) for name in ("checkpoint", "output", "diagnostics")
        )
        chosen["trust"] = packages_in(chosen["trust"])
        checkpoint = load_checkpoint(folder, trust=chosen["trust"])
        plan = plan_evaluation(checkpoint, note=lambda text: print(text, flush=True), **chosen)
    output = output or folder_for_results(folder, checkpoint, "evaluation")
    with held(output):
        source = f"{checkpoint.config}, and" if checkpoint.config else "No config of a training:"
        head = f"# {source} the options laid over it.\n"
        replace_file(output / "config.yaml", head + plan.config)
        record = evaluate_checkpoint(checkpoint, plan)
        result = result_of_one(record, plan, folder.resolve().name)
        report = write_and_show(result, output, console)
        if diagnostics:
            _diagnose(checkpoint, plan, output, console, report.lines[0].text_quality)


def _diagnose(
    checkpoint: Checkpoint,
    plan: EvaluationPlan,
    output: Path,
    console: Console,
    text: TextQuality | None,
) -> None:
    """Diagnose each part of a saved model, and its text against trigrams."""
    if not isinstance(checkpoint.model, CALM):  # a softmax has no autoencoder and no head
        return
    try:
        rows = plan.rows_to_diagnose()
    except ValueError as error:
        console.print(f"Skipped diagnostics: {error}", markup=False, highlight=False)
        return
    with out_of_memory_in("the model", during="diagnosis"):
        diagnosis = diagnose(
            checkpoint.model,
            rows,
            checkpoint.tokenizer,
            draws=plan.settings.draws,
            min_context=plan.settings.min_context,
            seed=plan.drawing_seed,
        )
    diagnosis = replace(diagnosis, text=text)
    names = ", ".join(file.name for file in write_diagnosis(diagnosis, output))
    console.print(f"{diagnosis.to_text()}{output}/: {names}", markup=False, highlight=False)


def _options(
    *,
    checkpoint: Path,
    data: Path | None = None,
    rows: int | None = None,
    draws: int | None = None,
    positions: int | None = None,
    min_context: int | None = None,
    continued: int | None = None,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    output: Path | None = None,
    trust: str = "",
    diagnostics: bool = True,
) -> None:
    """Evaluate a saved model.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, a published checkpoint, or
            a model of the Hugging Face hub, owner/name. Only the folder of `calmkit train` has a
            config, which defines the held-out text and the protocol.
        data: Other text to evaluate on. All of it is used, or the held-out side of a folder
            written by `calmkit prepare`. None: the text held out in training, or the embedded
            English text for a model without a config.
        rows: Rows of text. None: as in the model's config, or 128.
        draws: Head samples per position. None: as in the model's config, or 8.
        positions: Chunks in a row. None: as in the model's config, or 64.
        min_context: Chunks of true text before the first scored one. None: as in the model's
            config, or 16.
        continued: Tokens that the model writes after each row's context, to be compared with the
            true text; 0 for none. None: as in the model's config, or 32.
        accelerator: Device to compute on. None: as in the model's config, or the fastest device.
        output: Folder for results. None: `evaluation` in the checkpoint, or runs/NAME/evaluation
            for a model of the hub.
        trust: Comma-separated packages outside calmkit whose parts the model may name. They are
            imported and run; without this option only calmkit's own code runs.
        diagnostics: Also diagnose each part, which takes seconds.
    """
