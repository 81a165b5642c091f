"""A softmax model over tokens beside the variants of a comparison: `softmax: true`.

It has the backbone, the optimiser and the settings of the first variant, and reads the same rows
of text, one token at a time. Whatever the budget of the variants, it is trained with the training
FLOPs of the first one. `softmax: {optimizer: {init_args: {lr: 2.0e-3}}}` changes its keys.
"""

from dataclasses import replace

from calmkit.config import Comparison, ConfigError, Variant, parse_text

__all__ = ["SOFTMAX", "is_softmax", "with_softmax"]

SOFTMAX = "softmax"
"""Name of the baseline among the variants."""

_OWN = ("model", "chunk_size", "positions")


def with_softmax(comparison: Comparison) -> Comparison:
    """Add the softmax baseline as the last variant, if the comparison asks for one.

    Raises:
        ConfigError: If a variant has its name, or its keys are wrong.
    """
    if comparison.softmax is None:
        return comparison
    if any(variant.name == SOFTMAX for variant in comparison.variants):
        raise ConfigError(
            f"variants must not contain {SOFTMAX!r}, the name of the baseline; rename it, or "
            "leave out the key softmax."
        )
    for key in _OWN:
        if key in comparison.softmax:
            raise ConfigError(
                f"softmax must not set {key}, which follows from the first variant; got "
                f"{comparison.softmax[key]!r}."
            )
    first = comparison.variants[0]
    experiment = first.experiment
    tokens = {
        "positions": experiment.positions,
        "evaluation.min_context": experiment.evaluation.min_context,
    }
    options = ["--model=token_lm", "--chunk_size=1"]
    options += [f"--{key}={chunks * experiment.chunk_size}" for key, chunks in tokens.items()]
    try:
        parsed = parse_text(first.text, comparison.softmax, options)
    except ConfigError as error:
        raise error.at(SOFTMAX) from None
    baseline = Variant(SOFTMAX, parsed.experiment, parsed.text)
    return replace(comparison, variants=(*comparison.variants, baseline))


def is_softmax(comparison: Comparison, name: str) -> bool:
    """Whether a variant, or a trial of it, is the softmax baseline."""
    return comparison.softmax is not None and name.partition("/")[0] == SOFTMAX
