"""`calmkit compare`: several models on the same text, seeds and budget."""

from calmkit.comparison import Preparation, compare, plan_runs, prepare_all
from calmkit.config import parse_comparison
from calmkit.saving import WEIGHTS_FILE

from .display import Display
from .mistakes import Failed, mistakes, mistakes_in_checkpoints
from .output import held, new_console, start_output, write_and_show

__all__ = ["run"]

_HELP = """keys of a comparison, beside those of `calmkit train` below:
  variants       names, and the keys that each sets; --variants.flow.head.depth 6 sets one of them
  grid           keys and lists of values: every variant with every combination
  seeds          how many, or a list
  budget         what is equal: steps, flops or seconds
  context        tokens in a row, and
  scored_after   tokens before the first scored one: positions are counted for each chunk_size
  processes      runs side by side
  threads        threads of each run; equal numbers take equal threads
  trained        folder of trainings to share with other comparisons
"""

_MOST_FILES = 4


def run(options: list[str]) -> None:
    """Plan the runs, do them and report; options are the keys of a comparison."""
    if "--help" in options:
        print(_HELP)
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
        prepared = prepare_all(comparison)
    with held(comparison.output):
        _compare(prepared)


def _compare(prepared: Preparation) -> None:
    comparison = prepared.comparison
    with mistakes():
        start_output(comparison.output, "compare", comparison.text)
    console = new_console()
    with Display(console) as display:
        with mistakes():
            runs = plan_runs(prepared, display)
        with mistakes_in_checkpoints():
            result = compare(prepared, runs, display)
    write_and_show(result, comparison.output, console)
    if any(variant.failures for variant in result.variants):
        errors = [str(run.error_file) for run in runs if run.error_file.exists()]
        kept = f"\n  the whole errors: {', '.join(errors[:_MOST_FILES])}" if errors else ""
        more = f", and {len(errors) - _MOST_FILES} more" if len(errors) > _MOST_FILES else ""
        raise Failed(
            f"some runs failed; the table says which. Run it again to try those alone.{kept}{more}"
        )
