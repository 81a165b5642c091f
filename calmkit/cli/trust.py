"""The option `--trust`: packages outside calmkit whose code a model may run."""

from collections.abc import Sequence

__all__ = ["packages_in", "without_trust"]


def packages_in(option: str) -> tuple[str, ...]:
    """Split comma-separated names.

    Args:
        option: The names of packages or modules, as an `import` has them.

    Raises:
        ValueError: If one is no such name, as that of a file is not.
    """
    names = tuple(name.strip() for name in option.split(",") if name.strip())
    for name in names:
        module = name.removesuffix("/").removesuffix(".py").replace("/", ".")
        if name != module or not all(step.isidentifier() for step in name.split(".")):
            is_file = name != module and all(step.isidentifier() for step in module.split("."))
            remedy = f" Write --trust {module}." if is_file else ""
            raise ValueError(
                f"trust must name packages or modules as an import does, such as my_heads; got "
                f"{name!r}.{remedy}"
            )
    return names


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
