"""Out of memory in a training, an evaluation or a generation, told from other errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["OutOfMemory", "out_of_memory_in"]

# PyTorch has no class for a failure of its CPU allocator.
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")
_Work = Literal["training", "validation", "evaluation", "diagnosis", "generation"]
_REMEDIES = {
    "training": "Lower its micro_batch; checkpoints are kept.",
    "validation": "Validate on fewer rows at a time; checkpoints are kept.",
    "evaluation": "Evaluate with fewer draws, or on a device with more memory.",
    "diagnosis": "Diagnose it with fewer draws, or on fewer rows.",
    "generation": "Lower candidates, or generate shorter texts.",
}


class OutOfMemory(RuntimeError):
    """An allocation failed.

    Attributes:
        stage: The stage that was trained, or the model that was used.
        during: What failed: a step of its training; its validation, on rows that are no
            micro-batch; its evaluation or diagnosis; or a text that it generated.
    """

    def __init__(self, stage: str, *, during: _Work = "training") -> None:
        """Describe it without numbers."""
        super().__init__(stage)
        self.stage, self.during = stage, during

    def __str__(self) -> str:
        return (
            f"memory must suffice for the {self.during} of {self.stage}; an allocation failed. "
            f"{_REMEDIES[self.during]}"
        )


@contextmanager
def out_of_memory_in(stage: str, *, during: _Work = "training") -> Iterator[None]:
    """Turn a failed allocation into an `OutOfMemory`; one from a block inside gets the stage.

    Args:
        stage: The stage that is trained, or the model that is used, inside.
        during: What is done with it.

    Raises:
        OutOfMemory: If an allocation fails, on a GPU or a CPU.
    """
    try:
        yield
    except OutOfMemory as error:
        raise OutOfMemory(stage, during=error.during) from error.__cause__
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(text in str(error) for text in _CPU_ALLOCATOR):
            raise
        raise OutOfMemory(stage, during=during) from error
