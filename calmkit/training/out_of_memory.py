"""Out of memory in a training, told from other errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["OutOfMemory", "out_of_memory_in"]

# PyTorch has no class for a failure of its CPU allocator.
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


class OutOfMemory(RuntimeError):
    """An allocation failed during a training.

    Attributes:
        stage: The stage that was trained.
    """

    def __init__(self, stage: str) -> None:
        """Describe it without numbers."""
        super().__init__(stage)
        self.stage = stage

    def __str__(self) -> str:
        return (
            f"memory must suffice for the training of {self.stage}; an allocation failed. Lower "
            "its micro_batch; checkpoints are kept."
        )


@contextmanager
def out_of_memory_in(stage: str) -> Iterator[None]:
    """Turn a failed allocation into an `OutOfMemory`.

    Raises:
        OutOfMemory: If an allocation fails, on a GPU or a CPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in _CPU_ALLOCATOR):
            raise
        raise OutOfMemory(stage) from error
