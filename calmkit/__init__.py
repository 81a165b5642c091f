"""calmkit: typed, tested building blocks for continuous autoregressive language models (CALM).

Import parts from the package of their kind, for instance `from calmkit.heads import EnergyHead`,
or reach them from here: `calmkit.heads.EnergyHead`. `calmkit.save` and `calmkit.load` are those of
`calmkit.saving`.
"""

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .saving import load as load
    from .saving import save as save

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a package, `save` or `load` on first access, so that `import calmkit` is fast."""
    if name in ("load", "save"):
        return getattr(importlib.import_module("calmkit.saving"), name)
    if not name.startswith("_") and name in _modules():
        return importlib.import_module(f"calmkit.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_modules(), "load", "save"})


@functools.cache
def _modules() -> frozenset[str]:
    # Kept: a parser of configs looks up hundreds of names, and each would list the folder.
    return frozenset(module.name for module in pkgutil.iter_modules(__path__))
