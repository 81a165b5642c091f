import errno
import hashlib
import json
import os
import random
import shutil

import pytest
import safetensors.torch
import torch
from lightning_fabric import Fabric
from torch import nn
from training_problems import Toy, objective, optimizer, run, settings

from calmkit.cluster import Placement
from calmkit.disk import WriteError
from calmkit.training import CheckpointError, checkpoint
from calmkit.training.checkpoint import find_checkpoints, read_checkpoint
from calmkit.training.checkpoint_record import seal
from calmkit.training.history import History


class Boom:
    def __reduce__(self):
        return (os._exit, (17,))


def test_folder_holds_safe_weights_state_and_record(tmp_path):
    from safetensors.torch import load_file

    run(Toy(), directory=tmp_path)
    assert [p.name for p in find_checkpoints(tmp_path)] == ["step-000008", "step-000012"]
    newest = find_checkpoints(tmp_path)[-1]
    assert sorted(p.name for p in newest.iterdir()) == [
        "model.safetensors",
        "optimizer.pt",
        "training.json",
    ]
    assert "frozen.weight" in load_file(newest / "model.safetensors")
    assert json.loads((newest / "training.json").read_text())["step"] == 12


def test_only_the_newest_are_kept(tmp_path):
    run(Toy(), directory=tmp_path, settings=settings(checkpoint_every=3, keep_checkpoints=1))
    assert [p.name for p in find_checkpoints(tmp_path)] == ["step-000012"]
    assert not list(tmp_path.glob(".partial-*"))


def test_unfinished_write_is_ignored_and_cleared_away(tmp_path):
    partial = tmp_path / ".partial-step-000099"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert find_checkpoints(tmp_path) == []
    assert run(Toy(), directory=tmp_path).steps == 12
    assert not partial.exists()


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("where", ["save_model", "save", "replace_file"])
def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path, monkeypatch, where, at):
    """At the first, second or third checkpoint, in each of its files."""
    home = {"save_model": safetensors.torch, "save": torch, "replace_file": checkpoint}[where]
    write, calls = getattr(home, where), []

    def fail(*args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*args, **kwargs)

    said = rf"step-{4 * at:06d} could not be written: No space left on device\. Free some space, "
    with monkeypatch.context() as patch:
        patch.setattr(home, where, fail)
        with pytest.raises(WriteError, match=said + ".*run the same again; the checkpoints"):
            run(Toy(), directory=tmp_path)
    folders = [path.name for path in tmp_path.iterdir() if path.name != "logs"]
    assert sorted(folders) == [f"step-{4 * n:06d}" for n in range(1, at)]
    resumed, whole = Toy(), Toy()
    run(resumed, directory=tmp_path)
    run(whole)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_full_disk_leaves_the_record_that_was_to_be_renewed(tmp_path, monkeypatch):
    def stop(module):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # the last checkpoint lacks its validation
        run(Toy(), directory=tmp_path, validate=stop)
    newest = find_checkpoints(tmp_path)[-1]
    before = (newest / "training.json").read_bytes()

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(WriteError, match="step-000012 could not be written: No space left"):
            run(Toy(), directory=tmp_path)
    assert (newest / "training.json").read_bytes() == before
    assert len(list(newest.iterdir())) == 3
    assert len(run(Toy(), directory=tmp_path).validation) == 1


