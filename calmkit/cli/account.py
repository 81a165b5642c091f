"""`calmkit account`: the cost of a model, before it is built."""

from pathlib import Path

from calmkit import config
from calmkit.accounting import PUBLISHED
from calmkit.config import parse_function
from calmkit.forecasts import account_parts, account_preset
from calmkit.reports import account_notes, models_table, parts_table

from .mistakes import mistakes
from .output import new_console

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Print one line per model and, for a single model, one per part; see `_options`."""
    with mistakes():
        chosen = parse_function(_options, options, command="calmkit account")
        name, file = chosen["preset"], chosen["config"]
        if name is not None and file is not None:
            raise ValueError("preset and config exclude each other; got both.")
        if file is None:
            names = PUBLISHED if name is None else [name]
            accounts = {name: account_preset(name) for name in names}
        else:
            layers = ["--config", file]
            experiment = config.parse(layers, command="calmkit account").experiment
            account = account_parts(experiment, experiment.head, context=experiment.positions)
            accounts = {Path(file).stem: account}
        sampling = {"candidates": chosen["candidates"], "share": chosen["decoded_share"]}
        tables = [models_table(accounts, **sampling)]
        if len(accounts) == 1:
            tables += [parts_table(account, **sampling) for account in accounts.values()]
    console = new_console()
    for table in tables:
        console.print(table)
    console.print(account_notes(**sampling), markup=False, highlight=False)


def _options(
    *,
    preset: str | None = None,
    config: str | None = None,
    candidates: float = 200,
    decoded_share: float = 1.0,
) -> None:
    """Compute the cost of a model: parameters, floating-point operations, memory.

    Args:
        preset: One of the paper's models, or `calm-s`. None: all of the paper's.
        config: A config as for `calmkit train`: a YAML file, or a preset's name.
        candidates: Latents drawn per chunk when sampling below temperature 1.
        decoded_share: Measured share of the candidates that are decoded after pruning.
    """
