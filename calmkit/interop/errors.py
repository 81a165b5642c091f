"""What can be wrong with a published checkpoint."""

__all__ = ["CheckpointFormatError", "CheckpointNotFoundError", "CheckpointWarning"]


class CheckpointFormatError(ValueError):
    """A file is damaged, holds code, or does not hold what its config says; names file and key."""


class CheckpointNotFoundError(ValueError):
    """There is no such folder, or the repository could not be downloaded."""


class CheckpointWarning(UserWarning):
    """A file holds something wrong that the published network never reads; names file and key."""
