"""The command that compares kernels for packed documents, with sizes that take a moment."""

import pytest
import torch
from benchmark_runs import results, run_benchmark


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    sizes = "--rows 2 --length 64 --heads 2 --head-dim 8 --rounds 1 --repeats 2 --compiler eager"
    return run_benchmark(tmp_path_factory.mktemp("benchmark"), "packed_attention", sizes)


def test_every_kernel_is_measured_or_left_out_with_a_reason(written):
    found = results(written)
    both = {"forward", "forward and backward"}
    assert {row["kernel"]: set(row["milliseconds"]) for row in found["kernels"]} == {
        "dense mask": both, "one document": both, "calmkit, compiled": both,
        "calmkit, by document": both, "flex": {"forward"},
    }  # fmt: skip
    reasons = found["left out"]
    assert set(reasons) == {"xformers", "flex, backward", "varlen"}
    assert "the tensors are on cpu" in reasons["xformers"]
    assert "does not support backward on CPU" in reasons["flex, backward"]
    assert all(f"left out: {name}" in written[0] for name in reasons)


def test_a_kernel_that_computes_something_else_is_refused(load, monkeypatch):
    """As one does that lets a query see other documents."""
    module = load("packed_attention")
    monkeypatch.setattr(module, "flex", lambda documents, compiler: module.one_document)
    with pytest.raises(RuntimeError, match="flex must agree with the dense mask; it is off by"):
        module.main(["--rows", "1", "--length", "32", "--heads", "1", "--head-dim", "4",
                     "--compiler", "eager", "--rounds", "1", "--repeats", "1"])  # fmt: skip


def test_rows_are_packed_differently(load):
    mask = load("packed_attention").packed_mask(3, 64)
    assert [sum(row) for row in mask.lengths] == [64] * 3
    assert len(set(mask.lengths)) == 3 and len({tuple(sorted(row)) for row in mask.lengths}) == 1
    assert torch.equal(mask.documents.max(dim=1).values, torch.tensor([7, 7, 7]))
