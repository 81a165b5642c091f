"""The identity of a run: all settings that affect its numbers, equal in a resumed run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from calmkit.cluster import MicroBatches

from .checkpoint_record import CheckpointError
from .settings import TrainingSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check_identity", "run_identity"]


def run_identity(
    trained: Mapping[str, nn.Parameter],
    batches: MicroBatches,
    optimizer: Optimizer,
    settings: TrainingSettings,
    seed: int,
    fabric: "Fabric",
) -> dict[str, Any]:
    """The settings that affect a run's numbers, as read back from JSON."""
    shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in trained.items()]
    first_batch = batches.first_batch
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
        # A run at a constant rate can be extended; a decay depends on the number of steps.
        "steps of the decay": None if settings.decay_to == 1.0 else settings.steps,
        "clip_norm": settings.clip_norm,
        "ema": settings.ema,
        "precision": str(fabric.strategy.precision.precision),
        "micro_batch": len(first_batch.lengths) // batches.share.count,
    }
    return json.loads(json.dumps(content, default=repr))


def check_identity(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse to resume another run.

    Raises:
        CheckpointError: If the two identities differ; names the setting.
    """
    for key in [*own, *saved]:
        if saved.get(key) != own.get(key):
            raise CheckpointError(
                f"{key} must be as in checkpoint {path} to resume it ({saved.get(key)!r}); got "
                f"{own.get(key)!r}. {_remedy(key, saved)}, or use another directory for another "
                "run."
            )


def _remedy(key: str, saved: Mapping[str, Any]) -> str:
    if key == "micro_batch":  # without it, it follows from the number of devices
        return f"Set micro_batch of this training to {saved.get(key)}"
    return "Restore it"
