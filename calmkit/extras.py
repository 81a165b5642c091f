"""Libraries that only some parts need, and the extra of calmkit that installs each.

A part that needs one says so before it imports it, with the remedy:

    AdaptiveSolver needs torchdiffeq; install it with pip install 'calmkit[ode]'.
"""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType

__all__ = ["EXTRAS", "is_installed", "load_fabric", "require", "with_remedy"]

# By the name a library is imported under.
EXTRAS = {
    "cattrs": "cli",
    "jinja2": "cli",
    "jsonargparse": "cli",
    "matplotlib": "cli",
    "rich": "cli",
    "lightning_fabric": "train",
    "safetensors": "train",
    "pyarrow": "data",
    "zstandard": "data",
    "tokenizers": "train",
    "torchmetrics": "train",
    "sklearn": "diagnostics",
    "hypothesis": "testing",
    "huggingface_hub": "hf",
    "transformers": "hf",
    "torchdiffeq": "ode",
    "zuko": "flows",
    "lm_eval": "eval",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "xformers": "xformers",
}


def is_installed(library: str) -> bool:
    """Whether a library can be found; it is not imported."""
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:
        return False
    except ValueError:  # a module without a file, as in tests
        return True


def require(library: str, by: str) -> None:
    """Raise an error if a library is not installed.

    Args:
        library: One of `EXTRAS`.
        by: Name of the part that needs it.

    Raises:
        ImportError: If it is not installed; the message has the command to install it.
    """
    if not is_installed(library):
        raise ImportError(f"{by} needs {library}; {_remedy(library)}")


def load_fabric(by: str) -> ModuleType:
    """Import Lightning Fabric, without what it imports only to compare versions.

    Its warnings are shown, but not its notes on every `Fabric` that is made, as on the precision.

    Args:
        by: Name of the part that needs it.

    Raises:
        ImportError: If it is not installed; the message has the command to install it.
    """
    require("lightning_fabric", by)
    if (fabric := sys.modules.get("lightning_fabric")) is None:
        with _version_only("torchmetrics"):
            fabric = importlib.import_module("lightning_fabric")
    log = logging.getLogger("lightning_fabric")
    if log.level == logging.INFO:  # as Fabric sets it; a user may have set another
        log.setLevel(logging.WARNING)
    return fabric


@contextmanager
def _version_only(library: str) -> Iterator[None]:
    """Context in which an import of a library gives its version and nothing else.

    Fabric imports torchmetrics for its version number, and torchmetrics imports scipy, matplotlib
    and transformers: more than half of the time that Fabric takes.
    """
    if library in sys.modules or not is_installed(library):
        yield
        return
    stand_in = ModuleType(library)
    stand_in.__dict__["__version__"] = metadata.version(library)
    sys.modules[library] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(library) is stand_in:
            del sys.modules[library]


def with_remedy(text: str) -> str:
    """The message of an import error, with the command that installs the library it names."""
    if "calmkit[" in text:
        return text
    for library in EXTRAS:
        if library in text:
            return f"{text.partition(chr(10))[0].rstrip('.')}; {_remedy(library)}"
    return text


def _remedy(library: str) -> str:
    return f"install it with pip install 'calmkit[{EXTRAS[library]}]'."
