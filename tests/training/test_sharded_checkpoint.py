"""A checkpoint of shards is complete or absent too; in a group of one process."""

import errno
import os
import socket

import pytest
import torch
from calm_models import energy_head, tiny
from lightning_fabric import Fabric
from training_problems import settings

from calmkit.chunking import ChunkBatch
from calmkit.cluster import fully_sharded
from calmkit.disk import WriteError
from calmkit.training import CheckpointError, checkpoint, fit
from calmkit.training.checkpoint import find_checkpoints


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Train 12 steps with a checkpoint after every 4, in `tmp_path`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    fabric = Fabric(accelerator="cpu", devices=1, strategy=fully_sharded())
    fabric.launch()

    def batch_at(step):
        tokens = torch.randint(7, (2, 4, 3), generator=torch.Generator().manual_seed(step))
        return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((4,),) * 2)

    def run(directory=tmp_path):
        model = tiny(build_head=energy_head)
        fit(
            model,
            lambda module, batch, generator: {"loss": module.loss(batch, generator).total},
            batch_at,
            settings=settings(ema=0.5),
            seed=0,
            fabric=fabric,
            directory=directory,
            loggers=(),
        )
        return model.state_dict()

    yield run
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("where", ["write_rest", "write_shards", "replace_file"])
def test_a_full_disk_leaves_no_half_checkpoint(train, tmp_path, monkeypatch, where):
    """The folder gets its name last; the disk is full in the second checkpoint."""
    write, found = getattr(checkpoint, where), []

    def fail(*args, **kwargs):
        found.append([path.name for path in find_checkpoints(tmp_path)])
        if len(found) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, where, fail)
        with pytest.raises(WriteError, match="step-000008 could not be written: No space left"):
            train()
    assert found == [[], ["step-000004"]]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]
    torch.testing.assert_close(train(), train(directory=None), rtol=0, atol=0)


@pytest.mark.parametrize("file", ["shard-*", "optimizer.pt", "training.json"])
def test_a_flipped_bit_is_refused_by_name(train, tmp_path, file):
    train()
    (path,) = find_checkpoints(tmp_path)[-1].glob(file)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{path.name} (does not match|cannot be read)"):
        train()
