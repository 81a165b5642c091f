"""Stored forms of results: equal to PyTorch's own, and only where they describe everything."""

import pytest
import torch

from calmkit.accounting import on_meta
from calmkit.accounting.on_meta import run_on_meta
from calmkit.private_torch import storage_id

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(on_meta, "_results", {})


def meta(*shape, dtype=torch.float64):
    return torch.empty(shape, dtype=dtype, device="meta")


def forms(result):
    """Shape, strides and dtype of each tensor, and all other values."""
    if isinstance(result, torch.Tensor):
        return result.shape, result.stride(), result.dtype, result.untyped_storage().nbytes()
    return tuple(map(forms, result)) if isinstance(result, tuple | list) else result


CALLS = [
    (aten.mm.default, (meta(2, 3), meta(3, 5)), {}),
    (aten.mm.default, (meta(2, 3), meta(5, 3).t()), {}),
    (aten.mm.default, (meta(2, 3, dtype=torch.float32), meta(3, 5, dtype=torch.float32)), {}),
    (aten.mul.Tensor, (meta(3, 2).t(), meta(3, 2).t()), {}),
    (aten.mul.Tensor, (meta(2, 3), meta(2, 3)), {}),
    (aten.mul.Tensor, (meta(2, 3), 2), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.long), 2), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.long), 2.0), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.bool), True), {}),
    (aten.mul.Tensor, (meta(2, 3, dtype=torch.bool), 1), {}),
    (aten.cat.default, ([meta(2, 3), meta(4, 3)],), {}),
    (aten.cat.default, ([meta(2, 3), meta(2, 3)], 1), {}),
    (aten.sum.dim_IntList, (meta(2, 3), [0]), {}),
    (aten.sum.dim_IntList, (meta(2, 3), [0], True), {}),
    (aten.zeros.default, ([2, 3],), {"device": "meta"}),
    (aten.zeros.default, ([2, 3],), {"device": "meta", "dtype": torch.long}),
    (aten.native_layer_norm.default, (meta(2, 3), [3], meta(3), None, 1e-5), {}),
    (aten.aminmax.default, (meta(4, 3),), {"dim": 1}),
]


def test_forms_are_those_of_pytorch():
    """All calls are made in one process, one after the other, and then again."""
    own = [forms(func(*args, **kwargs)) for func, args, kwargs in CALLS]
    for _ in range(2):
        assert [forms(run_on_meta(*call)) for call in CALLS] == own
    assert len(on_meta._results) == len(CALLS)


def test_each_result_has_a_storage_of_its_own():
    call = aten.mul.Tensor, (meta(2, 3), 2), {}
    results = [run_on_meta(*call) for _ in range(3)]
    assert len({storage_id(result) for result in results}) == 3


def test_the_default_dtype_counts():
    call = aten.zeros.default, ([2],), {"device": "meta"}
    found = []
    for dtype in (torch.float64, torch.float32) * 2:
        torch.set_default_dtype(dtype)
        try:
            found.append(run_on_meta(*call).dtype)
        finally:
            torch.set_default_dtype(torch.float64)
    assert found == [torch.float64, torch.float32] * 2


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.t.default, ()),
        (aten.add_.Tensor, (1,)),
        (aten.detach.default, ()),
        (aten._unsafe_view.default, ([6],)),  # its schema does not say that it is a view
    ],
)
def test_what_shares_memory_shares_it_each_time(func, args):
    for _ in range(3):
        given = meta(2, 3)
        assert storage_id(run_on_meta(func, (given, *args), {})) == storage_id(given)


def test_errors_are_raised_each_time():
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run_on_meta(aten.mm.default, (meta(2, 3), meta(2, 3)), {})


def test_other_arguments_are_not_described():
    """A record of a profiler must be closed each time, for example."""
    generator = torch.Generator("cpu")
    for _ in range(2):
        run_on_meta(aten.rand.generator, ([2],), {"generator": generator, "device": "meta"})
    assert not on_meta._results


def test_few_forms_are_kept(monkeypatch):
    monkeypatch.setattr(on_meta, "_MOST_FORMS", 3)
    for size in range(10):
        assert run_on_meta(aten.mul.Tensor, (meta(size), 2), {}).shape == (size,)
        assert len(on_meta._results) <= 3
