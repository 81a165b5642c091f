"""Packages outside calmkit whose code a model may bring, as an option names them."""

__all__ = ["packages_in"]


def packages_in(option: str) -> tuple[str, ...]:
    """Names with commas between, as a tuple."""
    return tuple(name.strip() for name in option.split(",") if name.strip())
