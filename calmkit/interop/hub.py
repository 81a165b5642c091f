"""Locating a checkpoint: a local folder, or a repository on the Hugging Face hub."""

import os
import re
from pathlib import Path

from .errors import CheckpointNotFoundError

__all__ = ["checkpoint_folder"]

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Only these files of a repository are downloaded: no code, no tokenizer.
_FILES = ["config.json", "model*.safetensors", "pytorch_model*.bin", "*.index.json"]


def checkpoint_folder(path_or_repo_id: str | os.PathLike[str]) -> Path:
    """The folder itself, or the folder of the files downloaded from a repository.

    Args:
        path_or_repo_id: A folder; or `owner/name`, if no local path has that name.

    Raises:
        CheckpointNotFoundError: If it is neither, or the download fails.
    """
    path = Path(path_or_repo_id)
    if path.is_dir():
        return path
    is_repo_id = isinstance(path_or_repo_id, str) and _REPO_ID.fullmatch(path_or_repo_id)
    if path.exists() or not is_repo_id:
        raise CheckpointNotFoundError(
            "path_or_repo_id must be a folder with config.json and weights, or a repository "
            f"owner/name on the Hugging Face hub; got {os.fspath(path_or_repo_id)!r}."
        )
    return _downloaded(str(path_or_repo_id))


def _downloaded(repo_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import EntryNotFoundError
    except ModuleNotFoundError as error:
        raise CheckpointNotFoundError(
            f"path_or_repo_id must be a folder that exists unless huggingface_hub is installed to "
            f"download it; got {repo_id!r}. Install it with pip install 'calmkit[hf]'."
        ) from error
    try:
        return Path(snapshot_download(repo_id, allow_patterns=_FILES))
    except (OSError, ValueError, EntryNotFoundError) as error:
        reason = str(error).strip() or type(error).__name__
        raise CheckpointNotFoundError(
            f"path_or_repo_id must be a folder that exists, or a repository that can be "
            f"downloaded; {repo_id!r} is not a folder, and the hub says: {reason.splitlines()[0]}"
        ) from error
