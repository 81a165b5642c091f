"""How far the batch algorithm's law is from the tempered one, over the number of candidates.

For a law p over a few chunks all counts of N candidates are listed, with their multinomial
probability and the choice that the algorithm makes from them: no draws, hence no noise.
"""

from collections.abc import Sequence
from typing import Any

import torch
from measuring import log_log_slope
from torch import Tensor

from calmkit.sampling.weights import count_weights

__all__ = ["batch_laws", "distance_to_tempered"]

TEMPERATURES = (1 / 3, 0.4, 0.5, 0.7)
LAW = (0.6, 0.3, 0.1)


def all_counts(number: int, kinds: int) -> Tensor:
    """Every way to have `number` candidates of some kinds, one a row."""
    if kinds == 1:
        return torch.tensor([[number]])
    parts = [
        torch.nn.functional.pad(all_counts(number - first, kinds - 1), (1, 0), value=first)
        for first in range(number + 1)
    ]
    return torch.cat(parts)


def distance_to_tempered(law: Sequence[float], number: int, temperature: float) -> float:
    """Total variation between the expected law of the batch algorithm and p^(1/T) / Z."""
    p = torch.tensor(law, dtype=torch.float64)
    counts = all_counts(number, len(law))
    factorials = torch.lgamma(torch.arange(number + 1, dtype=torch.float64) + 1)
    chances = factorials[number] - factorials[counts].sum(-1) + (counts * p.log()).sum(-1)
    weights = count_weights(counts, number, temperature)
    shares = weights / weights.sum(dim=-1, keepdim=True)
    expected = chances.exp() @ shares
    tempered = p ** (1 / temperature)
    return float((expected - tempered / tempered.sum()).abs().sum() / 2)


def batch_laws(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """A curve of the distance over N for each temperature, and its slope at the end."""
    rows = []
    for temperature in TEMPERATURES:
        distances = [distance_to_tempered(LAW, number, temperature) for number in numbers]
        rows.append(
            {
                "temperature": temperature,
                "law": LAW,
                "candidates": list(numbers),
                "total_variation": distances,
                "slope": log_log_slope(numbers[-3:], distances[-3:]),
            }
        )
    return rows
