"""The rows of a step, divided into micro-batches and among processes.

The rows of a step's batch are divided into n micro-batches. Micro-batch i holds the rows i, i + n,
i + 2n, ... and is the unit of randomness: it has a generator of its own. Process r of R computes
the micro-batches r, r + R, r + 2R, ... one after another. The rows and the random numbers of a
step thus depend on the size of the micro-batches, but not on the number of processes.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from calmkit.chunking import ChunkBatch

__all__ = ["MicroBatches", "Share", "share_of"]


@dataclass(frozen=True)
class Share:
    """The micro-batches of one process.

    Attributes:
        count: n, the number of micro-batches of the step, over all processes.
        numbers: Those of this process, in order.
    """

    count: int
    numbers: range


def share_of(
    rows: int,
    micro_batch: int | None,
    *,
    process: int = 0,
    processes: int = 1,
    name: str = "batch_size",
) -> Share:
    """The micro-batches that a process computes.

    Args:
        rows: Number of rows of the step's batch.
        micro_batch: Number of rows of a micro-batch. None: the batch is divided evenly among the
            processes, one micro-batch for each.
        process: Rank of the process.
        processes: Number of processes.
        name: What the user calls the number of rows.

    Raises:
        ValueError: If the rows cannot be divided evenly.
    """
    size = micro_batch or 1
    at_once = processes * size
    if rows % at_once:
        product = f"devices * micro_batch = {processes} * {size} = {at_once}"
        rule = product if micro_batch else f"the {processes} devices"
        raise ValueError(
            f"{name} must be a multiple of {rule}, so that each device computes as many rows; got "
            f"{rows}. {_remedy(rows, size, processes, name)}"
        )
    count = rows // micro_batch if micro_batch else processes
    return Share(count, range(process, count, processes))


def _remedy(rows: int, size: int, processes: int, name: str) -> str:
    """The nearest values that divide: of the micro-batch or the devices, and of the rows."""
    more = f"{name} to {(rows // (processes * size) + 1) * processes * size}"
    if rows % processes == 0:
        fewer = _largest_divisor(rows // processes, size)
        return f"Set {'.'.join([*name.split('.')[:-1], 'micro_batch'])} to {fewer}, or {more}."
    if rows % size == 0:
        fewer = _largest_divisor(rows // size, processes)
        return f"Use {fewer} device{'s' if fewer > 1 else ''}, or set {more}."
    return f"Set {more}."


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(most, 0, -1) if number % n == 0)


class MicroBatches:
    """The micro-batches that one process computes in each step of a run.

    Attributes:
        first_batch: All rows of step 0.
        share: The division of every step.
    """

    def __init__(
        self,
        batch_at: Callable[..., ChunkBatch],
        micro_batch: int | None,
        *,
        process: int,
        processes: int,
    ) -> None:
        """Divide the rows of the first batch.

        Args:
            batch_at: The batch of a step. If it also takes `rows: slice = slice(None)`, only
                the rows of each micro-batch are built.
            micro_batch: As in `share_of`.
            process: As in `share_of`.
            processes: As in `share_of`.

        Raises:
            ValueError: If the rows cannot be divided evenly.
        """
        self._batch_at = batch_at
        # By its default, since another function's `rows` may be a number.
        rows = inspect.signature(batch_at).parameters.get("rows")
        self._takes_rows = rows is not None and isinstance(rows.default, slice)
        self.first_batch = batch_at(0)
        self._rows = len(self.first_batch.lengths)
        self.share = share_of(self._rows, micro_batch, process=process, processes=processes)

    def at(self, step: int) -> Iterator[tuple[int, ChunkBatch]]:
        """The number and the rows of each own micro-batch of a step, in order.

        Raises:
            ValueError: If the batch has not as many rows as the first.
        """
        count = self.share.count
        batch = None if self._takes_rows else self._batch_at(step)
        if batch is not None and len(batch.lengths) != self._rows:
            raise ValueError(
                f"batch_at must return as many rows in every step as in step 0, {self._rows}; got "
                f"{len(batch.lengths)} in step {step}."
            )
        for number in self.share.numbers:
            rows = slice(number, None, count)
            if batch is None:
                yield number, self._batch_at(step, rows=rows)
            else:
                yield number, batch.rows(rows) if count > 1 else batch
