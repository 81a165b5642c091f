"""Processes that train together end together.

A process that waits for another, in an exchange of gradients for instance, would wait for minutes
or for ever if the other has died or met an error. So they connect first, and each hears of the end
of another: see `peers`. Checkpoints are complete or absent at any moment, so the same command
resumes the run.
"""

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

from .peers import REMEDY, Peers, received

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["LostProcessError", "end_exchange", "ending_together"]

_SECONDS_TO_CONNECT = 60.0
# Those of the outermost block, which stand for all blocks within it.
_PEERS: ContextVar[Peers | None] = ContextVar("peers", default=None)


class LostProcessError(RuntimeError):
    """An exchange with another process failed."""


@contextmanager
def ending_together(fabric: "Fabric") -> Iterator[Peers]:
    """Context in which the end of one process ends all; every process must enter it.

    A process that leaves the context without an exception may end before the others. If it leaves
    with an error, the others end with the same one, even if this process goes on.

    Args:
        fabric: The launched processes; nothing is done for a single one.

    Raises:
        OSError: If the processes cannot connect to the first one.
        LostProcessError: If an exchange fails, because another process has ended or is too late.
    """
    if (outer := _PEERS.get()) is not None:
        yield outer
        return
    if fabric.world_size == 1:
        yield Peers(0, {})
        return
    connections = _accepted(fabric) if fabric.is_global_zero else _connected(fabric)
    peers = Peers(fabric.global_rank, connections)
    before = _PEERS.set(peers)
    try:
        yield peers
    except Exception as error:
        lost = _lost(error, peers.failure)
        if lost is None:
            peers.tell(error)
        peers.leave(farewell=False)
        if lost is None:
            raise
        raise lost from error
    finally:
        _PEERS.reset(before)
    peers.leave(farewell=True)


def _lost(error: Exception, failure: str) -> LostProcessError | None:
    """What the failure of an exchange means; None for any other error.

    Args:
        error: The error of this process.
        failure: What another process has told.
    """
    of_gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    if not (of_gloo or isinstance(error, torch.distributed.DistError)):
        return None
    if failure:
        return LostProcessError(f"{failure.rstrip('.')}; all processes end with it.")
    return LostProcessError(
        f"another process has ended or does not answer: {str(error).splitlines()[0]}. Its own "
        f"message, if it had one, says why. {REMEDY}"
    )


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
            said = received(peer, len(token) + 4)
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


def _kept(peer: socket.socket) -> socket.socket:
    """A connection that also notices, within half a minute, that a machine is gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer
