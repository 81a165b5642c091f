"""Two processes on one machine give what one process gives, and resume."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from training_problems import batch_at, optimizer, settings

from calmkit.training import fit
from calmkit.training.checkpoint import find_checkpoints, read_checkpoint
from calmkit.training.processes import rows_of_process


class Stop(Exception):
    pass


def objective(module, batch, generator):
    logits = module(batch.tokens).flatten(0, -2)
    return {"loss": nn.functional.cross_entropy(logits, batch.tokens.flatten())}


def train(directory, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Embedding(7, 5), nn.Tanh(), nn.Linear(5, 7))
    arguments = {"settings": settings(), "seed": 1, "optimizer": optimizer, **arguments}
    return module, fit(
        module, objective, arguments.pop("batches", batch_at), directory=directory, **arguments
    )


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for stop in ("5", "never"):
        command = [sys.executable, __file__, str(tmp_path / "two"), stop]
        subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    alone, result = train(tmp_path / "one")
    (*_, newest) = find_checkpoints(tmp_path / "two")
    checkpoint = read_checkpoint(newest)
    assert checkpoint.step == 12
    from safetensors.torch import load_file

    # The mean of two means rounds otherwise than one mean: equal to a few units in the last place.
    torch.testing.assert_close(load_file(newest / "model.safetensors"), dict(alone.state_dict()))
    for (step, want), (other, got) in zip(result.curve, checkpoint.history.curve, strict=True):
        assert step == other and got == pytest.approx(want, rel=1e-12)


@dataclasses.dataclass
class Process:
    """What of a fabric tells which process this is."""

    global_rank: int
    world_size: int
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"a multiple of 3 rows, .*; got 4"):
        rows_of_process(batch_at(0), Process(0, 3))
    batch = batch_at(0)
    shares = [rows_of_process(batch, Process(rank, 2)).tokens for rank in range(2)]
    assert torch.equal(torch.stack(shares, dim=1).flatten(0, 1), batch.tokens)


if __name__ == "__main__":
    from lightning_fabric import Fabric

    torch.set_default_dtype(torch.float64)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    limit = None if sys.argv[2] == "never" else int(sys.argv[2])

    def batches(step):
        if step == limit:
            raise Stop
        return batch_at(step)

    with contextlib.suppress(Stop):
        train(Path(sys.argv[1]), fabric=fabric, batches=batches)
    # A process that leaves while the other still talks to it makes that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
