"""What a training in an output folder was begun with, so that it only goes on as the same one.

    OUTPUT/checkpoints/config.yaml    the effective config
                       begun.json     digests of the code and of what is read: text, pairs, model

A run that goes on under another config, other code or other data would end as a model that neither
of them gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calmkit.files import replace_file
from calmkit.provenance import code_changes
from calmkit.training import CheckpointError

from .json_converter import from_json, to_json
from .keys import code_of_training, deciding, values_of

__all__ = ["CHECKPOINTS", "begin", "check_resumable"]

CHECKPOINTS = "checkpoints"
_CONFIG, _BEGUN = "config.yaml", "begun.json"


@dataclass(frozen=True)
class _Begun:
    """Digests of what a training was begun with.

    Attributes:
        code: By `code_of_training`.
        inputs: What is read, by name.
    """

    code: Mapping[str, str]
    inputs: Mapping[str, str]


def begin(output: Path, config_text: str, **inputs: str) -> None:
    """Write down what a training begins with.

    Args:
        output: The folder of `train`.
        config_text: The effective config.
        inputs: Digests of what is read, by name.
    """
    folder = output / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / _BEGUN, to_json(_Begun(code_of_training(config_text), inputs)))
    replace_file(folder / _CONFIG, config_text)  # last: with it the folder holds a run


def check_resumable(output: Path, config_text: str, **inputs: str) -> None:
    """Refuse to train on what another run has begun in the output folder.

    Args:
        output: The folder of `train`; nothing is checked if it holds no run.
        config_text: The effective config.
        inputs: Digests of what is read, by name, as far as they are known.

    Raises:
        CheckpointError: If a key that decides the weights, a module or a text differs; names it.
    """
    folder = output / CHECKPOINTS
    if not (folder / _CONFIG).is_file():
        return
    before = _fixed((folder / _CONFIG).read_text(encoding="utf-8"))
    for key, value in _fixed(config_text).items():
        if before.get(key) != value:
            name, old, new = _difference(key, before.get(key), value)
            raise CheckpointError(
                f"{name} must be as in {folder}, where another run was begun: "
                f"{old}; got {new}. Restore it, or choose another output."
            )
    begun = _begun(folder / _BEGUN)
    if changed := code_changes(begun.code, code_of_training(config_text)):
        raise CheckpointError(
            f"code must be as it was when the run in {folder} was begun; {', '.join(changed)}. "
            f"Choose another output, or delete {folder} to train anew."
        )
    for name, digest in inputs.items():
        if begun.inputs.get(name) != digest:
            raise CheckpointError(
                f"{name} must be as it was when the run in {folder} was begun; it has changed. "
                "Restore it, or choose another output."
            )


def _difference(key: str, before: object, now: object) -> tuple[str, object, object]:
    """The first key inside of `key`, as an option spells it, with different values, and these."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return key, before, now
    if before.get("class_path") != now.get("class_path"):
        return key, before.get("class_path"), now.get("class_path")
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            inner = key if name == "init_args" else f"{key}.{name}"
            return _difference(inner, before.get(name), now.get(name))
    return key, before, now


def _begun(path: Path) -> _Begun:
    try:
        return from_json(path.read_bytes(), _Begun)
    except (OSError, ValueError):
        raise CheckpointError(
            f"{path} must say with what code and text the run there was begun; it is missing or "
            f"damaged. Choose another output, or delete {path.parent} to train anew."
        ) from None


def _fixed(config_text: str) -> dict[str, object]:
    """What a run that goes on must have in common with its beginning."""
    kept = deciding(values_of(config_text))
    for key in ("autoencoder_training", "training"):
        # A run at constant rate may be made longer; a decay would have gone another way.
        if kept[key]["decay_to"] == 1.0:
            del kept[key]["steps"]
    return kept
