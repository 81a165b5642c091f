"""The kinds of parts there are suites for."""

import importlib
import importlib.util

from calmkit.testing.suite import Suite

__all__ = ["KINDS", "suite_of"]

# Each suite is the constant SUITE of a package; those of other kinds need not be imported.
KINDS = {
    "head": "heads",
    "rule": "rules",
    "kernel": "kernels",
    "noise": "noises",
    "solver": "solvers",
    "sampler": "samplers",
    "autoencoder": "autoencoders",
    "input_encoder": "input_encoders",
    "backbone": "backbones",
    "attention": "attention",
}


def suite_of(kind: str) -> Suite:
    """The suite of a kind.

    Raises:
        ValueError: If there is no such kind.
        ImportError: If hypothesis is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    if importlib.util.find_spec("hypothesis") is None:
        raise ImportError(
            "calmkit.testing needs hypothesis; install it with: pip install 'calmkit[testing]'."
        )
    return importlib.import_module(f"calmkit.testing.{KINDS[kind]}").SUITE
