"""A model's folder: a local one, or a repository of the Hugging Face hub, `owner/name`."""

import os
import re
from pathlib import Path
from typing import Any

from calmkit.extras import is_installed, require

from .errors import SavedModelError
from .files import WEIGHTS_FILE, is_of_calmkit

__all__ = ["downloaded", "folder_of"]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def folder_of(place: str | os.PathLike[str], *, revision: str | None = None) -> Path:
    """The folder of a model, which is downloaded if it is a repository of the hub.

    A path whose first folder is here is a path, also if the rest is missing, so that a misspelt
    folder asks no server. With `HF_HUB_OFFLINE=1` only the local cache of the hub is read.

    Args:
        place: A folder, or `owner/name`.
        revision: Branch, tag or commit of the repository.

    Raises:
        SavedModelError: If it looks like a repository and there is neither a folder nor a model on
            the hub, or one in another format than calmkit's.
    """
    path, name = Path(place), os.fspath(place)
    if path.parent.is_dir() or not _REPOSITORY.fullmatch(name):
        return path
    if not is_installed("huggingface_hub"):
        raise SavedModelError(
            f"{name} must be the folder of a model; there is none. To load it from the Hugging "
            "Face hub, install pip install 'calmkit[hf]'."
        )
    from huggingface_hub.errors import EntryNotFoundError

    try:
        folder = downloaded(name, revision=revision)
    except (OSError, ValueError, EntryNotFoundError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SavedModelError(
            f"{name} must be the folder of a model, or a model on the Hugging Face hub; there is "
            f"no such folder, and the hub answers: {reason}"
        ) from error
    if not is_of_calmkit(folder / WEIGHTS_FILE):
        raise SavedModelError(
            f"{name} must be a model in calmkit's format, whose {WEIGHTS_FILE} describes it; the "
            "repository has another. From the published format it takes two commands: "
            f"`hf download {name} --local-dir PUBLISHED` and `calmkit convert --checkpoint "
            "PUBLISHED --output NEW`, with --autoencoder FOLDER if its autoencoder has a "
            "repository of its own."
        )
    return folder


def downloaded(name: str, **place: Any) -> Path:
    """The local copy of a repository's weights, which hold the whole model.

    Args:
        name: `owner/name`.
        place: `revision`, `token` and other arguments of `snapshot_download`.
    """
    require("huggingface_hub", "a model on the hub")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=[WEIGHTS_FILE], **place))
