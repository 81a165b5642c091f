"""Packages outside calmkit whose code a model may bring, as an option names them."""

from collections.abc import Sequence

__all__ = ["packages_in", "without_trust"]


def packages_in(option: str) -> tuple[str, ...]:
    """Names with commas between, as a tuple."""
    return tuple(name.strip() for name in option.split(",") if name.strip())


def without_trust(options: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The other options, and the packages that `--trust` names: it is no key of a config."""
    others, trust = list(options), ""
    for place, option in enumerate(options):
        if option == "--trust":
            trust = "".join(options[place + 1 : place + 2])
            del others[place : place + 2]
        elif option.startswith("--trust="):
            trust = option.partition("=")[2]
            del others[place]
    return others, packages_in(trust)
