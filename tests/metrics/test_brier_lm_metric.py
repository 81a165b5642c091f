"""BrierLM as a metric: batches, processes and orders give what one pass over all draws gives."""

import copy
import dataclasses
import pickle
import sys

import forking
import pytest
import torch

import calmkit.metrics
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


def one_document(points=6):
    """A batch from which BrierLM cannot be computed."""
    draws, target, _, _ = data()
    return {
        "draws": draws[:, :points], "target": target[:points],
        "document": torch.zeros(points, dtype=torch.long),
    }  # fmt: skip


@pytest.mark.parametrize("fails", ["compute", "update"])
def test_a_forward_that_raises_changes_nothing(fails):
    """Nor does it switch off what sums processes up, which would go unseen here."""
    one, same = (feed(metric(), slice(0, 20)) for _ in range(2))
    wrong = (
        one_document()
        if fails == "compute"
        else one_document() | {"document": -torch.ones(6).long()}
    )
    for _ in range(2):
        with pytest.raises(
            ValueError, match="at least 2 groups" if fails == "compute" else "document must be"
        ):
            one(**wrong)
    assert torch.equal(one.counts, same.counts) and one.counts.sum() > 0
    assert one._should_unsync and one._to_sync and not one._is_synced and not one._enable_grad
    assert one.update_count == same.update_count == 1
    draws, target, document, valid = data()
    rest = {"document": document[20:], "valid": valid[20:]}
    assert one(draws[:, 20:], target[20:], **rest) == same(draws[:, 20:], target[20:], **rest)
    assert one.compute() == same.compute()


def test_a_compute_that_raises_changes_nothing():
    one = metric()
    one.update(**one_document())
    for _ in range(2):
        with pytest.raises(ValueError, match="at least 2 groups"):
            one.compute()
    other = metric()
    other.update(**one_document())
    assert feed(one, slice(None)).compute() == feed(other, slice(None)).compute()


CASTS = {
    "to": lambda module: module.to(torch.bfloat16),
    "bfloat16": lambda module: module.bfloat16(),
    "half": lambda module: module.half(),
    "float": lambda module: module.float(),
    "set_dtype": lambda module: module.set_dtype(torch.float32),
    "inside of a model": lambda module: torch.nn.ModuleList([module]).to(torch.float16),
    "inside, by name": lambda module: torch.nn.ModuleList([module]).bfloat16(),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_sums_stay_in_float64(cast):
    """Also those of an empty metric, to which `reset` goes back."""
    one, same = (feed(metric(), slice(0, 20)) for _ in range(2))
    cast(one)
    assert one.hits.dtype == one.counts.dtype == torch.float64
    assert feed(one, slice(20, None)).compute() == feed(same, slice(20, None)).compute()
    one.reset()
    assert feed(one, slice(0, 20)).compute() == feed(metric(), slice(0, 20)).compute()
    assert one.to("meta").hits.is_meta


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
def test_tokens_of_any_dtype(dtype):
    draws, target, document, valid = data()
    one = metric()
    one.update(draws.to(dtype), target.to(dtype), document=document.to(dtype), valid=valid)
    assert one.compute() == feed(metric(), slice(None)).compute()


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


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Brierlm'"):
        calmkit.metrics.Brierlm  # noqa: B018


def test_two_processes_equal_one(tmp_path):
    """Each counts a share of the points, of documents that both have: sums are added."""
    outputs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    running = [
        forking.start(forking.run_script, __file__, tmp_path, rank, output=output)
        for rank, output in enumerate(outputs)
    ]
    codes = [forking.finished(process) for process in running]
    assert codes == [0, 0], [output.read_text() for output in outputs]
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
    share = metric()
    draws, target, document, valid = data()
    # One document in all: both refuse, and go on from where they were.
    chosen = (document == 0) & (torch.arange(len(document)) % 2 == rank)
    feed(share, chosen)
    for _ in range(2):
        for refused in (share.compute, lambda: share(**one_document())):
            try:
                refused()
            except ValueError as error:
                assert "at least 2 groups" in str(error), error
            else:
                raise AssertionError("one document has no standard error")
    mine = (torch.arange(len(document)) < 13) == (rank == 0)
    feed(share, (document != 0) & mine)
    (folder / f"{rank}.pkl").write_bytes(pickle.dumps(share.compute()))
    # A process that leaves while the other still talks to it makes that one abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
