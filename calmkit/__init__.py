"""calmkit: typed, tested building blocks for continuous autoregressive language models (CALM).

Import parts from the package of their kind, for instance `from calmkit.heads import EnergyHead`.
`calmkit.save` and `calmkit.load` are those of `calmkit.saving`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .saving import load as load
    from .saving import save as save

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `save` and `load` on first access, so that `import calmkit` is fast."""
    if name in ("load", "save"):
        return getattr(importlib.import_module("calmkit.saving"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
