"""Record the config, code and inputs of a training, so that it resumes only with the same ones.

    OUTPUT/checkpoints/config.yaml    the effective config
                       begun.json     digests of the code and of the inputs: text, pairs, model

A training that resumed with another config, code or data would end in a model that neither of the
two produces alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calmkit.config import values_of
from calmkit.files import replace_file
from calmkit.json_converter import from_json, to_json
from calmkit.provenance import code_changes
from calmkit.training import CheckpointError

from .keys import code_of_training, deciding

__all__ = ["CHECKPOINTS", "begin", "check_resumable"]

CHECKPOINTS = "checkpoints"
_CONFIG, _BEGUN = "config.yaml", "begun.json"


@dataclass(frozen=True)
class _Begun:
    """Digests recorded at the start of a training.

    Attributes:
        code: Digests of the code, from `code_of_training`.
        inputs: Digests of the inputs, by name.
    """

    code: Mapping[str, str]
    inputs: Mapping[str, str]


def begin(output: Path, config_text: str, **inputs: str) -> None:
    """Record the config, code and inputs of a training."""
    folder = output / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / _BEGUN, to_json(_Begun(code_of_training(config_text), inputs)))
    replace_file(folder / _CONFIG, config_text)  # last: with it the folder holds a run


def check_resumable(output: Path, config_text: str, **inputs: str) -> None:
    """Refuse to resume a different training in the output folder.

    Args:
        output: Output folder of the training; nothing is checked if it holds no training.
        config_text: The effective config.
        inputs: Known digests of the inputs, by name.

    Raises:
        CheckpointError: If a key that determines the weights, a module or an input differs; names
            it.
    """
    folder = output / CHECKPOINTS
    if not (folder / _CONFIG).is_file():
        return
    before = _fixed((folder / _CONFIG).read_text(encoding="utf-8"))
    for key, value in _fixed(config_text).items():
        if before.get(key) != value:
            name, old, new = _difference(key, before.get(key), value)
            raise CheckpointError(
                f"{name} must be as in {folder}, where a run was started with "
                f"{old}; got {new}. Restore it, or choose another output."
            )
    begun = _begun(folder / _BEGUN)
    if changed := code_changes(begun.code, code_of_training(config_text)):
        raise CheckpointError(
            f"code must be as it was when the run in {folder} started; {', '.join(changed)}. "
            f"Choose another output, or delete {folder} to start again."
        )
    for name, digest in inputs.items():
        if begun.inputs.get(name) != digest:
            raise CheckpointError(
                f"{name} must be as it was when the run in {folder} started; it has changed. "
                "Restore it, or choose another output."
            )


def _difference(key: str, before: object, now: object) -> tuple[str, object, object]:
    """The first key below `key` whose values differ, as spelled in an option, with both values."""
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
            f"{path} must record the code and text of the run; it is missing or damaged. Choose "
            f"another output, or delete {path.parent} to start again."
        ) from None


def _fixed(config_text: str) -> dict[str, object]:
    """The config values that must not change when a run resumes."""
    kept = deciding(values_of(config_text))
    for key in ("autoencoder_training", "training"):
        # A run at a constant rate may be extended; a decaying rate depends on the steps.
        if kept[key]["decay_to"] == 1.0:
            del kept[key]["steps"]
        # The checkpoints decide: without micro_batch, its size follows from the number of devices.
        kept[key].pop("micro_batch", None)
    return kept
