import hashlib
import json
import os
import shutil

import pytest
import torch
from torch import nn
from training_problems import Toy, objective, optimizer, run, settings

from calmkit.training import CheckpointError
from calmkit.training.checkpoint import find_checkpoints, read_checkpoint
from calmkit.training.checkpoint_record import seal


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


def test_failure_while_writing_leaves_no_checkpoint(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            run(Toy(), directory=tmp_path)
    assert find_checkpoints(tmp_path) == []


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


def other_batches(step):
    from training_problems import batch_at

    return batch_at(step + 1)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"seed": 2}, r"seed must be as in checkpoint .*step-000012 to resume it \(1\); got 2"),
        ({"batches": other_batches}, "first batch must be as in checkpoint"),
        ({"settings": settings(clip_norm=2.0)}, "clip_norm must be as in"),
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
