"""`calmkit train` in two processes, one of which is killed, and in one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from calmkit import cli
from calmkit.reports import plots

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]

CONFIG = {
    "vocab_size": 300, "hidden_size": 16, "positions": 8, "accelerator": "cpu",
    "autoencoder": {"init_args": {"width": 16}},
    "autoencoder_training": {"steps": 4, "batch_size": 4, "micro_batch": 2, "warmup_steps": 1,
                             "validate_every": 0},
    "backbone": {"init_args": {"depth": 1, "heads": 2}},
    "head": {"init_args": {"width": 16, "depth": 1}},
    "training": {"steps": 80, "batch_size": 4, "micro_batch": 2, "warmup_steps": 5,
                 "validate_every": 40, "checkpoint_every": 4},
    "evaluation": {"rows": 4, "draws": 2, "min_context": 2, "bootstrap": 20},
    "validation_rows": 2, "sample_tokens": 4,
}  # fmt: skip


@pytest.fixture
def options(tmp_path, cache, monkeypatch):
    """The options of a small training, apart from its output and devices."""
    monkeypatch.setattr(plots, "draw_plots", lambda lines: [])
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    torch.set_default_dtype(torch.float32)  # that of the other processes
    yield ["--config", str(tmp_path / "small.yaml"), "--cache_dir", f"{cache}/calmkit"]
    torch.set_default_dtype(torch.float64)


def started(options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "calmkit", "train", *options], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def children(process):
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in found.split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def weights(output):
    return load_file(output / "model.safetensors")


@pytest.mark.parametrize("strategy, killed", [("ddp", "first"), ("fsdp", "last")])
def test_one_killed_ends_all_and_another_number_goes_on(tmp_path, options, strategy, killed):
    output = tmp_path / strategy
    mine = [*options, "--output", str(output), "--devices"]
    process = started([*mine, "2", "--strategy", strategy])
    try:
        deadline = time.monotonic() + 120
        while not list((output / "checkpoints" / "model").glob("step-*")):
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.01)
        (other,) = children(process)
        time.sleep(random.random() / 4)
        os.kill(process.pid if killed == "first" else other, signal.SIGKILL)
        began = time.monotonic()
        said, _ = process.communicate(timeout=20)
        while alive(other):
            assert time.monotonic() - began < 10
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.returncode != 0 and not (output / "results.json").exists()
    assert "ends with it" in said or killed == "last"
    assert cli.main(["train", *mine, "1"]) == 0
    whole = tmp_path / "whole"
    assert cli.main(["train", *options, "--output", str(whole)]) == 0
    torch.testing.assert_close(weights(output), weights(whole), rtol=0, atol=1e-4)
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in output.iterdir()} == names


def test_a_program_is_not_run_again_by_accident(tmp_path, options, capsys):
    assert cli.main(["train", *options, "--output", str(tmp_path / "x"), "--devices", "2"]) == 2
    assert "devices must be 1 when calmkit is called inside a program" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, said",
    [
        (["--training.micro_batch", "3"], "training.batch_size must be a multiple of devices *"),
        (["--training.batch_size", "5"], "micro_batch = 2 * 2 = 4, so that"),
        (["--autoencoder_training.batch_size", "2"], "autoencoder_training.batch_size must be"),
    ],
)
def test_batches_that_do_not_divide_are_refused_at_once(tmp_path, options, capsys, given, said):
    output = ["--output", str(tmp_path / "x"), "--devices", "2"]
    assert cli.main(["train", *options, *output, *given]) == 2
    assert said in capsys.readouterr().err
