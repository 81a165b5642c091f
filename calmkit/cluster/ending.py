"""Processes that train together end together.

A process that waits for another, in an exchange of gradients for instance, would wait for minutes
or for ever if the other has died. So each keeps a connection to the first process:

    process 1, 2, ..., R - 1  ---- TCP ---->  process 0

The operating system closes the connections of a process that ends, however it ended. A thread
notices it at once, and ends this process too, unless the other has said farewell. Checkpoints are
complete or absent at any moment, so the same command resumes the run.
"""

import logging
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["LostProcessError", "end_exchange", "ending_together"]

_LOG = logging.getLogger(__name__)
_REMEDY = "Run the same again to go on from the newest checkpoint."
_FAREWELL = b"."
_SECONDS_TO_CONNECT = 60.0
# For the error that has ended the other, if this process meets it as well.
_SECONDS_TO_REPORT = 3.0


class LostProcessError(RuntimeError):
    """An exchange with another process failed."""


@contextmanager
def ending_together(fabric: "Fabric") -> Iterator[None]:
    """Context in which the end of one process ends all; every process must enter it.

    A process that leaves the context without an exception may end before the others.

    Args:
        fabric: The launched processes; nothing is done for a single one.

    Raises:
        OSError: If the processes cannot connect to the first one.
        LostProcessError: If an exchange fails, because another process has ended or is too late.
    """
    if fabric.world_size == 1:
        yield
        return
    peers = _accepted(fabric) if fabric.is_global_zero else _connected(fabric)
    left = threading.Event()
    watch = threading.Thread(target=_watch, args=(peers, fabric.global_rank, left), daemon=True)
    watch.start()
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise LostProcessError(
            f"another process has ended or does not answer: {str(error).splitlines()[0]}. Its own "
            f"message, if it had one, says why. {_REMEDY}"
        ) from error
    left.set()
    # Not in a `finally`: an exception ends this process, and with it the others.
    for peer in peers.values():
        with suppress(OSError):  # it has said farewell and is gone
            peer.sendall(_FAREWELL)


def end_exchange(fabric: "Fabric") -> None:
    """Wait for all processes, and end their exchange: each may then end before the others."""
    fabric.barrier()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _accepted(fabric: "Fabric") -> dict[int, socket.socket]:
    """Connections of the first process to all others, by their rank."""
    token = secrets.token_bytes(16)
    peers: dict[int, socket.socket] = {}
    with socket.create_server(("", 0), backlog=fabric.world_size) as server:
        fabric.broadcast((server.getsockname()[1], token))
        server.settimeout(_SECONDS_TO_CONNECT)
        while len(peers) < fabric.world_size - 1:
            peer, _ = server.accept()
            peer.settimeout(_SECONDS_TO_CONNECT)
            said = _received(peer, len(token) + 4)
            if secrets.compare_digest(said[: len(token)], token):
                peers[int.from_bytes(said[len(token) :])] = _kept(peer)
            else:  # a stranger
                peer.close()
    return peers


def _connected(fabric: "Fabric") -> dict[int, socket.socket]:
    """The connection to the first process."""
    port, token = fabric.broadcast((0, b""))
    address = fabric.strategy.cluster_environment.main_address  # pyrefly: ignore
    peer = socket.create_connection((address, port), timeout=_SECONDS_TO_CONNECT)
    peer.sendall(token + fabric.global_rank.to_bytes(4))
    return {0: _kept(peer)}


def _received(peer: socket.socket, size: int) -> bytes:
    data = b""
    with suppress(OSError):
        while len(data) < size and (more := peer.recv(size - len(data))):
            data += more
    return data


def _kept(peer: socket.socket) -> socket.socket:
    """A connection that also notices, within half a minute, that a machine is gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def _watch(peers: Mapping[int, socket.socket], own: int, left: threading.Event) -> None:
    """End this process when a connection closes without a farewell, unless it has left itself."""
    with selectors.DefaultSelector() as selector, ExitStack() as connections:
        for rank, peer in peers.items():
            selector.register(connections.enter_context(peer), selectors.EVENT_READ, rank)
        while selector.get_map():
            for key, _ in selector.select():
                if _received(peers[key.data], 1) != _FAREWELL and not left.is_set():
                    return _end(own, key.data)
                selector.unregister(key.fileobj)


def _end(own: int, gone: int) -> None:
    # The first process hears of every end; the others only of its own.
    if own == 0 or gone == 0:
        _LOG.error("process %d has ended, and process %d ends with it. %s", gone, own, _REMEDY)
    time.sleep(_SECONDS_TO_REPORT)
    os._exit(1)
