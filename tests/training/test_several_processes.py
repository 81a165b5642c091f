"""Several processes, with either strategy, take the steps of one process, and resume for another.

The runs are those of `process_runs`, in two and in four processes.
"""

import functools
import re
import shutil

import forking
import process_runs
import pytest
import torch
from process_runs import CHUNK, stopped, train, unclipped

from calmkit.training import CheckpointError
from calmkit.training.checkpoint import find_checkpoints

STRATEGIES = [(2, "ddp"), (2, "fsdp"), (4, "ddp"), (4, "fsdp")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the runs leave; those in four processes go on with what others have begun."""
    folder = tmp_path_factory.mktemp("processes")
    stopped(folder / "1-one-at-3")
    said = folder / "said"
    runs = forking.start(process_runs.main, folder, output=said)
    assert forking.finished(runs, seconds=250) == 0, said.read_text()[-3000:]
    return folder


@pytest.fixture(scope="module")
def of(folder):
    """The results of the runs in some processes with a strategy."""
    found = {}

    def read(processes, strategy):
        name = f"{processes}-{strategy}"
        if name not in found:
            found[name] = torch.load(folder / f"{name}.pt", weights_only=True)
        return found[name]

    return read


@pytest.fixture(scope="module")
def alone():
    """The same runs in one process."""
    return functools.cache(train)


def assert_close(got, want):
    """Equal but for the order of sums."""
    assert got["steps"] == want["steps"]
    for name in ("weights", "averages"):
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-12)
    for name in ("curve", "validation"):
        assert len(got[name]) == len(want[name]) > 0
        for (step, ours), (other, theirs) in zip(got[name], want[name], strict=True):
            assert step == other and ours == pytest.approx(theirs, rel=1e-11)


def assert_equal(got, want):
    """Equal in every bit."""
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
@pytest.mark.parametrize("kind", CHUNK)
def test_same_losses_and_weights_as_one_process(of, alone, processes, strategy, kind):
    """With micro-batches without a scored chunk, which are all that one process has."""
    assert_close(of(processes, strategy)[kind], alone(kind))


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_without_a_size_each_process_has_one_micro_batch(of, alone, processes, strategy):
    done = of(processes, strategy)
    assert_equal(done["no micro_batch"], done["one each"])
    assert_close(done["one each"], unclipped(8 // processes))


# Processors may round the last elements of a tensor otherwise, and each shard has such elements.
@pytest.mark.parametrize("strategy, rounding", [("ddp", 0.0), ("fsdp", 1e-15)])
def test_two_micro_batches_give_the_same_bits_in_one_process_and_in_two(of, strategy, rounding):
    """The sum of two gradients has one order; only their norm is summed over shards."""
    got, want = of(2, strategy)["one each"], unclipped(4)
    losses = [[values["loss"] for _, values in done["curve"]] for done in (got, want)]
    for ours, theirs in ((got["weights"], want["weights"]), losses):
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_resumed_in_as_many_processes_gives_the_same_bits(of, processes, strategy):
    done = of(processes, strategy)
    assert_equal(done["resumed"], done["energy"])


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_begun_by_others_and_resumed_by_one(folder, alone, processes, strategy):
    name = f"{processes}-{strategy}-at-3"
    assert find_checkpoints(folder / name)[0].name == "step-000003"
    assert_close(train("energy", directory=folder / name), alone("energy"))


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_begun_by_others_and_resumed_by_several(of, alone, processes, strategy):
    done = of(processes, strategy)
    others = [name for name in done if name.endswith("-at-3")]
    expected = {2: {"1-one-at-3"}, 4: {"1-one-at-3", "2-ddp-at-3", "2-fsdp-at-3"}}[processes]
    expected |= {f"{processes}-ddp-at-3"} if strategy == "fsdp" else set()
    assert set(others) == expected
    for name in others:
        assert_close(done[name], alone("energy"))


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_each_ends_when_one_meets_nan(of, processes, strategy):
    *others, last = of(processes, strategy)["nan"]
    said = "in step {} (from 0): 'loss' cannot be computed: "
    step = 0 if processes == 2 else 1  # that of the fourth micro-batch
    assert said.format(step) + "samples must be finite" in last
    for text in others:
        assert said.format(step) + "another process met a value" in text


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_all_stop_after_the_step_in_which_one_is_interrupted(folder, of, processes, strategy):
    assert of(processes, strategy)["interrupted"] == ["interrupted"] * processes
    left = find_checkpoints(folder / f"{processes}-{strategy}-interrupted")
    assert [path.name for path in left] == ["step-000002"]


@pytest.mark.parametrize("damage", ["missing", "one bit"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_shard_is_refused_by_name(folder, tmp_path, number, damage):
    """Whichever process has written it, and read its checksum."""
    (saved, *_) = find_checkpoints(folder / "2-fsdp-at-3")
    shard = sorted(shutil.copytree(saved, tmp_path / saved.name).glob("shard-*"))[number]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # of a weight or a moment
    shard.unlink() if damage == "missing" else shard.write_bytes(content)
    said = "is missing" if damage == "missing" else "does not match its checksum"
    with pytest.raises(CheckpointError, match=rf"{re.escape(shard.name)} {said}"):
        train("energy", directory=tmp_path)


@pytest.mark.parametrize("processes, strategy", STRATEGIES)
def test_shards_are_files_of_their_own(folder, processes, strategy):
    first, *_ = find_checkpoints(folder / f"{processes}-{strategy}-at-3")
    shards = sorted(path.name for path in first.glob("*.safetensors"))
    if strategy == "ddp":
        assert shards == ["ema.safetensors", "model.safetensors"]
    else:
        assert len(shards) == processes
        sizes = [path.stat().st_size for path in first.glob("*.safetensors")]
        assert max(sizes) < 2 * min(sizes)
