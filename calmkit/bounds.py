"""Bounds of arguments that are numbers: each error names argument, rule and value.

Arguments are given by their own names, `check_at_least(1, width=width, depth=depth)`. A number is
refused where it is NaN, since no bound holds for one.
"""

import math

__all__ = ["check_at_least", "check_in", "check_positive"]


def check_at_least(least: int | float, **numbers: int | float) -> None:
    """Refuse numbers below `least`."""
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"{name} must be at least {least}; got {number}.")


def check_positive(**numbers: int | float) -> None:
    """Refuse numbers that are not positive and finite."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {number}.")


def check_in(interval: str, **numbers: int | float) -> None:
    """Refuse numbers outside an interval.

    Args:
        interval: As in mathematics: "[0, 1)" holds 0 and does not hold 1.
        numbers: By the names of their arguments.
    """
    low, high = map(float, interval[1:-1].split(","))
    for name, number in numbers.items():
        above = number >= low if interval[0] == "[" else number > low
        below = number <= high if interval[-1] == "]" else number < high
        if not (above and below):
            raise ValueError(f"{name} must be in {interval}; got {number}.")
