import pytest
import torch
from training_problems import batch_at, counted_batch

from calmkit.cluster import MicroBatches, share_of

PRODUCT = "devices * micro_batch = "


@pytest.mark.parametrize(
    "rows, micro_batch, processes, shares",
    [
        (8, None, 1, [(1, [0])]),
        (8, None, 2, [(2, [0]), (2, [1])]),
        (8, 2, 1, [(4, [0, 1, 2, 3])]),
        (8, 2, 2, [(4, [0, 2]), (4, [1, 3])]),
        (8, 8, 1, [(1, [0])]),
        (12, 2, 3, [(6, [0, 3]), (6, [1, 4]), (6, [2, 5])]),
    ],
)
def test_every_micro_batch_has_one_process(rows, micro_batch, processes, shares):
    found = [
        share_of(rows, micro_batch, process=rank, processes=processes) for rank in range(processes)
    ]
    assert [(share.count, list(share.numbers)) for share in found] == shares


@pytest.mark.parametrize(
    "rows, micro_batch, processes, rule, remedy",
    [
        (4, None, 3, "the 3 devices", "Use 2 devices, or set a.batch_size to 6."),
        (5, None, 3, "the 3 devices", "Use 1 device, or set a.batch_size to 6."),
        (64, 4, 32, PRODUCT + "32 * 4 = 128", "Set a.micro_batch to 2, or a.batch_size to 128."),
        (12, 4, 2, PRODUCT + "2 * 4 = 8", "Set a.micro_batch to 3, or a.batch_size to 16."),
        (4, 8, 1, PRODUCT + "1 * 8 = 8", "Set a.micro_batch to 4, or a.batch_size to 8."),
        (256, 16, 7, PRODUCT + "7 * 16 = 112", "Use 4 devices, or set a.batch_size to 336."),
        (9, 2, 4, PRODUCT + "4 * 2 = 8", "Set a.batch_size to 16."),
    ],
)
def test_rows_that_do_not_divide_are_refused(rows, micro_batch, processes, rule, remedy):
    with pytest.raises(ValueError) as refused:
        share_of(rows, micro_batch, processes=processes, name="a.batch_size")
    said = str(refused.value)
    assert said.startswith(f"a.batch_size must be a multiple of {rule}, so that each device")
    assert said.endswith(f"got {rows}. {remedy}")


def joined(batches, step):
    return {number: rows.tokens for number, rows in batches.at(step)}


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_builds_its_own_rows_alone(process):
    """One micro-batch at a time, and the same rows as of the whole batch."""
    asked = []

    def by_rows(step, rows=slice(None)):
        asked.append((step, rows))
        return batch_at(step).rows(rows)

    arguments = {"micro_batch": 1, "process": process, "processes": 2}
    lazily, whole = MicroBatches(by_rows, **arguments), MicroBatches(batch_at, **arguments)
    found, want = joined(lazily, 3), joined(whole, 3)
    assert asked == [
        (0, slice(None)), (3, slice(process, None, 4)), (3, slice(process + 2, None, 4))
    ]  # fmt: skip
    assert list(found) == list(want) == [process, process + 2]
    for number, tokens in found.items():
        assert torch.equal(tokens, want[number])
        assert torch.equal(tokens, batch_at(3).tokens[number::4])


def test_rows_that_are_a_number_are_the_functions_own():
    def several(step, rows=8):
        assert rows == 8
        return batch_at(step)

    batches = MicroBatches(several, 2, process=0, processes=1)
    assert len(list(batches.at(3))) == batches.share.count


def test_another_number_of_rows_is_refused():
    growing = MicroBatches(
        lambda step: counted_batch((1,) * (2 + step)), None, process=0, processes=1
    )
    with pytest.raises(
        ValueError, match="as many rows in every step as in step 0, 2; got 3 in st"
    ):
        list(growing.at(1))