def test_a_damaged_record_is_not_renewed(tmp_path):
    run(Toy(), directory=tmp_path)
    newest = find_checkpoints(tmp_path)[-1]
    fabric = Fabric(accelerator="cpu", devices=1)
    arguments = {
        "placement": Placement(Toy(), fabric), "optimizer": optimizer(Toy().parameters()),
        "identity": {}, "fabric": fabric,
    }  # fmt: skip
    (newest / "training.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"step-000012 is damaged: training.json cannot be"):
        checkpoint.write_checkpoint(tmp_path, step=12, history=History(), keep=2, **arguments)


def flipped(content, place, bit):
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    return bytes(damaged)


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    """Each byte of the record and 100 of either other file: refused, or read as it was."""
    run(Toy(), directory=tmp_path)
    newest = find_checkpoints(tmp_path)[-1]
    want = read_checkpoint(newest)
    assert want.step == 12 and want.history.validation
    draw = random.Random(0)
    refused = {}
    for file in sorted(newest.iterdir()):
        content = file.read_bytes()
        places = range(len(content))
        if file.name != "training.json":
            places = sorted(draw.sample(places, 100))
        for place in places:
            file.write_bytes(flipped(content, place, draw.randrange(8)))
            try:
                assert read_checkpoint(newest) == want, (file.name, place)
            except CheckpointError as error:
                refused.setdefault(file.name, []).append(str(error))
        file.write_bytes(content)
    assert read_checkpoint(newest) == want
    assert {name: len(errors) for name, errors in refused.items()}["model.safetensors"] == 100
    assert len(refused["optimizer.pt"]) == 100 and len(refused["training.json"]) > 1000
    assert all("step-000012" in error for errors in refused.values() for error in errors)


@pytest.mark.parametrize("name", ["step-000006", "step-0000012", "step-999999"])
def test_a_renamed_checkpoint_is_refused_with_its_name(tmp_path, name):
    run(Toy(), directory=tmp_path, settings=settings(keep_checkpoints=1))
    (newest,) = find_checkpoints(tmp_path)
    newest.rename(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"{name} must be called step-000012, after the"):
        run(Toy(), directory=tmp_path)
    (tmp_path / name).rename(newest)
    assert run(Toy(), directory=tmp_path).steps == 12


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": 2, "step": ' + "9" * 5000 + "}", "[]"], ids=len
)
def test_json_that_is_no_record_is_damage(tmp_path, text):
    run(Toy(), directory=tmp_path)
    (find_checkpoints(tmp_path)[-1] / "training.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"is damaged: training.json cannot be read"):
        run(Toy(), directory=tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "training.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "one bit"])
def test_damage_is_refused_by_name(tmp_path, name, damage):
    run(Toy(), directory=tmp_path)
    file = find_checkpoints(tmp_path)[-1] / name
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-000012 is damaged: .*Delete this folder"):
        run(Toy(), directory=tmp_path)
    shutil.rmtree(file.parent)
    assert run(Toy(), directory=tmp_path).steps == 12


def test_pickle_in_the_optimizer_file_is_not_run(tmp_path):
    run(Toy(), directory=tmp_path)
    newest = find_checkpoints(tmp_path)[-1]
    torch.save({"state": Boom()}, newest / "optimizer.pt")
    record = json.loads((newest / "training.json").read_text())
    digest = hashlib.sha256((newest / "optimizer.pt").read_bytes()).hexdigest()
    record["files"]["optimizer.pt"] = digest
    del record["checksum"]
    (newest / "training.json").write_text(seal(record))
    with pytest.raises(CheckpointError, match=r"optimizer.pt holds more than tensors"):
        run(Toy(), directory=tmp_path)


def test_other_format_is_refused(tmp_path):
    run(Toy(), directory=tmp_path)
    record = find_checkpoints(tmp_path)[-1] / "training.json"
    record.write_text(record.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(CheckpointError, match=r"format 2, .*; got 1\. End the run with the vers"):
        read_checkpoint(record.parent)


def test_a_file_that_would_be_read_as_a_shard_is_refused(tmp_path):
    run(Toy(), directory=tmp_path)
    newest = find_checkpoints(tmp_path)[-1]
    shutil.copy(newest / "model.safetensors", newest / "shard-00002-model.safetensors")
    with pytest.raises(CheckpointError, match=r"shard-00002-model.* does not belong"):
        run(Toy(), directory=tmp_path)


def other_batches(step):
    from training_problems import batch_at

    return batch_at(step + 1)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"seed": 2}, r"seed must be as in checkpoint .*step-000012 to resume it \(1\); got 2"),
        ({"batches": other_batches}, "first batch must be as in checkpoint"),
        ({"settings": settings(clip_norm=2.0)}, "clip_norm must be as in"),
        (
            {"settings": settings(micro_batch=2)},
            r"micro_batch must be as in .*\(4\); got 2. Set micro_batch of this training to 4, or",
        ),
        ({"settings": settings(20)}, "steps of the decay must be as in"),
        ({"settings": settings(warmup_steps=0)}, "warmup_steps must be as in"),
        ({"optimizer": torch.optim.SGD}, "optimizer must be as in"),
        ({"optimizer": lambda p: torch.optim.AdamW(p, lr=0.1)}, "optimizer"),
    ],
)
def test_another_run_is_refused_before_any_work(tmp_path, changes, match):
    run(Toy(), directory=tmp_path)
    module = Toy(seed=5)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        run(module, directory=tmp_path, **changes)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_module_is_refused(tmp_path):
    run(Toy(), directory=tmp_path)
    changed = Toy()
    changed.frozen = nn.Linear(5, 5, bias=False).requires_grad_(False)
    with pytest.raises(CheckpointError, match="must hold the weights of the module"):
        run(changed, directory=tmp_path)
    grown = Toy()
    grown.mix = nn.Linear(5, 6)
    with pytest.raises(CheckpointError, match="trained parameters must be as in"):
        run(grown, directory=tmp_path)


def test_run_at_constant_rate_may_be_made_longer_but_not_shorter(tmp_path):
    constant = {"decay_to": 1.0, "log_every": 1}
    longer, straight = Toy(), Toy()
    run(Toy(), directory=tmp_path, settings=settings(6, **constant))
    assert run(longer, directory=tmp_path, settings=settings(9, **constant)).steps == 9
    run(straight, settings=settings(9, **constant))
    for a, b in zip(longer.parameters(), straight.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(CheckpointError, match="steps must be at least the 9 steps"):
        run(Toy(), directory=tmp_path, settings=settings(6, **constant))


def test_objective_and_optimizer_of_the_problem_are_plain_functions():
    # Guards the tests above: an optimiser that ignored its parameters would pass them all.
    assert callable(objective) and len(optimizer(Toy().parameters()).param_groups) == 2
