"""Steps of a training as pieces of one endless sequence of rows.

With B rows in a batch, row i of the sequence is row i mod B of step i // B. A process, or a part
of a batch that is trained on at a time, takes some of a step's rows.
"""

import numpy as np

__all__ = ["check_sizes", "rows_of_step"]


def rows_of_step(step: int, batch_size: int, rows: slice) -> np.ndarray:
    """Numbers, in the endless sequence, of some rows of a step's batch.

    Args:
        step: Number of the step, from 0 on.
        batch_size: B.
        rows: Which rows of the batch.

    Raises:
        ValueError: If the step is negative or no row is chosen.
    """
    if step < 0:
        raise ValueError(f"step must be at least 0; got {step}.")
    chosen = np.arange(batch_size)[rows]
    if len(chosen) == 0:
        raise ValueError(
            f"rows must choose at least one of the {batch_size} rows of a batch; got {rows}."
        )
    return step * batch_size + chosen


def check_sizes(*, seed: int, **sizes: int) -> None:
    """Refuse sizes below 1 and a negative seed.

    Raises:
        ValueError: If there is one; names it.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}.")
