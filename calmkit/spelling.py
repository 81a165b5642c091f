"""The known name that a misspelt one probably means, for error messages."""

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like a misspelt one, in any case; None if none is like it.

    Args:
        name: The misspelt name.
        known: The valid names.
    """
    by_lower_case = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    return by_lower_case[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence, after a space, with the nearest of the known names; empty if none is near.

    Args:
        name: The misspelt name.
        known: The valid names.
    """
    meant = nearest(name, known)
    return "" if meant is None else f" Did you mean {meant}?"
