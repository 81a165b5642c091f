"""The classes and functions that a saved model may name.

A name is checked before anything is imported. It must be one of these:

- A part of calmkit: a public class, or a `recorded` function, of one of the packages that define
  parts, by the name of the module that defines it or of a package that exports it.
- One of a few exact names outside calmkit, such as `torch.nn.functional.silu`.
- A definition at the top level of a module of a trusted package. Modules are imported by their
  full names and never reached through each other, so that the package's own imports stay out of
  reach: trust in `mine` does not include `mine.os.system`.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterator
from types import ModuleType
from typing import Any

import calmkit
from calmkit.recording import makes_parts

from .errors import SavedModelError, UntrustedCodeError

__all__ = ["ACTIVATIONS", "check_name", "find"]

# The rest of `interop` defines no parts, and needs libraries that may not be installed.
_PACKAGES = (
    "autoencoders", "backbones", "distributions", "heads", "interop.parts",
    "interop.settings", "interop.time_embedding", "models", "nn", "sampling", "scoring",
)  # fmt: skip

# Functions that only compute. Three of them are defined among torch's compiled functions.
ACTIVATIONS = frozenset(
    ("torch._C._nn.gelu", "torch._C._nn.log_sigmoid", "torch._C._nn.softplus")
) | frozenset(
    f"torch.nn.functional.{name}"
    for name in (
        "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
        "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh",
    )
)  # fmt: skip


def check_name(
    path: str, trust: Collection[str] = (), *, exact: Collection[str] = ACTIVATIONS
) -> None:
    """Check a name without importing anything from outside calmkit.

    Args:
        path: A dotted name.
        trust: Packages, or modules of them, whose code may be imported and run.
        exact: Other allowed names outside calmkit.

    Raises:
        SavedModelError: If it is inside calmkit but does not name a part.
        UntrustedCodeError: If it is outside calmkit and not trusted.
    """
    if path in exact or _trusted(path, trust):
        return
    if path.startswith(f"{calmkit.__name__}."):
        if path not in _parts():
            raise SavedModelError(
                f"{path} must be a public part of calmkit, in a version that has it; there is "
                "none of that name."
            )
        return
    package = path.partition(".")[0]
    raise UntrustedCodeError(
        f"trust must name every package outside calmkit that a saved model needs; it needs "
        f"{path}, whose code would run here. If you know it to be harmless, pass "
        f"trust=({package!r},), on the command line --trust {package}."
    )


def find(
    path: str, trust: Collection[str] = (), *, exact: Collection[str] = ACTIVATIONS
) -> Callable[..., Any]:
    """The class or function of a name.

    Args:
        path: A dotted name.
        trust: As in `check_name`, which is called first.
        exact: As in `check_name`.

    Raises:
        SavedModelError: If it does not exist, or is defined in another module.
        UntrustedCodeError: As in `check_name`.
    """
    check_name(path, trust, exact=exact)
    if path in _parts():
        return _parts()[path]
    module, _, name = path.rpartition(".")
    try:
        # The module is imported by its full name, under which its own imports are not found.
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SavedModelError(
            f"{path} must be importable, in a version that has it; {error}."
        ) from None
    home = getattr(found, "__module__", None) or ""
    if not callable(found) or (path not in exact and not _trusted(f"{home}.", trust)):
        raise SavedModelError(
            f"{path} must be a class or function that a trusted package defines itself; it is "
            f"{'from ' + home if home else 'none'}."
        )
    return found


def _trusted(path: str, trust: Collection[str]) -> bool:
    return any(path.startswith(f"{allowed}.") for allowed in trust)


@functools.cache
def _parts() -> dict[str, Callable[..., Any]]:
    """Every part of calmkit, by all of its names."""
    found: dict[str, Callable[..., Any]] = {}
    for module in _modules():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
                continue
            if inspect.isclass(value) or makes_parts(value):
                steps = module.__name__.split(".")
                for length in range(2, len(steps) + 1):
                    place = ".".join(steps[:length])
                    if getattr(importlib.import_module(place), name, None) is value:
                        found[f"{place}.{name}"] = value
    return found


def _modules() -> Iterator[ModuleType]:
    for package in _PACKAGES:
        top = importlib.import_module(f"{calmkit.__name__}.{package}")
        yield top
        for inside in pkgutil.walk_packages(getattr(top, "__path__", ()), f"{top.__name__}."):
            yield importlib.import_module(inside.name)
