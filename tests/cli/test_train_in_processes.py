"""`calmkit train` in two processes, one of which is killed, on two machines, and alone."""

import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import forking
import pytest
import torch
import yaml
from precision import in_float32
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


@pytest.fixture(scope="module")
def options(tmp_path_factory, cache):
    """The options of a small training, apart from its output and devices."""
    file = tmp_path_factory.mktemp("config") / "small.yaml"
    file.write_text(yaml.safe_dump(CONFIG))
    with in_float32(), pytest.MonkeyPatch.context() as patch:  # that of the other processes
        patch.setattr(plots, "draw_plots", lambda lines: [])
        yield ["--config", str(file), "--cache_dir", f"{cache}/calmkit"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, options):
    """The output of one process that nobody interrupts."""
    output = tmp_path_factory.mktemp("whole")
    assert cli.main(["train", *options, "--output", str(output)]) == 0
    return output


def started(options, output):
    """`python -m calmkit train` in a process, which starts the others; all write to a file."""
    given = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return forking.start(forking.run_module, "calmkit", "train", *options, output=output, **given)


def train_in(folder, *options):
    os.chdir(folder)
    forking.run_command("train", *options)


def environments(launcher):
    """What torchrun or SLURM tells a process on each of two machines, which are this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for rank in ("0", "1"):
        if launcher == "torchrun":
            yield place | {
                "TORCHELASTIC_RUN_ID": "1", "RANK": rank, "WORLD_SIZE": "2", "GROUP_RANK": rank,
                "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
            }  # fmt: skip
        else:
            yield place | {
                "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2",
                "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": rank, "SLURM_LOCALID": "0",
                "SLURM_NODEID": rank,
            }  # fmt: skip


def on_two_machines(launcher, options, folders):
    """The exit code of each process, and what it said."""
    options = [*options, "--num_nodes", "2"]
    processes = [
        forking.start(train_in, folder, *options, output=folder / "said", **given)
        for folder, given in zip(folders, environments(launcher), strict=True)
    ]
    codes = [forking.finished(process, seconds=120) for process in processes]
    return codes, [(folder / "said").read_text() for folder in folders]


@pytest.fixture
def folders(tmp_path):
    """The current folder on each machine."""
    folders = [tmp_path / name for name in ("first", "other")]
    for folder in folders:
        folder.mkdir()
    return folders


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
def test_one_killed_ends_all_and_one_goes_on(tmp_path, options, whole, strategy, killed):
    output, file = tmp_path / strategy, tmp_path / "said"
    mine = [*options, "--output", str(output), "--devices"]
    process = started([*mine, "2", "--strategy", strategy], file)
    try:
        deadline = time.monotonic() + 120
        while not list((output / "checkpoints" / "model").glob("step-*")):
            assert process.is_alive() and time.monotonic() < deadline, file.read_text()
            time.sleep(0.01)
        (other,) = children(process)
        time.sleep(random.random() / 4)
        os.kill(process.pid if killed == "first" else other, signal.SIGKILL)
        began = time.monotonic()
        process.join(20)
        while alive(other):
            assert time.monotonic() - began < 20
            time.sleep(0.05)
    finally:
        code = forking.finished(process, seconds=0)
    assert code != 0 and not (output / "results.json").exists()
    said = file.read_text()
    # Whichever hears of the end first: the connection, or the exchange of tensors.
    heard = "ends with it" in said or "another process has ended" in said
    assert heard or killed == "last"
    assert cli.main(["train", *mine, "1"]) == 0
    torch.testing.assert_close(weights(output), weights(whole), rtol=0, atol=1e-4)
    assert {path.name for path in output.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_process_whose_parent_is_killed_at_its_start_ends(tmp_path, options):
    """It would wait for minutes where the processes meet."""
    given = [*options, "--output", str(tmp_path / "x"), "--devices", "2"]
    process = started(given, tmp_path / "said")
    while not (found := children(process)):
        assert process.is_alive(), (tmp_path / "said").read_text()
        time.sleep(0.01)
    process.kill()
    began = time.monotonic()
    try:
        while any(map(alive, found)):
            assert time.monotonic() - began < 10
            time.sleep(0.05)
    finally:
        for pid in filter(alive, found):
            os.kill(pid, signal.SIGKILL)
        forking.finished(process, seconds=0)


def test_two_machines_take_the_steps_of_one(tmp_path, options, whole, folders):
    output = tmp_path / "output"
    given = [*options, "--output", str(output)]
    codes, (first, other) = on_two_machines("torchrun", given, folders)
    assert codes == [0, 0], (first, other)
    assert other == ""  # only the first one shows and writes
    torch.testing.assert_close(weights(output), weights(whole), rtol=0, atol=1e-4)
    assert {path.name for path in output.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_machine_with_other_text_is_named_before_the_first_step(tmp_path, options, folders):
    for folder in folders:
        text = [f"{n}: The dogs of the {folder.name} house bark at night. " * 9 for n in range(60)]
        (folder / "text.txt").write_text("\n\n".join(text))
    own = ["--data", "text.txt", "--cache_dir", "kept", "--validation_fraction", "0.3"]
    output = ["--output", str(tmp_path / "output")]
    codes, said = on_two_machines("slurm", [*options, *own, *output], folders)
    assert codes == [2, 2], said
    for line in said:
        assert "text must be the same in all processes; process 1 on " in line
    assert not (tmp_path / "output" / "checkpoints").exists()


def test_tasks_that_fabric_refuses_are_told(tmp_path, options, monkeypatch, capsys):
    for name, value in next(environments("slurm")).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    given = [*options, "--output", str(tmp_path / "x"), "--num_nodes", "2"]
    assert cli.main(["train", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--ntasks-per-node must be given to SLURM for several tasks; got --ntasks=2" in line


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
