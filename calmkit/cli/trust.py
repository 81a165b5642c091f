"""The option `--trust`: packages outside calmkit whose code a model may run."""

from collections.abc import Sequence

__all__ = ["packages_in", "without_trust"]


def packages_in(option: str) -> tuple[str, ...]:
    """Split comma-separated names."""
    return tuple(name.strip() for name in option.split(",") if name.strip())


def without_trust(options: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Separate `--trust`, which is not a key of a config, from the other options."""
    others, trust = list(options), ""
    for place, option in enumerate(options):
        if option == "--trust":
            trust = "".join(options[place + 1 : place + 2])
            del others[place : place + 2]
        elif option.startswith("--trust="):
            trust = option.partition("=")[2]
            del others[place]
    return others, packages_in(trust)
