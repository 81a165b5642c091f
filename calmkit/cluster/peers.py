r"""The other processes of a training, and what they tell each other besides tensors.

Each process keeps a connection to the first one:

    process 1, 2, ..., R - 1  ---- TCP ---->  process 0

    "."              farewell: the process may end before the others
    "!" and a text   the process fails with this error; the first process passes it on to all
    the end          the process has died; the operating system closes its connections

A thread of each process reads them, also while the process waits in an exchange of tensors. After
an error or a death it ends the process, since such a wait could take minutes or for ever.

What every step exchanges about errors goes from host to host as well. The value is in the memory
of the host then: reading it does not wait for a GPU, which works on while the hosts talk.
"""

import logging
import os
import selectors
import socket
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["REMEDY", "Peers", "received"]

_LOG = logging.getLogger(__name__)
REMEDY = "Run the same again to go on from the newest checkpoint."
_FAREWELL, _FAILURE = b".", b"!"
_MOST_BYTES = 2000  # of an error
# For the error that has ended the other, if this process meets it as well.
_SECONDS_TO_REPORT = 3.0
# After another's error, for this process to hear of it in its step and to end in order.
_SECONDS_TO_LEAVE = 5.0


class Peers:
    """The other processes, as one of them sees them.

    Attributes:
        failure: What another process has told about its error; empty if none has failed.
    """

    def __init__(self, rank: int, connections: Mapping[int, socket.socket]) -> None:
        """Watch the connections.

        Args:
            rank: Number of this process.
            connections: To the first process or, in that one, to all others, by their numbers.
                None if there is only one process.
        """
        self.failure = ""
        self._rank, self._connections = rank, connections
        self._left = threading.Event()
        self._hosts: ProcessGroup | None = None
        if connections:
            threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def any_fails(self, fails: bool) -> bool:
        """Whether any process fails in this step; all must ask equally often.

        Args:
            fails: Whether this process does.
        """
        if not self._connections:
            return fails
        if self._hosts is None:
            group = torch.distributed.new_group(backend="gloo")
            self._hosts = cast("ProcessGroup", group)  # not a number: this process belongs to it
        flag = torch.tensor(int(fails), device="cpu")
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group=self._hosts)
        return bool(flag)

    def tell(self, error: Exception) -> None:
        """Tell the others that this process fails, unless it does because another has failed.

        They have a few seconds to end by themselves; this process does not end with them.
        """
        first = not (self.failure or self._left.is_set())
        self._left.set()  # before the others close their connections
        if first:
            text = f"process {self._rank} has failed with {type(error).__name__}: {error}"
            self._send(_failure(text))

    def leave(self, *, farewell: bool) -> None:
        """Stop ending this process with the others.

        Args:
            farewell: Whether the others go on if this process ends now.
        """
        first = not self._left.is_set()
        self._left.set()  # before the farewell, after which another may close the connection
        if farewell and first:
            self._send(_FAREWELL)

    def _send(self, message: bytes, *, but: int = -1) -> None:
        for rank, connection in self._connections.items():
            if rank != but:
                with suppress(OSError):  # it has said farewell and is gone
                    connection.sendall(message)

    def _watch(self) -> None:
        """Read the connections until all have ended or one says that this process must end."""
        with selectors.DefaultSelector() as selector, ExitStack() as connections:
            for rank, peer in self._connections.items():
                selector.register(connections.enter_context(peer), selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    said = received(peer := self._connections[key.data], 1)
                    if said == _FAILURE:
                        size = int.from_bytes(received(peer, 4))
                        return self._end_with(received(peer, size), key.data)
                    if said != _FAREWELL and not self._left.is_set():
                        return self._end_without(key.data)
                    selector.unregister(key.fileobj)

    def _end_with(self, failure: bytes, rank: int) -> None:
        """End with another process's error, unless this process ends by itself."""
        self.failure = failure.decode(errors="replace")
        if self._rank == 0:
            self._send(_failure(self.failure), but=rank)
        if not self._left.wait(_SECONDS_TO_LEAVE):
            _LOG.error("%s; process %d ends with it.", self.failure.rstrip("."), self._rank)
            os._exit(1)

    def _end_without(self, gone: int) -> None:
        """End because another process is gone, unless this process ends by itself."""
        # The first process hears of every end; the others only of its own.
        if self._rank == 0 or gone == 0:
            text = "process %d has ended, and process %d ends with it. %s"
            _LOG.error(text, gone, self._rank, REMEDY)
        if not self._left.wait(_SECONDS_TO_REPORT):
            os._exit(1)


def _failure(text: str) -> bytes:
    content = text.encode()[:_MOST_BYTES]
    return _FAILURE + len(content).to_bytes(4) + content


def received(peer: socket.socket, size: int) -> bytes:
    """What a connection sends, of a given size; less if it ends before."""
    data = b""
    with suppress(OSError):
        while len(data) < size and (more := peer.recv(size - len(data))):
            data += more
    return data
