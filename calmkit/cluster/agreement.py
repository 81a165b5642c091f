"""A check, before the first step, that all processes compute the same thing.

A machine with other text or other code would train on without an error: gradients are averaged,
whatever they are gradients of.
"""

import hashlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check_agreement"]

_NAME_BYTES = 64


def check_agreement(fabric: "Fabric", inputs: Mapping[str, str]) -> None:
    """Compare inputs with those of the first process; every process must call it.

    Args:
        fabric: Connects the processes.
        inputs: Texts or digests by name; the same names in each process.

    Raises:
        ValueError: In every process, if one has other inputs; names it and its machine.
    """
    if fabric.world_size == 1:
        return
    machine = socket.gethostname().encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    digests = [hashlib.sha256(value.encode()).digest() for value in inputs.values()]
    own = torch.tensor(list(machine + b"".join(digests)), dtype=torch.uint8, device=fabric.device)
    rows = [bytes(row) for row in torch.as_tensor(fabric.all_gather(own)).tolist()]
    machines = [row[:_NAME_BYTES].rstrip(b"\0").decode(errors="replace") for row in rows]
    for process, row in enumerate(rows):
        for place, name in enumerate(inputs):
            part = slice(_NAME_BYTES + 32 * place, _NAME_BYTES + 32 * (place + 1))
            if row[part] != rows[0][part]:
                raise ValueError(
                    f"{name} must be the same in all processes; process {process} on "
                    f"{machines[process]} has another than process 0 on {machines[0]}. Give all "
                    f"machines the same {name}."
                )
