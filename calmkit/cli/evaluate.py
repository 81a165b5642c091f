"""`calmkit evaluate`: a saved model on held-out text, and what each part of it is worth."""

from pathlib import Path
from typing import Literal

import lightning_fabric  # noqa: F401  used later; here Ctrl-C does not end in a traceback
from rich.console import Console

from calmkit.comparison import result_of_one
from calmkit.config import parse_function
from calmkit.diagnostics import diagnose
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

from .mistakes import mistakes
from .output import held, new_console, write_and_show
from .trust import packages_in

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Measure and report; see `_options`."""
    console = new_console()
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit evaluate")
        folder, output, diagnostics = (
            chosen.pop(name) for name in ("checkpoint", "output", "diagnostics")
        )
        chosen["trust"] = packages_in(chosen["trust"])
        checkpoint = load_checkpoint(folder, trust=chosen["trust"])
        plan = plan_evaluation(checkpoint, note=lambda text: print(text, flush=True), **chosen)
    output = output or folder / "evaluation"
    with held(output):
        source = f"{checkpoint.config}, and" if checkpoint.config else "No config of a training:"
        head = f"# {source} the options laid over it.\n"
        replace_file(output / "config.yaml", head + plan.config)
        record = evaluate_checkpoint(checkpoint, plan)
        result = result_of_one(record, plan, folder.resolve().name)
        write_and_show(result, output, console)
        if diagnostics:
            _diagnose(checkpoint, plan, output, console)


def _diagnose(
    checkpoint: Checkpoint, plan: EvaluationPlan, output: Path, console: Console
) -> None:
    """Say of each part of a saved model whether it works."""
    if not isinstance(checkpoint.model, CALM):  # a softmax has no autoencoder and no head
        return
    try:
        rows = plan.rows_to_diagnose()
    except ValueError as error:
        console.print(f"Without diagnostics: {error}", markup=False, highlight=False)
        return
    diagnosis = diagnose(
        checkpoint.model,
        rows,
        checkpoint.tokenizer,
        draws=plan.settings.draws,
        min_context=plan.settings.min_context,
        seed=plan.drawing_seed,
    )
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
    accelerator: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    output: Path | None = None,
    trust: str = "",
    diagnostics: bool = True,
) -> None:
    """Measure a saved model.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, or a published one. Only
            `calmkit train` writes a config that says what text was held out, and how it is scored.
        data: Other text to measure on, all of it; of a folder written by `calmkit prepare`, what
            is held out there. None: what training held out; without a config
            the embedded English text.
        rows: Rows of text. None: as in the model's config, or 128.
        draws: Head samples for each position. None: as in the model's config, or 8.
        positions: Chunks in a row. None: as in the model's config, or 64.
        min_context: Chunks of true text before the first that is scored. None: as in the model's
            config, or 16.
        accelerator: Where to compute. None: as in the model's config, or the fastest there is.
        output: Folder for results. None: `evaluation` in the checkpoint.
        trust: Packages outside calmkit, with commas between, whose parts the model may name; they
            are imported and run. Without it, nothing runs but calmkit's own code.
        diagnostics: Say too what works and what does not, part by part; takes seconds.
    """
