"""Two processes on one machine give what one process gives, and resume."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from training_problems import batch_at, counted_batch, optimizer, settings

from calmkit.finite import check_finite
from calmkit.training import Means, TrainingDiverged, fit
from calmkit.training.checkpoint import find_checkpoints, read_checkpoint


class Stop(Exception):
    pass


def objective(module, batch, generator):
    logits = module(batch.tokens).flatten(0, -2)
    return {"loss": nn.functional.cross_entropy(logits, batch.tokens.flatten())}


def scored_objective(module, batch, generator):
    """A mean over scored chunks; NaN, with a gradient of 0, where there is none."""
    logits = module(batch.tokens).flatten(0, -2)
    losses = nn.functional.cross_entropy(logits, batch.tokens.flatten(), reduction="none")
    losses = losses.view(batch.tokens.shape).mean(dim=-1)[batch.scored]
    return Means({"loss": losses.mean(), "square": losses.square().mean()}, batch.scored.sum())


def train(directory, *, aim=objective, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Embedding(7, 5), nn.Tanh(), nn.Linear(5, 7))
    arguments = {"settings": settings(), "seed": 1, "optimizer": optimizer, **arguments}
    return module, fit(
        module, aim, arguments.pop("batches", batch_at), directory=directory, **arguments
    )


# Scored chunks in each row; a process has every second row.
SHARES = {"one and seven": (1, 7), "none and seven": (0, 7), "four rows": (0, 1, 4, 8)}


def train_on_shares(directory, counts, **arguments):
    return train(
        directory,
        aim=scored_objective,
        batches=lambda step: counted_batch(counts, seed=step),
        settings=settings(6, log_every=2),
        **arguments,
    )


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two processes leave in a folder."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True)
    return folder


def assert_equal_but_for_rounding(directory, module, result):
    """The mean of two means rounds otherwise than one mean: a few units in the last place."""
    from safetensors.torch import load_file

    (*_, newest) = find_checkpoints(directory)
    checkpoint = read_checkpoint(newest)
    assert checkpoint.step == result.steps
    torch.testing.assert_close(
        load_file(newest / "model.safetensors"), dict(module.state_dict()), rtol=0, atol=1e-12
    )
    for (step, want), (other, got) in zip(result.curve, checkpoint.history.curve, strict=True):
        assert step == other and got == pytest.approx(want, rel=1e-12)


@pytest.mark.slow
def test_two_processes_equal_one(two_processes, tmp_path):
    assert_equal_but_for_rounding(two_processes / "two", *train(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_unequal_shares_equal_one_process(two_processes, tmp_path, name):
    want = train_on_shares(tmp_path, SHARES[name])
    assert_equal_but_for_rounding(two_processes / name, *want)


@pytest.mark.slow
def test_each_process_ends_when_one_meets_nan(two_processes):
    texts = [(two_processes / f"{rank}.txt").read_text() for rank in range(2)]
    assert "step 1 (from 0): 'loss' cannot be computed: samples must be finite" in texts[1]
    assert "step 1 (from 0): 'loss' cannot be computed: another process met a value" in texts[0]


def fails_in_one(fabric, path):
    """Step 1 meets NaN in process 1 alone; each writes how its training ended."""

    def failing(module, batch, generator):
        parts = objective(module, batch, generator)
        if failing.steps and fabric.global_rank == 1:
            check_finite(samples=torch.tensor(torch.nan))
        failing.steps += 1
        return parts

    failing.steps = 0
    with pytest.raises(TrainingDiverged) as caught:
        train(None, aim=failing, fabric=fabric)
    path.write_text(str(caught.value))


if __name__ == "__main__":
    from lightning_fabric import Fabric

    torch.set_default_dtype(torch.float64)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    folder = Path(sys.argv[1])

    def stopping(step):
        if step == 5:
            raise Stop
        return batch_at(step)

    with contextlib.suppress(Stop):
        train(folder / "two", fabric=fabric, batches=stopping)
    train(folder / "two", fabric=fabric)
    for name, counts in SHARES.items():
        train_on_shares(folder / name, counts, fabric=fabric)
    fails_in_one(fabric, folder / f"{fabric.global_rank}.txt")
    # A process that leaves while the other still talks to it makes that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
