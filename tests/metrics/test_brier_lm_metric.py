"""BrierLM as a metric: batches, processes and orders give what one pass over all draws gives."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys

import pytest
import torch

from calmkit.metrics import BrierLM, NgramSums, counted_ngrams, summarize_brier

DOCUMENTS, CHUNK = 5, 2
PROTOCOL = "4 draws after 3 chunks of 2 tokens"


def data(points=40, tokens=5):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(2, (4, points, tokens), generator=generator)
    target = torch.randint(2, (points, tokens), generator=generator)
    document = torch.randint(DOCUMENTS, (points,), generator=generator)
    valid = torch.rand(points, tokens, generator=generator) < 0.9
    return draws, target, document, valid


def metric(**changes):
    return BrierLM(DOCUMENTS, CHUNK, **{"resamples": 200, "protocol": PROTOCOL, **changes})


def feed(one, points):
    draws, target, document, valid = data()
    one.update(draws[:, points], target[points], document=document[points], valid=valid[points])
    return one


def as_numbers(result):
    """All numbers of a result in one list."""
    found = []

    def visit(x):
        if isinstance(x, float):
            found.append(x)
        elif isinstance(x, tuple):
            for y in x:
                visit(y)
        elif dataclasses.is_dataclass(x):
            visit(tuple(vars(x).values()))

    visit(result)
    return found


@pytest.mark.parametrize("highest_order", [1, 2, 4, 5])
def test_equals_the_plain_functions(highest_order):
    draws, target, document, valid = data()
    counted = counted_ngrams(valid, highest_order, CHUNK)
    sums = NgramSums.of_draws(draws, target, counted, document, DOCUMENTS)
    want = summarize_brier(sums, resamples=200, protocol=PROTOCOL)
    one = metric(highest_order=highest_order)
    got = feed(one, slice(None)).compute()
    assert got == want
    assert len(got.brier) == highest_order and PROTOCOL in str(got)


def test_batches_add_up_and_reset_forgets():
    whole = feed(metric(), slice(None)).compute()
    one = metric()
    for points in (slice(0, 11), slice(11, 12), slice(12, None)):
        feed(one, points)
    assert as_numbers(one.compute()) == pytest.approx(as_numbers(whole))
    one.reset()
    assert one.counts.sum() == 0
    assert feed(one, slice(None)).compute() == whole


def test_no_mask_means_that_all_is_text():
    draws, target, document, valid = data()
    masked, bare = metric(), metric()
    masked.update(draws, target, document=document, valid=torch.ones_like(valid))
    bare.update(draws, target, document=document)
    assert masked.compute() == bare.compute()


def test_copies_and_pickles_go_on():
    half = feed(metric(), slice(0, 20))
    want = feed(copy.deepcopy(half), slice(20, None)).compute()
    assert feed(pickle.loads(pickle.dumps(half)), slice(20, None)).compute() == want
    assert want != half.compute()


def test_forward_gives_the_value_of_its_batch():
    draws, target, document, valid = data()
    one = metric()
    first = one(draws[:, :20], target[:20], document=document[:20], valid=valid[:20])
    assert first == feed(metric(), slice(0, 20)).compute()
    one(draws[:, 20:], target[20:], document=document[20:], valid=valid[20:])
    whole = feed(metric(), slice(None)).compute()
    assert as_numbers(one.compute()) == pytest.approx(as_numbers(whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": 1}, "documents must be at least 2; got 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1; got 0"),
        ({"highest_order": 0}, "highest_order must be at least 1; got 0"),
        ({"resamples": 1}, "resamples must be at least 2; got 1"),
    ],
)
def test_bad_sizes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        BrierLM(**{"documents": 5, "chunk_size": 2, **change})


def test_bad_updates_are_named():
    draws, target, document, valid = data()
    with pytest.raises(ValueError, match="at least 6 tokens, for chunks of 2 and Brier-6; got 5"):
        metric(highest_order=6).update(draws, target, document=document, valid=valid)
    for shift, told in ((1, "1 to 5"), (-1, "-1 to 3")):
        with pytest.raises(ValueError, match=rf"document must be in \[0, 5\); got {told}"):
            metric().update(draws, target, document=document + shift, valid=valid)
    with pytest.raises(ValueError, match="draws must hold at least 2 samples"):
        metric().update(draws[:1], target, document=document, valid=valid)


def test_is_imported_when_it_is_first_asked_for():
    program = """
import sys
import calmkit.metrics
assert "torchmetrics" not in sys.modules
assert calmkit.metrics.BrierLM.__name__ == "BrierLM" and "torchmetrics" in sys.modules
try:
    calmkit.metrics.Brierlm
except AttributeError as error:
    assert "no attribute 'Brierlm'" in str(error)
else:
    raise AssertionError("a name that is not there")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_processes_equal_one(tmp_path):
    """Each counts a share of the points, of documents that both have: sums are added."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), str(rank)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    whole = feed(metric(), slice(None)).compute()
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pkl").read_bytes())
        assert as_numbers(found) == pytest.approx(as_numbers(whole), rel=1e-12)


if __name__ == "__main__":
    from pathlib import Path

    torch.set_default_dtype(torch.float64)  # as in all tests: the same random numbers
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    share = feed(metric(), slice(0, 13) if rank == 0 else slice(13, None))
    (folder / f"{rank}.pkl").write_bytes(pickle.dumps(share.compute()))
    # A process that leaves while the other still talks to it makes that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
