r"""Interleaves several texts row by row, as close to their shares as whole rows allow.

Random draws meet the shares only in the long run: for a share of 0.3, the standard deviation is
3.7 of 64 rows. A deterministic sequence does much better. Let c_j(i) be the number of rows of text
j among the first i. With m texts

    | c_j(i) - i * share_j |  <=  1 - 1 / (2 m - 2)  <  1    for every i and j at once.

No sequence has a smaller bound for all shares. It is built row by row: among the texts for which
row i is not too early, the one with the earliest deadline is next. Shares are fractions q_j / Q,
so the sequence repeats after Q rows, of which exactly q_j belong to text j. A table of one period
gives, for any row, its text and the number of earlier rows of that text.

Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

__all__ = ["Turns", "shares_of"]

_MOST_PARTS = 10_000


class Turns:
    """The interleaving of several texts according to their shares.

    Args:
        shares: Shares from `shares_of`.
    """

    def __init__(self, shares: Sequence[Fraction]) -> None:
        self.period = math.lcm(*(share.denominator for share in shares))
        self.parts = np.array([int(share * self.period) for share in shares])
        self._text = _turns(self.parts.tolist())
        self._earlier = np.empty_like(self._text)
        for text, count in enumerate(self.parts.tolist()):
            self._earlier[self._text == text] = np.arange(count)

    def at(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The text of each row, and the number of earlier rows of that text.

        Args:
            rows: Indices of rows, starting at 0.
        """
        periods, places = np.divmod(rows, self.period)
        texts = self._text[places]
        return texts, periods * self.parts[texts] + self._earlier[places]


def shares_of(weights: Sequence[float]) -> tuple[Fraction, ...]:
    """Normalise weights: exactly if at most 10,000 parts suffice, else rounded to 1/10,000.

    Args:
        weights: Positive numbers; 0.3 means 3/10, not the nearest binary fraction.

    Raises:
        ValueError: If a weight is not positive and finite, or there are more than 10,000.
    """
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight must be a finite number above 0; got {weight}.")
    if not 1 <= len(weights) <= _MOST_PARTS:
        raise ValueError(f"weights must be 1 to {_MOST_PARTS}; got {len(weights)}.")
    exact = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(exact) for weight in exact]
    if math.lcm(*(share.denominator for share in shares)) <= _MOST_PARTS:
        return tuple(shares)
    parts = [max(1, int(share * _MOST_PARTS)) for share in shares]
    # Add or remove whole parts where this changes a share least.
    while (rest := _MOST_PARTS - sum(parts)) != 0:
        step = 1 if rest > 0 else -1
        allowed = [j for j, part in enumerate(parts) if part + step >= 1]
        error = [abs(Fraction(parts[j] + step, _MOST_PARTS) - shares[j]) for j in allowed]
        parts[allowed[error.index(min(error))]] += step
    return tuple(Fraction(part, _MOST_PARTS) for part in parts)


def _turns(parts: Sequence[int]) -> np.ndarray:
    """Tijdeman's sequence over one period, in integers: all terms are scaled by 2 (m - 1) Q."""
    period, twice = sum(parts), max(2 * (len(parts) - 1), 1)
    common = math.lcm(*parts)  # instead of a division by each part
    had = [0] * len(parts)
    turns = np.empty(period, dtype=np.int64)
    for row in range(1, period + 1):
        # i * share - c: the deficit of each text if row i goes to another.
        behind = [
            twice * (row * part - period * count) for part, count in zip(parts, had, strict=True)
        ]
        chosen = min(
            (text for text, one in enumerate(behind) if one >= period),
            key=lambda text: (twice * period - period - behind[text]) * (common // parts[text]),
        )
        had[chosen] += 1
        turns[row - 1] = chosen
    return turns
