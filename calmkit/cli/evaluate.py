"""`calmkit evaluate`: a saved model on held-out text, and what each part of it is worth."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  used later; here Ctrl-C does not end in a traceback
import torch
from rich.console import Console

from calmkit import config
from calmkit.cli.display import Display
from calmkit.cli.mistakes import mistakes
from calmkit.cli.output import held, new_console, write_and_show
from calmkit.cli.trust import packages_in
from calmkit.comparison.comparing import single
from calmkit.config.experiment import WeightedText
from calmkit.config.model_config import parse_for_evaluation
from calmkit.config.parsing import parse_function
from calmkit.data import Corpus, EvaluationRows
from calmkit.diagnostics.diagnose import diagnose, enough_rows
from calmkit.experiments.model_folder import Checkpoint, check_config_fits, load_checkpoint
from calmkit.experiments.preparing import check_rows, prepare, rows_to_diagnose, with_other_text
from calmkit.experiments.single_model import evaluate_checkpoint
from calmkit.experiments.standalone import Protocol, ScoredText, measure, text_to_score
from calmkit.files import replace_file
from calmkit.models import CALM
from calmkit.reports.diagnosis_files import write_diagnosis
from calmkit.saving import saved_tokenizer

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Measure and report; see `_options`."""
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit evaluate")
        trust = packages_in(chosen["trust"])
        checkpoint = load_checkpoint(chosen["checkpoint"], trust=trust)
    output = chosen["output"] or chosen["checkpoint"] / "evaluation"
    if checkpoint.config is None:
        _without_config(checkpoint, chosen, output)
        return
    with mistakes():
        overrides = []
        for name in ("rows", "draws", "min_context"):
            if chosen[name] is not None:
                overrides.append(f"--evaluation.{name}={chosen[name]}")
        if chosen["positions"] is not None:
            overrides.append(f"--positions={chosen['positions']}")
        parsed = parse_for_evaluation(
            checkpoint.config, overrides, trust=trust, command="calmkit evaluate"
        )
        check_config_fits(checkpoint, parsed.experiment)
        named = (parsed.experiment.data, parsed.experiment.evaluation_data)
        for text in _texts(*named):
            print(f"Reading {text}, which {checkpoint.config} names.", flush=True)
        corpus = _held_out(parsed.experiment, checkpoint, chosen["data"])
        check_rows(parsed.experiment, corpus)
    with held(output):
        _with_config(parsed, checkpoint, corpus, output, diagnostics=chosen["diagnostics"])


def _with_config(
    parsed: config.Parsed,
    checkpoint: Checkpoint,
    corpus: Corpus,
    output: Path,
    *,
    diagnostics: bool,
) -> None:
    """A model that says how it was trained."""
    head = f"# What was read of {checkpoint.config}, and the options laid over it.\n"
    replace_file(output / "config.yaml", head + parsed.text)
    console = new_console()
    with Display(console) as display:
        record = evaluate_checkpoint(parsed.experiment, checkpoint, corpus, display=display)
    result = single(record, parsed.experiment, corpus, parsed.text)
    write_and_show(result, output, console)
    if not diagnostics:
        return
    try:
        rows = rows_to_diagnose(parsed.experiment, corpus)
    except ValueError as error:
        console.print(f"Without diagnostics: {error}", markup=False, highlight=False)
    else:
        _diagnose(parsed.experiment, checkpoint, rows, output, console)


def _without_config(checkpoint: Checkpoint, chosen: dict[str, Any], output: Path) -> None:
    """A model that does not say on what text and how it is measured: the options do."""
    names = ("rows", "draws", "min_context", "positions")
    with mistakes():
        protocol = Protocol.of_options(**{name: chosen[name] for name in names})
        text = text_to_score(checkpoint, chosen["data"], protocol)
    console = new_console()
    with held(output):
        for said in _measure_and_write(
            checkpoint, text, output, diagnostics=chosen["diagnostics"]
        ):
            console.print(said, markup=False, highlight=False)


def _held_out(
    experiment: config.TrainExperiment, checkpoint: Checkpoint, data: Path | None
) -> Corpus:
    """The corpus of a saved model, with other held-out text if `data` is given."""
    corpus = prepare(experiment)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "tokenizer.json"
        corpus.tokenizer.save(again)
        same = again.read_text(encoding="utf-8") == saved_tokenizer(checkpoint.folder)
    if not same:
        raise ValueError(
            f"data {', '.join(map(str, _texts(experiment.data))) or '(embedded text)'} has "
            "changed since the model was trained on it, so what was held out is not known any "
            "more. Restore it."
        )
    if data is None:
        return corpus
    return with_other_text(corpus, data)


def _texts(*named: dict[str, WeightedText] | Path | None) -> list[Path]:
    """The paths of texts, and of those in mixtures."""
    lists = [[t.path for t in one.values()] if isinstance(one, dict) else [one] for one in named]
    return [path for one in lists for path in one if path is not None]


def _diagnose(
    experiment: config.TrainExperiment,
    checkpoint: Checkpoint,
    rows: EvaluationRows,
    output: Path,
    console: Console,
) -> None:
    """Tell of each part of a saved model whether it works."""
    if not isinstance(checkpoint.model, CALM):  # a softmax has no autoencoder and no head
        return
    diagnosis = diagnose(
        checkpoint.model,
        rows,
        checkpoint.tokenizer,
        draws=experiment.evaluation.draws,
        min_context=experiment.evaluation.min_context,
        seed=experiment.seed,
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
        output: Folder for results. None: `evaluation` in the checkpoint.
        trust: Packages outside calmkit, with commas between, whose parts the model may name; they
            are imported and run. Without it, nothing runs but calmkit's own code.
        diagnostics: Say too what works and what does not, part by part; takes seconds.
    """


def _measure_and_write(
    checkpoint: Checkpoint, text: ScoredText, output: Path, *, diagnostics: bool
) -> Iterator[str]:
    """Measure on the fastest device, write `evaluation.json`, and give what is to be shown.

    Args:
        checkpoint: The model and its tokenizer.
        text: By `text_to_score`.
        output: A folder.
        diagnostics: Whether to diagnose the model's parts too, where it has any.
    """
    model = checkpoint.model.to("cuda" if torch.cuda.is_available() else "cpu")
    measurement = measure(model, text)
    measurement.write(output / "evaluation.json")
    yield f"{measurement.to_text()}{output}/: evaluation.json"
    if diagnostics and isinstance(model, CALM):
        settings = text.protocol.settings
        try:
            diagnosis = diagnose(
                model,
                text.rows(enough_rows(text.protocol.positions, settings.rows)),
                checkpoint.tokenizer,
                draws=settings.draws,
                min_context=settings.min_context,
                seed=text.protocol.seed,
            )
        except ValueError as error:
            yield f"Without diagnostics: {error}"
        else:
            names = ", ".join(file.name for file in write_diagnosis(diagnosis, output))
            yield f"{diagnosis.to_text()}{output}/: {names}"
