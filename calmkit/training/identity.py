"""What decides a run's numbers: a resumed run must agree with its checkpoint in it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from calmkit.chunking import ChunkBatch

from .checkpoint_record import CheckpointError
from .settings import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check_identity", "run_identity"]


def run_identity(
    trained: Mapping[str, nn.Parameter],
    first_batch: ChunkBatch,
    optimizer: Optimizer,
    settings: TrainingSettings,
    seed: int,
    fabric: "Fabric",
) -> dict[str, Any]:
    """What decides a run's numbers, as JSON gives it back; a resumed run must agree in it."""
    shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in trained.items()]
    tensors = [first_batch.tokens, first_batch.real]
    if first_batch.scored is not None:
        tensors.append(first_batch.scored)
    batch = b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    content = {
        "seed": seed,
        "trained parameters": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
        "first batch": hashlib.sha256(batch + repr(first_batch.lengths).encode()).hexdigest()[:16],
        "optimizer": type(optimizer).__name__,
        "optimizer groups": groups,
        "warmup_steps": settings.warmup_steps,
        "decay_to": settings.decay_to,
        # A run at constant rate may be made longer; a decay would have gone another way.
        "steps of the decay": None if settings.decay_to == 1.0 else settings.steps,
        "clip_norm": settings.clip_norm,
        "precision": str(fabric.strategy.precision.precision),
        "processes": fabric.world_size,
    }
    return json.loads(json.dumps(content, default=repr))


def check_identity(path: Path, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse to go on from another run."""
    for key in [*mine, *saved]:
        if saved.get(key) != mine.get(key):
            raise CheckpointError(
                f"{key} must be as in checkpoint {path} to resume it ({saved.get(key)!r}); got "
                f"{mine.get(key)!r}. Restore it, or use another directory for another run."
            )
