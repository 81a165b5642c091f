"""Trainings in several processes, for the tests of training.

`main` starts two processes and then four, which do the runs below with each strategy. The first
of them writes what came of the runs to FOLDER/PROCESSES-STRATEGY.pt. Each process is a fork of
one that has imported everything and never starts a thread, for which `forking` starts `main`.
"""

import contextlib
import math
import os
import shutil
import signal
import socket
import time

import torch
from calm_models import energy_head, tiny
from lightning_fabric import Fabric
from torch.multiprocessing import start_processes
from training_problems import optimizer

from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.cluster import LostProcessError, fully_sharded, peers
from calmkit.finite import check_finite
from calmkit.heads import FlowHead
from calmkit.models import NoisyInput, TokenLM
from calmkit.training import Means, TrainingDiverged, TrainingSettings, fit
from calmkit.training.checkpoint import find_checkpoints

VOCAB, ROWS, POSITIONS = 7, 8, 5
# Of each row, the number of chunks that are scored, from its end. With micro-batches of 2 rows,
# rows i and i + 4 belong together: micro-batch 1 has none.
SCORED = (4, 0, 2, 1, 4, 0, 0, 3)
CHUNK = {"energy": 3, "flow": 3, "softmax": 1, "terms": 3}
# The runs that are resumed go on from step 3; noise of the input is full from there.
STEPS = {"energy": 5, "flow": 3, "softmax": 3, "terms": 4}


class Stop(Exception):
    """Ends a training."""


def model_of(kind):
    if kind == "softmax":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            backbone = TransformerBackbone(8, depth=2, heads=2, activation_checkpointing=True)
            return TokenLM(VOCAB, backbone=backbone, tie_embeddings=True)
    if kind == "flow":
        return tiny(build_head=lambda cond, latent: FlowHead(cond, latent, width=8, depth=1))
    if kind == "terms":
        noisy = NoisyInput(tiny().input_encoder, size=0.5, warmup_steps=3)
        weights = {"cross_entropy_weight": 0.1, "pull_weight": 0.5}
        return tiny(build_head=energy_head, input_encoder=noisy, **weights)
    return tiny(build_head=energy_head)


def batches_of(kind, *, stop=None):
    def batch_at(step):
        if step == stop:
            raise Stop
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(VOCAB, (ROWS, POSITIONS, CHUNK[kind]), generator=generator)
        scored = torch.arange(POSITIONS) >= POSITIONS - torch.tensor(SCORED)[:, None]
        lengths = ((POSITIONS,),) * ROWS
        return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), lengths, scored)

    return batch_at


def objective(module, batch, generator):
    loss = module.loss(batch, generator)
    return Means({"loss": loss.total}, loss.counted.sum())


def train(
    kind, *, micro_batch=2, clip_norm=0.5, steps=None, stop=None, aim=objective, **arguments
):
    """A trained model, with the result of its training."""
    model = model_of(kind)
    settings = TrainingSettings(
        steps or STEPS[kind], warmup_steps=2, log_every=1, checkpoint_every=3, clip_norm=clip_norm,
        validate_every=2, micro_batch=micro_batch, ema=0.5,
    )  # fmt: skip

    def validate(module):
        assert not module.training
        return {"loss": float(module.loss(batches_of(kind)(99), torch.Generator()).total)}

    result = fit(
        model, aim, batches_of(kind, stop=stop), settings=settings, seed=1, optimizer=optimizer,
        validate=validate, loggers=(), **arguments,
    )  # fmt: skip
    return content(model, result)


def content(model, result):
    """What of a training must be equal, as plain values."""
    return {
        "weights": {name: value.detach().cpu() for name, value in model.state_dict().items()},
        "averages": {name: value.cpu() for name, value in result.average.state_dict().items()},
        "steps": result.steps,
        "curve": [(step, dict(values)) for step, values in result.curve],
        "validation": [(step, dict(values)) for step, values in result.validation],
    }


def unclipped(micro_batch, **arguments):
    """A training without clipping, by a norm that is a sum over shards."""
    return train("energy", micro_batch=micro_batch, clip_norm=math.inf, steps=3, **arguments)


def stopped(directory, stop=4, **arguments):
    """Train into a folder, whose newest checkpoint is then of step 3."""
    with contextlib.suppress(Stop):
        train("energy", directory=directory, stop=stop, **arguments)


