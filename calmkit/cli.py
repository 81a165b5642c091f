"""The command `calmkit`: compare, train, evaluate, generate, convert, account, report.

A thin shell over `calmkit.config` (what to do) and `calmkit.comparison` (doing it). All that a
user can get wrong is checked before anything is computed, and told in a few lines:

    exit code 0    done
              1    training diverged, or a run of a comparison failed
              2    a mistake in the options, the config, the text or a checkpoint
              130  interrupted with Ctrl-C

Nothing heavy is imported at the top, so that help, and Ctrl-C, answer at once.
"""

import difflib
import importlib
import importlib.util
import itertools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calmkit import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from calmkit.comparison import ComparisonResult
    from calmkit.comparison.checkpoint import Checkpoint
    from calmkit.config import TrainExperiment
    from calmkit.data import Corpus, EvaluationRows

__all__ = ["main"]

_HELP = """usage: calmkit COMMAND [--config FILE_OR_PRESET] [--KEY VALUE ...]

Continuous autoregressive language models, part by part.

commands:
  compare    train several models on the same text, seeds and budget, and print what each of
             them is worth
  train      train one model and save it; with --finetune, a saved one on prompts and responses
  evaluate   measure a saved model on held-out text
  generate   write text with a saved model
  convert    write a published model in calmkit's format, or the other way
  account    parameters, FLOPs and memory of a model, without building its weights
  report     several comparisons as one: calmkit report DIR DIR --output DIR

examples:
  calmkit compare                               the embedded English text, about five minutes
  calmkit compare --data texts/ --head.width 256 --variants.flow.head.depth 6
  calmkit compare --config heads --data texts/  a question of the paper: see the presets
  calmkit train --head FlowHead --output runs/flow
  calmkit generate --checkpoint runs/flow --prompt "The value of" --temperature 0.5

calmkit COMMAND --help lists the options of a command; calmkit --version prints the version.
"""

_COMPARE_HELP = """keys of a comparison, beside those of `calmkit train` below:
  variants       names, and the keys that each sets; --variants.flow.head.depth 6 sets one of them
  grid           keys and lists of values: every variant with every combination
  seeds          how many, or a list
  budget         what is equal: steps, flops or seconds
  context        tokens in a row, and
  scored_after   tokens before the first scored one: positions are counted for each chunk_size
  processes      runs side by side
  trained        folder of trainings to share with other comparisons
"""

