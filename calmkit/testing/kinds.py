"""The kinds of parts that have a suite, and where the contracts of each are."""

import importlib
from dataclasses import dataclass

from calmkit.extras import require
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["KINDS", "Kind", "suite_of"]


@dataclass(frozen=True)
class Kind:
    """The place of a suite, whose modules are imported on demand.

    Attributes:
        package: A package of `calmkit.testing`, which has a module `trial`.
        trial: The class in that module that builds and calls a part of the kind.
        modules: The modules of the contracts, in the order of the suite.
        heading: The heading of `docs/testing.md` that explains them, as it stands in a link.
    """

    package: str
    trial: str
    modules: str
    heading: str


KINDS = {
    "head": Kind(
        "heads", "HeadTrial",
        "shapes gradients randomness positions precision states refusals density learning",
        "heads",
    ),
    "rule": Kind("rules", "RuleTrial", "shapes numbers propriety", "scoring-rules"),
    "kernel": Kind("kernels", "KernelTrial", "distances definiteness", "kernels"),
    "noise": Kind("noises", "NoiseTrial", "drawing distribution", "noises"),
    "solver": Kind("solvers", "SolverTrial", "solving", "solvers"),
    "sampler": Kind("samplers", "SamplerTrial", "choices laws", "samplers"),
    "autoencoder": Kind("autoencoders", "AutoencoderTrial", "coding learning", "autoencoders"),
    "input_encoder": Kind("input_encoders", "EncoderTrial", "reading trained", "input-encoders"),
    "backbone": Kind("backbones", "BackboneTrial", "sequences caching numbers", "backbones"),
    "attention": Kind(
        "attention", "AttentionTrial", "formula visibility refusals", "attention-backends"
    ),
}  # fmt: skip


def suite_of(kind: str) -> Suite:
    """The suite of a kind.

    Raises:
        ValueError: If there is no such kind.
        ImportError: If hypothesis is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    require("hypothesis", "calmkit.testing")
    place = KINDS[kind]
    trial, *modules = (
        importlib.import_module(f"calmkit.testing.{place.package}.{name}")
        for name in ("trial", *place.modules.split())
    )
    return Suite(
        kind=kind,
        trial=getattr(trial, place.trial),
        contracts=contracts_of(*modules),
        docs=f"docs/testing.md#{place.heading}",
    )
