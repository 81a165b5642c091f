"""Dispatch modes: code that stands between PyTorch and each of its operations."""

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["PlainMode"]


class PlainMode(TorchDispatchMode):
    """A dispatch mode that leaves PyTorch's compiler out.

    Others ask it to keep off, and import it to do so: that takes longer than an account.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
