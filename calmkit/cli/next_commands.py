"""The line at the end of a training: what to type next."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["next_commands"]

_PARTS = ("autoencoder", "backbone", "head")


def next_commands(directory: Path, text: str) -> str:
    """The commands that generate text with a model and evaluate it, ready to be copied.

    Args:
        directory: Folder of the model.
        text: Its effective config; packages of the user's own parts become `--trust`.
    """
    import yaml

    values = yaml.safe_load(text)
    paths = [path for key in _PARTS for path in _class_paths(values.get(key))]
    own = dict.fromkeys(path.partition(".")[0] for path in paths)
    trusted = ",".join(name for name in own if name != "calmkit")
    trust = f" --trust {shlex.quote(trusted)}" if trusted else ""
    place = f"--checkpoint {shlex.quote(str(directory))}{trust}"
    return (
        f'Next: calmkit generate {place} --prompt "The"\n'
        f"      calmkit evaluate {place}"
    )  # fmt: skip


def _class_paths(value: Any) -> Iterator[str]:
    """The classes that a part and its arguments name."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for inner in value.values():
            yield from _class_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths(inner)
