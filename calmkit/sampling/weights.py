r"""Weights of chunks by the number of copies that were drawn, and the choice.

For 1/T = n, a whole number, a chunk that occurs c times is in C(c, n) of the n-subsets that agree.
For a temperature in between, let s = 1/T = n + a with 0 < a < 1:

    weight(c) = Gamma(c + 1) / Gamma(c - s + 1)   for c >= n, else 0    (C(c, s), up to a factor)

This is the exact algorithm (see `exact`) applied to the N candidates in random order, each used
once. The first n agree on x with probability proportional to c (c - 1) ... (c - n + 1). Then k
others precede the next x with probability [N - c]_k / [N - n]_k (falling factorials). The
algorithm thus ends at x, not in a restart, with probability sum_k binom(a, k) (-1)^k [N - c]_k /
[N - n]_k. By the Chu-Vandermonde identity this is Gamma(c - n + 1) / Gamma(c - s + 1), up to a
factor that is the same for all chunks. As a goes to 0 or 1, the rule becomes that of n or n + 1.
"""

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "check_temperature",
    "check_top_p",
    "choose",
    "count_weights",
    "exponent_of",
    "nucleus",
]

# Beyond this, 1 / T is indistinguishable from the next whole number.
_LARGEST_EXPONENT = 2.0**53


def check_temperature(temperature: float) -> None:
    """Refuse temperatures outside (0, 1], which these algorithms cannot reach."""
    if isinstance(temperature, bool) or not 0 < temperature <= 1:
        raise ValueError(
            "temperature must be in (0, 1]: draws can be sharpened, not flattened; "
            f"got {temperature}."
        )


def check_top_p(top_p: float) -> None:
    """Refuse a share outside (0, 1]."""
    if isinstance(top_p, bool) or not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1]; got {top_p}.")


def exponent_of(temperature: float) -> tuple[int, float]:
    """Whole part n and fraction a of 1 / T = n + a, 0 <= a < 1; a rounding error counts as 0."""
    exponent = min(1 / temperature, _LARGEST_EXPONENT)
    whole = math.floor(exponent + 1e-9)
    part = exponent - whole
    return whole, part if part > 1e-9 else 0.0


def count_weights(
    counts: Int[Tensor, "rows candidates"], most: int, temperature: float
) -> Float[Tensor, "rows candidates"]:
    """Weight of each chunk from the number of its copies, up to a factor for each row.

    Args:
        counts: Copies that each candidate leads.
        most: An upper bound of all counts.
        temperature: T in (0, 1].

    Raises:
        ValueError: If the temperature is out of range.
    """
    check_temperature(temperature)
    whole, _ = exponent_of(temperature)
    top = counts.amax(dim=-1, keepdim=True) if counts.shape[-1] else counts.sum(-1, keepdim=True)
    logs = torch.tensor(_log_weights(most, temperature), dtype=torch.float64).to(counts.device)
    if _range(most, temperature) < 600:
        weights = logs.exp().gather(0, counts.flatten()).view_as(counts)
    else:  # weights would overflow: take them relative to the row's most frequent chunk
        weights = (logs[counts] - logs[top]).exp()
    few = top < whole
    # Only on the CPU is this check free.
    if counts.device.type == "cpu" and not bool(few.any()):
        return weights
    return torch.where(few, (counts == top).to(weights.dtype), weights)


@functools.lru_cache(maxsize=16)
def _log_weights(most: int, temperature: float) -> list[float]:
    """Logarithm of Gamma(c + 1) / Gamma(c - s + 1) for c = 0 ... most; -inf below n."""
    whole, part = exponent_of(temperature)
    below = [-math.inf] * min(whole, most + 1)
    return below + [
        math.lgamma(c + 1) - math.lgamma(c - whole - part + 1) for c in range(whole, most + 1)
    ]


def _range(most: int, temperature: float) -> float:
    """The largest absolute logarithm of a weight."""
    return max((abs(x) for x in _log_weights(most, temperature) if x > -math.inf), default=0.0)


def nucleus(counts: Int[Tensor, "rows candidates"], top_p: float) -> Tensor:
    """1 for the most frequent chunks of a row, which make up a share of its draws; else 0.

    It keeps the smallest set of chunks whose copies are at least `top_p` of all candidates, and
    chunks that tie with the last of them. Unlike the nucleus of a softmax model, it is one of
    *observed* shares: with few candidates, rare chunks are cut or kept by chance. It does not
    truncate the distribution itself.

    Args:
        counts: Copies that each candidate leads.
        top_p: In (0, 1].

    Raises:
        ValueError: If `top_p` is out of range.
    """
    check_top_p(top_p)
    falling = counts.sort(dim=-1, descending=True).values
    before = falling.cumsum(dim=-1) - falling
    kept = before < top_p * counts.sum(dim=-1, keepdim=True) * (1 - 1e-12)
    least = torch.where(kept, falling, falling[:, :1]).amin(dim=-1, keepdim=True)
    return (counts >= least.clamp_min(1)).double()


def choose(
    weights: Float[Tensor, "rows candidates"], generator: torch.Generator | None = None
) -> Int[Tensor, " rows"]:
    """Draw one index of each row, with probability proportional to its weight.

    Args:
        weights: Not negative; at least one of each row positive.
        generator: Source of randomness; torch's global one if None.
    """
    sums = weights.cumsum(dim=-1)
    uniform = torch.rand(
        len(weights), 1, generator=generator, dtype=weights.dtype, device=weights.device
    )
    # Stay below the sum even if the product is rounded up.
    point = (uniform * sums[:, -1:]).minimum(sums[:, -1:] * (1 - 1e-15))
    return torch.searchsorted(sums, point, right=True)[:, 0]
