"""Errors of saving and loading models."""

__all__ = ["CannotBeSavedError", "SavedModelError", "UntrustedCodeError"]


class CannotBeSavedError(ValueError):
    """A model cannot be rebuilt from its recorded arguments; names part and argument."""


class SavedModelError(ValueError):
    """A saved model is missing, damaged, or incompatible with this version; names the file."""


class UntrustedCodeError(SavedModelError):
    """A saved model names code outside calmkit that is not trusted; nothing was imported."""
