"""Training steps as slices of one endless sequence of rows.

With B rows in a batch, row i of the sequence is row i mod B of step i // B. A process or a
micro-batch takes a part of a step's rows.
"""

import numpy as np

from calmkit.bounds import check_at_least

__all__ = ["rows_of_step"]


def rows_of_step(step: int, batch_size: int, rows: slice) -> np.ndarray:
    """Indices, in the endless sequence, of the selected rows of a step's batch.

    Args:
        step: Index of the step, starting at 0.
        batch_size: B.
        rows: The selected rows of the batch.

    Raises:
        ValueError: If the step is negative or no row is chosen.
    """
    check_at_least(0, step=step)
    chosen = np.arange(batch_size)[rows]
    if len(chosen) == 0:
        raise ValueError(
            f"rows must choose at least one of the {batch_size} rows of a batch; got {rows}."
        )
    return step * batch_size + chosen
