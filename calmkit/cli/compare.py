"""`calmkit compare`: several models on the same text, seeds and budget."""

from rich.console import Console

from calmkit.comparison import Preparation, compare, plan_runs, prepare_all, tune
from calmkit.config import parse_comparison
from calmkit.saving import WEIGHTS_FILE

from .display import Display
from .mistakes import Failed, mistakes, mistakes_in_checkpoints
from .output import held, new_console, start_output, write_and_show

__all__ = ["run"]

_MOST_FILES = 4


def run(options: list[str]) -> None:
    """Plan the runs, execute them and report; options are the keys of a comparison."""
    with mistakes():
        comparison = parse_comparison([o for o in options if o != "--print_config"])
        if "--print_config" in options:
            print(comparison.text, end="")
            return
        if (comparison.output / WEIGHTS_FILE).is_file():
            raise ValueError(
                f"output must not hold a saved model, whose config.yaml would be lost; "
                f"{comparison.output} does. Choose another."
            )
    console = new_console()
    with mistakes(), Display(console) as display:
        prepared = prepare_all(comparison, display)
    with held(comparison.output):
        _compare(prepared, console)


def _compare(prepared: Preparation, console: Console) -> None:
    comparison = prepared.comparison
    with mistakes():
        start_output(comparison.output, "compare", comparison.text)
    with Display(console) as display:
        with mistakes():
            prepared = tune(prepared, display)
            runs = plan_runs(prepared, display)
        with mistakes_in_checkpoints():
            result = compare(prepared, runs, display)
    write_and_show(result, comparison.output, console)
    if any(variant.failures for variant in result.variants):
        errors = [str(run.error_file) for run in runs if run.error_file.exists()]
        kept = f"\n  full tracebacks: {', '.join(errors[:_MOST_FILES])}" if errors else ""
        more = f", and {len(errors) - _MOST_FILES} more" if len(errors) > _MOST_FILES else ""
        raise Failed(
            f"some runs failed; see the table. Run the command again to retry only those."
            f"{kept}{more}"
        )
