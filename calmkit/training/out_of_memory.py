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
        in_validation: Whether it was being validated, on rows that are no micro-batch.
    """

    def __init__(self, stage: str, *, in_validation: bool = False) -> None:
        """Describe it without numbers."""
        super().__init__(stage)
        self.stage, self.in_validation = stage, in_validation

    def __str__(self) -> str:
        if self.in_validation:
            return (
                f"memory must suffice for the validation of {self.stage}; an allocation failed. "
                "Validate on fewer rows at a time; checkpoints are kept."
            )
        return (
            f"memory must suffice for the training of {self.stage}; an allocation failed. Lower "
            "its micro_batch; checkpoints are kept."
        )


@contextmanager
def out_of_memory_in(stage: str, *, in_validation: bool = False) -> Iterator[None]:
    """Turn a failed allocation into an `OutOfMemory`; one from a block inside gets the stage.

    Args:
        stage: The stage that is trained inside.
        in_validation: Whether it is only validated.

    Raises:
        OutOfMemory: If an allocation fails, on a GPU or a CPU.
    """
    try:
        yield
    except OutOfMemory as error:
        raise OutOfMemory(stage, in_validation=error.in_validation) from error.__cause__
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in _CPU_ALLOCATOR):
            raise
        raise OutOfMemory(stage, in_validation=in_validation) from error
