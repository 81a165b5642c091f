r"""Scalings of rotary rates, for texts longer than those seen in training.

A scaling maps the rates of all feature pairs (angle per position, decreasing from 1) to slower
ones. If the context grows by `factor`, slow pairs, which do not complete a turn within the trained
length, are slowed by that factor. Fast pairs, which distinguish neighbours, should not change.

The parameters have the names and meanings of `rope_scaling` (now `rope_parameters`) in the
configs of Llama models.
"""

import abc
import math

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least, check_in
from calmkit.recording import Recorded
from calmkit.typing import typed

__all__ = ["LinearScaling", "Llama3Scaling", "RopeScaling", "YarnScaling"]


class RopeScaling(Recorded, abc.ABC):
    """Changes the rates of rotary position embeddings.

    Attributes:
        attention_factor: Factor on queries and on keys.
    """

    attention_factor: float = 1.0

    @abc.abstractmethod
    def scaled(self, rates: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
        """New rates of the feature pairs."""


class LinearScaling(RopeScaling):
    """Divides every rate by `factor`, as if positions were closer (arXiv 2306.15595)."""

    def __init__(self, *, factor: float) -> None:
        """Set the factor.

        Args:
            factor: Factor by which texts become longer.

        Raises:
            ValueError: If it is below 1.
        """
        check_in("[1, inf)", factor=factor)
        self.factor = factor

    @typed
    def scaled(self, rates: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
        """`rates / factor`."""
        return rates / self.factor


class Llama3Scaling(RopeScaling):
    """Slows pairs by the number of turns they make within the trained length, as in Llama 3.1.

    Rates with at least `high_freq_factor` turns are unchanged, and those with at most
    `low_freq_factor` turns are divided by `factor`. In between, the change is linear in the turns.
    """

    def __init__(
        self,
        *,
        factor: float,
        original_positions: int,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
    ) -> None:
        """Set the bounds.

        Args:
            factor: Factor by which texts become longer.
            original_positions: Length of the texts in training.
            low_freq_factor: Turns up to which a pair is slowed fully.
            high_freq_factor: Turns from which a pair is unchanged.

        Raises:
            ValueError: If a value is out of range.
        """
        check_in("[1, inf)", factor=factor)
        self.factor = factor
        check_at_least(1, original_positions=original_positions)
        if not 0 < low_freq_factor < high_freq_factor:
            raise ValueError(
                "low_freq_factor must be positive and below high_freq_factor; "
                f"got {low_freq_factor} and {high_freq_factor}."
            )
        self.original_positions = original_positions
        self.low_freq_factor = low_freq_factor
        self.high_freq_factor = high_freq_factor

    @typed
    def scaled(self, rates: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
        """`rates * (s + (1 - s) / factor)`, where s in [0, 1] depends on the number of turns."""
        turns = self.original_positions * rates / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return rates * (kept + (1 - kept) / self.factor)


class YarnScaling(RopeScaling):
    """Slows pairs along a ramp between two numbers of turns, and sharpens attention.

    The ramp is linear in the index j of the pair. It starts at the pair with `beta_fast` turns
    within the trained length (unchanged) and ends at the pair with `beta_slow` turns (divided by
    `factor`), both rounded outwards. Source: YaRN, arXiv 2309.00071.
    """

    def __init__(
        self,
        *,
        factor: float,
        original_positions: int,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        attention_factor: float | None = None,
    ) -> None:
        """Set the ramp.

        Args:
            factor: Factor by which texts become longer.
            original_positions: Length of the texts in training.
            beta_fast: Turns from which a pair is unchanged.
            beta_slow: Turns up to which a pair is slowed fully.
            attention_factor: Factor on queries and keys; 0.1 ln(factor) + 1 if None.

        Raises:
            ValueError: If a value is out of range.
        """
        check_in("[1, inf)", factor=factor)
        self.factor = factor
        check_at_least(1, original_positions=original_positions)
        if not 0 < beta_slow < beta_fast:
            raise ValueError(
                f"beta_slow must be positive and below beta_fast; got {beta_slow} and {beta_fast}."
            )
        self.original_positions = original_positions
        self.beta_fast = beta_fast
        self.beta_slow = beta_slow
        if attention_factor is None:
            attention_factor = 0.1 * math.log(factor) + 1
        self.attention_factor = attention_factor

    @typed
    def scaled(self, rates: Float[Tensor, " half"]) -> Float[Tensor, " half"]:
        """`rates * (s + (1 - s) / factor)`, where s in [0, 1] depends on the pair's index."""
        pair = torch.arange(len(rates), device=rates.device, dtype=rates.dtype)
        # ln(rate_j) = j ln(rate_1).
        step = rates[1].log() if len(rates) > 1 else rates.new_tensor(-1.0)
        turn = self.original_positions / (2 * math.pi)
        first = (math.log(self.beta_fast / turn) / step).floor().clamp_min(0)
        last = (math.log(self.beta_slow / turn) / step).ceil().clamp_max(2 * len(rates) - 1)
        kept = 1 - ((pair - first) / (last - first).clamp_min(1e-3)).clamp(0, 1)
        return rates * (kept + (1 - kept) / self.factor)