# Libraries of the extra `cli`, by the name they are imported under.
_NEEDED = ("jsonargparse", "lightning_fabric", "matplotlib", "rich", "safetensors", "tokenizers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows `calmkit` on the command line; `sys.argv` if None.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except KeyboardInterrupt:
        _say("was interrupted by Ctrl-C; what had been written is kept.")
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone; Python would complain once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(given: list[str]) -> int:
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if command == "--version":
        print(f"calmkit {__version__}")
        return 0
    commands: dict[str, Callable[[list[str]], None]] = {
        "compare": _compare, "train": _train, "evaluate": _evaluate, "generate": _generate,
        "convert": _convert, "account": _account, "report": _merge,
    }  # fmt: skip
    if command not in commands:
        nearest = difflib.get_close_matches(command, commands, n=1, cutoff=0.5)
        hint = "".join(f"\n  did you mean: {name}" for name in nearest)
        _say(f"{command}: not a command.{hint}\n  allowed: {', '.join(commands)}")
        return 2
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        _say(f"{command} needs {', '.join(missing)}: pip install 'calmkit[cli]'")
        return 2
    with _interrupts_end_the_process():
        import rich.console  # noqa: F401

        if command not in ("account", "convert", "report"):  # which train nothing, and answer soon
            import lightning_fabric  # noqa: F401

            importlib.import_module("calmkit.comparison.run")
        from calmkit.training import TrainingDiverged
    # As `python -m` does: a head in my_heads.py of this folder is `my_heads.MyHead`. Last, so
    # that no file here hides an installed module.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        commands[command](given[1:])
    except SystemExit as end:  # --help and --print_config end so
        return int(end.code or 0)
    except _Mistake as error:
        _say(f"{command}: {error}")
        return 2
    except (TrainingDiverged, _Failed) as error:
        _say(f"{command}: {error}")
        return 1
    return 0


def _compare(options: list[str]) -> None:
    from calmkit.comparison.planning import plan_runs, prepare_all
    from calmkit.comparison.progress import Display
    from calmkit.comparison.run import compare
    from calmkit.config import parse_comparison

    if "--help" in options:
        print(_COMPARE_HELP)
    with _mistakes():
        comparison = parse_comparison([o for o in options if o != "--print_config"])
        if "--print_config" in options:
            print(comparison.text, end="")
            return
        prepared = prepare_all(comparison)
        _start_output(comparison.output, "compare", comparison.text)
    console = _console()
    with Display(console) as display:
        with _mistakes():
            runs = plan_runs(prepared, display)
        with _mistakes_in_checkpoints():
            result = compare(prepared, runs, display)
    _report(result, comparison.output, console)
    if any(variant.failures for variant in result.variants):
        raise _Failed("some runs failed; the table says which. Run it again to try those alone.")


def _merge(options: list[str]) -> None:
    """`calmkit report DIR ...`: several comparisons as one."""
    from calmkit.comparison.merging import report_folders

    folders = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    with _mistakes():
        chosen = _options(_report_options, options[len(folders) :])
        result, files = report_folders([Path(folder) for folder in folders], chosen["output"])
    console = _console()
    _show(result, files, chosen["output"], console)


def _train(options: list[str]) -> None:
    from calmkit import config
    from calmkit.comparison.preparing import prepare
    from calmkit.comparison.progress import Display
    from calmkit.comparison.run import check_resumable, train

    with _mistakes():
        parsed = config.parse(options, command="calmkit train")
        check_resumable(parsed.experiment.output, parsed.text)
    if parsed.experiment.finetune is not None:
        _finetune(parsed.experiment, parsed.text)
        return
    with _mistakes():
        corpus = prepare(parsed.experiment)
        _start_output(parsed.experiment.output, "train", parsed.text)
    console = _console()
    with _mistakes_in_checkpoints(), Display(console) as display:
        result = train(parsed.experiment, corpus, config_text=parsed.text, display=display)
    _report(result, parsed.experiment.output, console)


def _finetune(experiment: "TrainExperiment", text: str) -> None:
    """`calmkit train --finetune`: a saved model on pairs; the text it was trained on is not read.

    Args:
        experiment: Has `finetune` and `checkpoint`.
        text: The effective config.
    """
    from calmkit.comparison.finetuning import finetune, prepare_finetuning
    from calmkit.comparison.progress import Display
    from calmkit.config import check_parts

    with _mistakes():
        check_parts(experiment)
        prepared = prepare_finetuning(experiment)
        _start_output(experiment.output, "train", text)
    console = _console()
    with _mistakes_in_checkpoints(), Display(console) as display:
        result = finetune(experiment, prepared, config_text=text, display=display)
    files = f"{experiment.output}/: finetuning.json, config.yaml, the model"
    console.print(f"{result}\n{files}", markup=False, highlight=False)


def _evaluate(options: list[str]) -> None:
    from calmkit import config
    from calmkit.comparison.checkpoint import load_checkpoint
    from calmkit.comparison.diagnose import rows_to_diagnose
    from calmkit.comparison.preparing import check_rows
    from calmkit.comparison.progress import Display
    from calmkit.comparison.run import evaluate_checkpoint

    with _mistakes():
        chosen = _options(_evaluate_options, options)
        checkpoint = load_checkpoint(chosen["checkpoint"], trust=_named(chosen["trust"]))
    if checkpoint.config is None:
        _evaluate_without_config(checkpoint, chosen)
        return
    with _mistakes():
        overrides = ["--config", str(checkpoint.config)]
        for name in ("rows", "draws", "min_context"):
            if chosen[name] is not None:
                overrides.append(f"--evaluation.{name}={chosen[name]}")
        if chosen["positions"] is not None:
            overrides.append(f"--positions={chosen['positions']}")
        parsed = config.parse(overrides, command="calmkit evaluate")
        corpus = _held_out(parsed.experiment, checkpoint, chosen["data"])
        check_rows(parsed.experiment, corpus)
        output = chosen["output"] or chosen["checkpoint"] / "evaluation"
        _start_output(output, "train", parsed.text)
    console = _console()
    with Display(console) as display:
        result = evaluate_checkpoint(
            parsed.experiment, checkpoint, corpus, config_text=parsed.text, display=display
        )
    _report(result, output, console)
    if not chosen["diagnostics"]:
        return
    try:
        rows = rows_to_diagnose(parsed.experiment, corpus)
    except ValueError as error:
        console.print(f"Without diagnostics: {error}", markup=False, highlight=False)
    else:
        _diagnose(parsed.experiment, checkpoint, rows, output, console)


def _evaluate_without_config(checkpoint: "Checkpoint", chosen: dict[str, Any]) -> None:
    """A model that does not say on what text and how it is measured: the options do."""
    from calmkit.comparison.standalone import Protocol, measure_and_write, text_to_score

    output = chosen["output"] or chosen["checkpoint"] / "evaluation"
    names = ("rows", "draws", "min_context", "positions")
    with _mistakes():
        protocol = Protocol.of_options(**{name: chosen[name] for name in names})
        text = text_to_score(checkpoint, chosen["data"], protocol)
        _make_folder(output)
    console = _console()
    for said in measure_and_write(checkpoint, text, output, diagnostics=chosen["diagnostics"]):
        console.print(said, markup=False, highlight=False)


def _diagnose(
    experiment: "TrainExperiment",
    checkpoint: "Checkpoint",
    rows: "EvaluationRows",
    output: Path,
    console: "Console",
) -> None:
    """Tell of each part of a saved model whether it works."""
    from calmkit.comparison.diagnose import diagnose
    from calmkit.comparison.diagnosis import write_diagnosis
    from calmkit.models import CALM

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


def _generate(options: list[str]) -> None:
    import dataclasses
    import json

    from calmkit.comparison.checkpoint import load_checkpoint
    from calmkit.comparison.writing import (
        choose_sampler,
        pieces_of_text,
        read_prompts,
        write_texts,
    )

    with _mistakes():
        chosen = _options(_generate_options, _bare_flags(options, ("--exact", "--json")))
        prompts = [chosen["prompt"]]
        if chosen["prompts"] is not None:
            if chosen["prompt"]:
                raise ValueError("prompt and prompts exclude each other; got both.")
            prompts = read_prompts(chosen["prompts"])
        if chosen["max_new_tokens"] < 1 or chosen["samples"] < 1:
            raise ValueError("max_new_tokens and samples must be at least 1.")
        checkpoint = load_checkpoint(chosen["checkpoint"], trust=_named(chosen["trust"]))
        sampler = choose_sampler(
            checkpoint.model,
            chosen["temperature"],
            chosen["candidates"],
            exact=chosen["exact"],
            top_k=chosen["top_k"],
            top_p=chosen["top_p"],
        )
    settings = {
        "max_new_tokens": chosen["max_new_tokens"], "sampler": sampler, "seed": chosen["seed"],
    }  # fmt: skip
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    prompts = [prompt for prompt in prompts for _ in range(chosen["samples"])]
    if len(prompts) == 1 and not chosen["json"]:
        print(prompts[0], end="", flush=True)
        for piece in pieces_of_text(model, tokenizer, prompts[0], **settings):
            print(piece, end="", flush=True)
        print()
        return
    for prompt, one, text in write_texts(model, tokenizer, prompts, **settings):
        line = {"prompt": prompt, "text": text, **dataclasses.asdict(one)}
        print(json.dumps(line) if chosen["json"] else prompt + text, flush=True)


def _convert(options: list[str]) -> None:
    from calmkit.comparison.checkpoint import convert_checkpoint

    with _mistakes():
        chosen = _options(_convert_options, options)
        written = convert_checkpoint(
            chosen["checkpoint"],
            chosen["output"],
            autoencoder=chosen["autoencoder"],
            trust=_named(chosen["trust"]),
        )
    print(f"{chosen['output']}/: {written}")


def _convert_options(
    *, checkpoint: Path, output: Path, autoencoder: Path | None = None, trust: str = ""
) -> None:
    """Write a saved model in the other format.

    Args:
        checkpoint: Folder in the published format, or in calmkit's own.
        output: New folder, for the other format.
        autoencoder: Folder of a published autoencoder, where the model has none inside.
        trust: Packages outside calmkit whose code the model needs, with commas between.
    """


def _named(packages: str) -> tuple[str, ...]:
    """Names with commas between, as a tuple."""
    return tuple(name.strip() for name in packages.split(",") if name.strip())


def _bare_flags(options: list[str], flags: tuple[str, ...]) -> list[str]:
    """Options in which `--flag` alone means `--flag true`."""
    given = []
    for place, option in enumerate(options):
        bare = option in flags and "".join(options[place + 1 : place + 2])[:2] in ("", "--")
        given += [option, "true"] if bare else [option]
    return given


def _account(options: list[str]) -> None:
    from calmkit import config
    from calmkit.accounting import PUBLISHED
    from calmkit.comparison.account_tables import models_table, notes, parts_table
    from calmkit.comparison.accounts import account_parts, account_preset

    with _mistakes():
        chosen = _options(_account_options, options)
        name, file = chosen["preset"], chosen["config"]
        if name is not None and file is not None:
            raise ValueError("preset and config exclude each other; got both.")
        if file is None:
            names = PUBLISHED if name is None else [name]
            accounts = {name: account_preset(name) for name in names}
        else:
            layers = ["--config", file]
            experiment = config.parse(layers, command="calmkit account").experiment
            ours = account_parts(experiment, experiment.head, context=experiment.positions)
            accounts = {Path(file).stem: ours}
        sampling = {"candidates": chosen["candidates"], "share": chosen["decoded_share"]}
        tables = [models_table(accounts, **sampling)]
        if len(accounts) == 1:
            tables += [parts_table(ours, **sampling) for ours in accounts.values()]
    console = _console()
    for table in tables:
        console.print(table)
    console.print(notes(**sampling), markup=False, highlight=False)


def _account_options(
    *,
    preset: str | None = None,
    config: str | None = None,
    candidates: float = 200,
    decoded_share: float = 1.0,
) -> None:
    """Say what a model costs: parameters, floating-point operations, memory.

    Args:
        preset: One of the paper's models. None: all of them.
        config: A config as for `calmkit train`: a YAML file, or a preset's name.
        candidates: Latents drawn for each chunk when sampling below temperature 1.
        decoded_share: Share of those candidates that pruning leaves to be decoded, as measured.
    """


def _report_options(*, output: Path = Path("runs/report")) -> None:
    """Put several comparisons side by side: calmkit report DIR DIR --output DIR.

    Args:
        output: Folder for the joint results.
    """


def _evaluate_options(
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
        data: Other text to measure on, all of it. None: what training held out; without a config
            the embedded English text.
        rows: Rows of text. None: as in the model's config, or 128.
        draws: Head samples for each position. None: as in the model's config, or 8.
        positions: Chunks in a row. None: as in the model's config, or 64.
        min_context: Chunks of true text before the first that is scored. None: as in the model's
            config, or 16.
        output: Folder for results. None: `evaluation` in the checkpoint.
        trust: Packages outside calmkit whose code the model needs, with commas between.
        diagnostics: Say too what works and what does not, part by part; takes seconds.
    """


def _generate_options(
    *,
    checkpoint: Path,
    prompt: str = "",
    prompts: Path | None = None,
    max_new_tokens: int = 100,
    samples: int = 1,
    temperature: float = 1.0,
    candidates: int = 64,
    exact: bool = False,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    json: bool = False,
    trust: str = "",
) -> None:
    """Write text with a saved model. One text appears as it is made.

    Args:
        checkpoint: Folder written by `calmkit train` or `calmkit.save`, or a published one.
        prompt: Text to continue. Empty: begin a document.
        prompts: File of prompts instead: one a line, or JSON lines with a `prompt` field.
        max_new_tokens: Most tokens to add.
        samples: How many texts to write for each prompt.
        temperature: In (0, 1]; at 0.5 and below texts are more fluent and cost more.
        candidates: Draws for each chunk at temperatures below 1.
        exact: Draw as often as the exact law needs, instead of `candidates` times.
        top_k: Keep that many of the likeliest tokens; for a softmax model only.
        top_p: Keep the likeliest tokens, or the most frequent chunks, that make up this share.
        seed: The same seed gives the same texts.
        json: Print one JSON object a line: prompt, text, tokens, why it ended, draws used.
        trust: Packages outside calmkit whose code the model needs, with commas between.
    """


def _options(function: Callable[..., None], options: list[str]) -> dict[str, Any]:
    """Parse options by the signature of a function."""
    from calmkit.config.parsing import parse_function

    name = function.__name__.strip("_").removesuffix("_options")
    return parse_function(function, options, command=f"calmkit {name}")


def _held_out(
    experiment: "TrainExperiment", checkpoint: "Checkpoint", data: Path | None
) -> "Corpus":
    """The corpus of a saved model, with other held-out text if `data` is given."""
    from calmkit.comparison.preparing import prepare, with_other_text
    from calmkit.saving import saved_tokenizer

    corpus = prepare(experiment)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "tokenizer.json"
        corpus.tokenizer.save(again)
        same = again.read_text(encoding="utf-8") == saved_tokenizer(checkpoint.folder)
    if not same:
        raise ValueError(
            f"data {experiment.data or '(embedded text)'} has changed since the model was trained "
            "on it, so what was held out is not known any more. Restore it."
        )
    if data is None:
        return corpus
    return with_other_text(corpus, data)


def _start_output(directory: Path, command: str, text: str) -> None:
    """Write the effective config first: it tells what a run was, even one that was killed."""
    head = f"# The effective config, by calmkit {__version__}. To run it again:\n"
    path = directory / "config.yaml"
    _make_folder(directory)
    path.write_text(f"{head}#   calmkit {command} --config {path}\n{text}", encoding="utf-8")


def _make_folder(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ValueError(
            f"output must be a folder that can be written; got {directory}: {error.strerror}."
        ) from None


def _report(result: "ComparisonResult", directory: Path, console: "Console") -> None:
    from calmkit.comparison.report import write_report

    files = [*write_report(result, directory), directory / "config.yaml"]
    _show(result, files, directory, console)


def _show(
    result: "ComparisonResult", files: Sequence[Path], directory: Path, console: "Console"
) -> None:
    from calmkit.comparison.report import to_table

    console.print(to_table(result))
    names = ", ".join(str(file.relative_to(directory)) for file in files)
    console.print(f"{directory}/: {names}", markup=False, highlight=False)


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    # A pipe or a log has no width of its own; rich would take 80 and break the table.
    return console if console.is_terminal else Console(width=100)


class _Failed(Exception):
    """Something did not end well after the start."""


class _Mistake(Exception):
    """A user's mistake, with its one-screen text."""


@contextmanager
def _mistakes() -> Iterator[None]:
    """Before anything is computed, a ValueError tells of a user's mistake."""
    try:
        yield
    except ValueError as error:
        raise _Mistake(str(error)) from None


@contextmanager
def _mistakes_in_checkpoints() -> Iterator[None]:
    """Later only a checkpoint can be wrong; any other ValueError is a bug, with a traceback."""
    from calmkit.training import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise _Mistake(str(error)) from None


@contextmanager
def _interrupts_end_the_process() -> Iterator[None]:
    """Ctrl-C during imports: compiled modules would turn the exception into another one."""

    def end(number: int, frame: object) -> None:
        _say("was interrupted by Ctrl-C; nothing was computed.")
        os._exit(130)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _say(text: str) -> None:
    print(f"calmkit {text}", file=sys.stderr, flush=True)