def fails_in_one(fabric):
    """How each process ends when the loss of the last one's head meets NaN.

    The others go on, and draw samples from their heads.
    """

    def failing(module, batch, generator):
        failing.calls += 1
        if failing.calls == 4 and fabric.global_rank == fabric.world_size - 1:
            loss = module.head.loss

            def loss_and_nan(*given):
                loss(*given)
                check_finite(samples=torch.tensor(torch.nan))

            module.head.loss = loss_and_nan
        return objective(module, batch, generator)

    failing.calls = 0
    try:
        train("terms", micro_batch=1, fabric=fabric, aim=failing)
    except TrainingDiverged as error:
        return str(error)
    return "it did not end"


def fail(rank, port, strategy, kind, goes_on):
    """Train in one of two processes, the second of which fails before it calls its model.

    It prints its error, and then goes on or ends.
    """
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_default_dtype(torch.float64)
    peers._SECONDS_TO_LEAVE = 0.5

    def failing(module, batch, generator):
        if rank == 1 and kind == "nan":
            check_finite(tokens=torch.tensor(torch.nan))
        if rank == 1:
            raise ValueError("a mistake of one's own")
        return objective(module, batch, generator)

    strategy = fully_sharded() if strategy == "fsdp" else strategy
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy)
    fabric.launch()
    try:
        train("energy", micro_batch=4, fabric=fabric, aim=failing)
    except (ValueError, TrainingDiverged, LostProcessError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    if rank == 1 and goes_on:
        time.sleep(30)
    os._exit(2)


def interrupted_in_one(fabric, directory):
    """How each process ends when the last one receives SIGINT in step 1."""

    def interrupting(module, batch, generator):
        interrupting.calls += 1
        if interrupting.calls == 2 and fabric.global_rank == fabric.world_size - 1:
            signal.raise_signal(signal.SIGINT)
        return objective(module, batch, generator)

    interrupting.calls = 0
    micro_batch = ROWS // fabric.world_size
    try:
        train("energy", micro_batch=micro_batch, fabric=fabric, aim=interrupting,
              directory=directory)  # fmt: skip
    except KeyboardInterrupt:
        return "interrupted"
    return "it did not end"


def all_of(fabric, name, folder):
    """What came of every run, by its name."""
    directory = folder / f"{fabric.world_size}-{name}"
    # Its first checkpoint, of step 3, is also for others to go on with.
    done = {"energy": train("energy", directory=directory, fabric=fabric)}
    fabric.barrier()
    if fabric.is_global_zero:
        newest = find_checkpoints(directory)[-1]
        shutil.rmtree(newest)
        shutil.copytree(directory, folder / f"{directory.name}-at-3")
    fabric.barrier()
    done["resumed"] = train("energy", directory=directory, fabric=fabric)
    done |= {kind: train(kind, fabric=fabric) for kind in CHUNK if kind != "energy"}
    done["one each"] = unclipped(ROWS // fabric.world_size, fabric=fabric)
    done["no micro_batch"] = unclipped(None, fabric=fabric)
    done["nan"] = gathered(fabric, fails_in_one(fabric))
    interrupts = folder / f"{fabric.world_size}-{name}-interrupted"
    done["interrupted"] = gathered(fabric, interrupted_in_one(fabric, interrupts))
    return done


def gathered(fabric, value):
    """The values of all processes, in order."""
    values = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def in_one_of(rank, folder, processes, port):
    """All runs with each strategy, in one process of several."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, strategy in (("ddp", "ddp"), ("fsdp", fully_sharded())):
        fabric = Fabric(accelerator="cpu", devices=processes, strategy=strategy)
        fabric.launch()
        done = all_of(fabric, name, folder)
        # Checkpoints that others have left, in any number of processes.
        for source in sorted(folder.glob("*-at-3")):
            if not source.name.startswith(f"{processes}-{name}"):
                target = folder / f"{source.name}-then-{processes}-{name}"
                if fabric.is_global_zero:
                    shutil.copytree(source, target)
                fabric.barrier()
                done[source.name] = train("energy", directory=target, fabric=fabric)
        if fabric.is_global_zero:
            torch.save(done, folder / f"{processes}-{name}.pt")
    # A process that leaves while the other still talks to it makes that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def main(folder):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for processes in (2, 4):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        start_processes(
            in_one_of, (folder, processes, port), nprocs=processes, start_method="fork"
        )
