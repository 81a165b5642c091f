"""Errors and warnings about published checkpoints."""

__all__ = ["CheckpointFormatError", "CheckpointNotFoundError", "CheckpointWarning"]


class CheckpointFormatError(ValueError):
    """A file is damaged, contains code, or does not match its config; names file and key."""


class CheckpointNotFoundError(ValueError):
    """There is no such folder, or the repository could not be downloaded."""


class CheckpointWarning(UserWarning):
    """A file has a fault that the published network never reads; names file and key."""
