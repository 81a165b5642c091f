from types import SimpleNamespace

import pytest
import torch

from calmkit.cluster import any_of, first_writes
from calmkit.disk import WriteError


def process(rank, *, told=None, size=2):
    """What of a fabric the functions use; `told` is what the first process sends."""
    sent = []

    def broadcast(value):
        sent.append(value)
        return value if rank == 0 else told

    return SimpleNamespace(
        world_size=size, is_global_zero=rank == 0, broadcast=broadcast, device="cpu", sent=sent,
        all_reduce=lambda flags, reduce_op: flags + torch.tensor([0.0, 1.0, 0.0]),
    )  # fmt: skip


def raising(error):
    def write():
        raise error

    return write


def never():
    raise AssertionError("only the first process writes")


@pytest.mark.parametrize("kind", [WriteError, ValueError])
def test_all_learn_that_the_first_could_not_write(kind):
    first = process(0)
    with pytest.raises(kind, match="no room"):
        first_writes(first, raising(kind("no room")))
    with pytest.raises(WriteError, match="no room"):
        first_writes(process(1, told=first.sent[0]), never)


def test_all_go_on_once_the_first_has_written():
    first, done = process(0), []
    first_writes(first, lambda: done.append("written"))
    assert done == ["written"]
    first_writes(process(1, told=first.sent[0]), never)


def test_a_flag_of_one_is_a_flag_of_all():
    flags = torch.tensor([False, False, True])
    assert any_of(process(0), flags).tolist() == [False, True, True]
    assert any_of(process(0, size=1), flags) is flags
