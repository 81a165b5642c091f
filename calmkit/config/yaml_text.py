"""The text of a config, written and read in C where PyYAML has that: five times as fast."""

import functools
from collections.abc import Mapping
from typing import Any

__all__ = ["text_of", "values_of"]


def text_of(values: Mapping[str, Any]) -> str:
    """Values as YAML, in their order."""
    import yaml

    write = functools.partial(yaml.dump, dict(values), sort_keys=False, allow_unicode=True)
    try:
        return write(Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    except UnicodeEncodeError:  # half a surrogate, as in the name of a file that is not UTF-8
        return write(Dumper=yaml.SafeDumper)


def values_of(text: str) -> dict[str, Any]:
    """The values in an effective config."""
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
