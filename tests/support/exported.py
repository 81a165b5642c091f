"""Which classes a contract suite must cover."""

import inspect


def exported_finals(package, base):
    """Names of the concrete subclasses of `base` that a package exports."""
    return {
        name
        for name, value in vars(package).items()
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    }
