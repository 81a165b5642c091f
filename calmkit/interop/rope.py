"""Conversion of a config's `rope_scaling` to a part and back: none, linear, or Llama 3."""

from collections.abc import Mapping
from typing import Any

from calmkit.backbones import LinearScaling, Llama3Scaling, RopeScaling

from .errors import CheckpointFormatError
from .settings import Settings

__all__ = ["rope_config", "rope_part"]


def rope_part(settings: Settings) -> RopeScaling | None:
    """The scaling that a config names; None if it has none.

    Raises:
        CheckpointFormatError: If it is of another kind, or a value is missing or wrong.
    """
    values = settings.values.get("rope_scaling")
    if values is None:
        return None
    kind = None
    if isinstance(values, Mapping):
        scaling = Settings(settings.path, values)
        kind = values.get("rope_type", values.get("type"))
        if kind == "linear":
            return LinearScaling(factor=scaling.number("factor"))
        if kind == "llama3":
            return Llama3Scaling(
                factor=scaling.number("factor"),
                original_positions=scaling.size("original_max_position_embeddings"),
                low_freq_factor=scaling.number("low_freq_factor"),
                high_freq_factor=scaling.number("high_freq_factor"),
            )
        if kind == "default":
            return None
    raise CheckpointFormatError(
        f"{settings.path}: rope_scaling must be null, or have default, linear or llama3 as its "
        f"rope_type; got {values!r}."
    )


def rope_config(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The config entry of a scaling.

    Raises:
        ValueError: If the published code does not support the scaling.
    """
    match scaling:
        case None:
            return None
        case LinearScaling():
            return {"rope_type": "linear", "factor": scaling.factor}
        case Llama3Scaling():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_positions,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
            }
    raise ValueError(
        "rope_scaling must be None, LinearScaling or Llama3Scaling to be saved; got "
        f"{type(scaling).__name__}."
    )
