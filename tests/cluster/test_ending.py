"""The connections between processes, which are threads here; the processes that are killed, in
`tests/cli/test_train_in_processes.py`, are real ones."""

import queue
import socket
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from calmkit.cluster import LostProcessError, Peers, ending, ending_together, peers

SIZE = 3


@pytest.fixture
def ended(monkeypatch):
    """Exit codes of the threads that would have ended their process."""
    found = queue.SimpleQueue()
    monkeypatch.setattr(peers.os, "_exit", found.put)
    monkeypatch.setattr(peers, "_SECONDS_TO_REPORT", 0.0)
    monkeypatch.setattr(peers, "_SECONDS_TO_LEAVE", 0.0)
    return found


def fabrics():
    """What of a fabric the module uses, for each process."""
    places = [queue.SimpleQueue() for _ in range(SIZE)]

    def of(rank):
        def broadcast(value):
            if rank == 0:
                for place in places[1:]:
                    place.put(value)
                return value
            return places[rank].get(timeout=20)

        environment = SimpleNamespace(main_address="127.0.0.1")
        return SimpleNamespace(
            world_size=SIZE, global_rank=rank, is_global_zero=rank == 0, broadcast=broadcast,
            strategy=SimpleNamespace(cluster_environment=environment),
        )  # fmt: skip

    return [of(rank) for rank in range(SIZE)]


def together(*works):
    """Run each work in the context of its process."""

    def process(fabric, work):
        with suppress(ValueError), ending_together(fabric):
            work()

    threads = [
        threading.Thread(target=process, args=pair) for pair in zip(fabrics(), works, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_connection_closed_right_after_the_farewell_ends_nobody(ended, caplog):
    """The other process may hear it, close and end before this one goes on."""
    waited = threading.Event()
    mine, other = socket.socketpair()

    class Slow(peers.Peers):
        def _send(self, message, **rest):
            super()._send(message, **rest)
            assert other.recv(1) == b"."
            other.close()
            for thread in threading.enumerate():
                if thread.name == "peers":
                    thread.join(timeout=20)
            waited.set()

    one = Slow(1, {0: mine})
    one.leave(farewell=True)
    assert waited.is_set() and ended.empty()
    assert "has ended" not in caplog.text


def test_processes_that_say_farewell_end_one_by_one(ended):
    left = threading.Event()
    together(lambda: left.wait(timeout=20), lambda: None, left.set)
    assert ended.empty()


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_connection_that_closes_without_farewell_ends_the_others(ended, caplog, gone):
    """Each watches its own connections: the first all of them, the others that to the first."""
    pairs = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        for rank in range(1, SIZE):
            far = socket.create_connection(server.getsockname())
            pairs[rank] = (server.accept()[0], far)
    near = {rank: pair[0] for rank, pair in pairs.items()}
    if gone == 0:
        watched = [({0: far}, rank) for rank, (_, far) in pairs.items()]
        for one in near.values():
            one.close()
    else:
        watched = [(near, 0)]
        pairs[gone][1].close()
    for connections, own in watched:
        Peers(own, connections)
        assert ended.get(timeout=5) == 1
        said = f"process {gone} has ended, and process {own} ends with it."
        assert said in caplog.text
        caplog.clear()
    assert ended.empty()
    for pair in pairs.values():
        for one in pair:
            one.close()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_one_ends_the_others_with_its_words(ended, caplog, failing):
    """The first passes on what another tells; who fails goes on, for its caller to decide."""
    over = threading.Event()

    def fail():
        raise ValueError("no more")

    def wait():
        ended.get(timeout=20)
        others.append(None)
        over.set() if len(others) == SIZE - 1 else over.wait(timeout=20)

    others = []
    together(*(fail if rank == failing else wait for rank in range(SIZE)))
    assert ended.empty()
    said = f"process {failing} has failed with ValueError: no more; process"
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"{said} {rank} ends with it." for rank in range(SIZE) if rank != failing
    ]


def test_who_ends_by_itself_is_not_ended(ended, caplog, monkeypatch):
    """As one does that hears in its own step that another has failed."""
    monkeypatch.setattr(peers, "_SECONDS_TO_LEAVE", 1.0)

    def fail():
        raise ValueError("no more")

    together(fail, fail, fail)
    for thread in threading.enumerate():
        if thread.name == "peers":
            thread.join(timeout=20)
    assert ended.empty() and not caplog.records


@pytest.fixture
def alone(monkeypatch):
    """What of a fabric says that there are two processes, without a connection."""
    monkeypatch.setattr(ending, "_accepted", lambda fabric: {})
    return SimpleNamespace(world_size=2, global_rank=0, is_global_zero=True)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/buffer.cc:81] Timed out waiting 1800000ms for recv"),
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
    ],
)
def test_an_exchange_that_fails_is_told(alone, error):
    with pytest.raises(LostProcessError, match=r"does not answer: .*the newest check") as found:
        with ending_together(alone):
            raise error
    assert found.value.__cause__ is error


def test_an_exchange_that_fails_after_an_error_of_another_has_its_words(alone):
    with pytest.raises(LostProcessError, match=r"^process 1 has failed; all processes end with"):
        with ending_together(alone) as others:
            others.failure = "process 1 has failed."
            raise RuntimeError("[gloo] Connection closed by peer")


def test_a_block_within_another_has_its_connections(alone):
    with ending_together(alone) as others, ending_together(alone) as same:
        assert same is others
    with ending_together(alone) as later:
        assert later is not others


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("gloo")])
def test_any_other_error_is_raised_unchanged(alone, error):
    with pytest.raises(type(error)) as found, ending_together(alone):
        raise error
    assert found.value is error


def test_strangers_are_turned_away(ended):
    """Without the word that the first process has sent to the others, nobody counts."""
    first, *others = fabrics()
    found = {}

    def accept():
        found.update(ending._accepted(first))

    thread = threading.Thread(target=accept)
    thread.start()
    port, token = others[0].broadcast(None)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"x" * 20)
        assert stranger.recv(1) == b""
    known = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    for rank, peer in zip((2, 1), known, strict=True):
        peer.sendall(token + rank.to_bytes(4))
    thread.join(timeout=20)
    assert sorted(found) == [1, 2]
    for peer in (*known, *found.values()):
        peer.close()


def test_a_single_process_opens_no_port(monkeypatch):
    monkeypatch.setattr(socket, "create_server", None)
    with ending_together(SimpleNamespace(world_size=1)):
        pass


def test_one_process_asks_itself():
    with ending_together(SimpleNamespace(world_size=1)) as nobody:
        assert [nobody.any_fails(fails) for fails in (True, False)] == [True, False]
