"""Accounts of models described by a preset or a config."""

from collections.abc import Callable

from calmkit.accounting import PUBLISHED, Account, account_of
from calmkit.config import ConfigError, ModelParts, assemble, parse
from calmkit.heads import Head
from calmkit.nn import without_memory

__all__ = ["account_parts", "account_preset"]

_PRESETS = ("calm-s", *PUBLISHED)


def account_preset(name: str) -> Account:
    """Account for a preset of one model: one of the paper's, or `calm-s`.

    Raises:
        ConfigError: If there is no such preset.
    """
    if name not in _PRESETS:
        raise ConfigError(
            f"--preset {name}: there is no such model.", wrong=name, allowed=_PRESETS
        )
    experiment = parse(["--config", name], command="calmkit account").experiment
    return account_parts(experiment, experiment.head, context=experiment.positions)


def account_parts(parts: ModelParts, head: Callable[[int, int], Head], *, context: int) -> Account:
    """Account for a model described by a config.

    Args:
        parts: Sizes and factories.
        head: The head's factory.
        context: Positions in a row.

    Raises:
        ConfigError: If a constructor refuses a value; names the part's key.
    """
    return account_of(without_memory(lambda: assemble(parts, head)), context)
