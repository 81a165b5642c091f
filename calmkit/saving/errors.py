"""What can be wrong with a model to save, or with a saved one."""

__all__ = ["CannotBeSavedError", "SavedModelError", "UntrustedCodeError"]


class CannotBeSavedError(ValueError):
    """A model cannot be built again from what is known of it; names part and argument."""


class SavedModelError(ValueError):
    """A saved model is missing, damaged, or does not fit this version; names the file."""


class UntrustedCodeError(SavedModelError):
    """A saved model names code outside calmkit that was not allowed; nothing was imported."""
