import socket
import threading
from types import SimpleNamespace

import pytest
import torch

from calmkit.cluster import check_agreement


def messages(*inputs):
    """What each of some processes says of its inputs."""
    size = len(inputs)
    meeting, rows, said = threading.Barrier(size), [None] * size, [""] * size

    def process(rank):
        def all_gather(row):
            rows[rank] = row
            meeting.wait(timeout=20)
            return torch.stack(rows)

        fabric = SimpleNamespace(world_size=size, device="cpu", all_gather=all_gather)
        try:
            check_agreement(fabric, inputs[rank])
        except ValueError as error:
            said[rank] = str(error)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_equal_inputs_pass():
    assert messages(*[{"text": "a", "code": "b"}] * 3) == ["", "", ""]


@pytest.mark.parametrize("name", ["text", "code"])
def test_the_process_that_differs_is_named_everywhere(name):
    same = {"text": "a", "code": "b"}
    said = messages(same, same, {**same, name: "other"})
    host = socket.gethostname()[:64]
    assert said[0] == said[1] == said[2]
    assert said[0].startswith(f"{name} must be the same in all processes; process 2 on {host} has")


def test_one_process_has_nobody_to_ask():
    check_agreement(SimpleNamespace(world_size=1), {"text": "a"})
