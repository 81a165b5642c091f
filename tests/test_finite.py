"""What is not finite is refused: at once where reading is free, else at the end of a block."""

import threading

import pytest
import torch
from torch import Tensor

from calmkit import finite
from calmkit.finite import NonFiniteError, read_together, require_finite
from calmkit.typing import unchecked


@pytest.fixture
def far(monkeypatch):
    """As if no tensor could be read without waiting; notes each wait."""
    waits = []
    real = Tensor.tolist
    monkeypatch.setattr(finite, "_is_near", lambda tensor: False)
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: (waits.append(1), real(tensor))[1])
    return waits


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_each_value_that_is_not_finite_is_refused_by_name(wrong):
    with pytest.raises(NonFiniteError, match="states must be finite; 2 of 6 values are NaN or"):
        require_finite("states", torch.tensor([[1.0, wrong, 2.0], [3.0, wrong, 4.0]]))


def test_infinities_that_cancel_are_found():
    with pytest.raises(NonFiniteError, match="2 of 2"):
        require_finite("states", torch.tensor([torch.inf, -torch.inf]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_values_pass_also_where_their_sum_overflows(dtype):
    require_finite("states", torch.full((4, 4), torch.finfo(dtype).max, dtype=dtype))
    require_finite("states", torch.zeros(0, 3, dtype=dtype))
    require_finite("states", torch.ones(2, dtype=dtype, requires_grad=True))


def test_it_is_checked_where_shapes_are_not():
    with unchecked(), pytest.raises(NonFiniteError):
        require_finite("states", torch.tensor([torch.nan]))


def test_off_the_cpu_a_block_waits_once_and_names_the_first(far):
    with pytest.raises(NonFiniteError, match="second must be finite; 1 of 2"), read_together():
        require_finite("first", torch.zeros(3))
        require_finite("second", torch.tensor([torch.inf, 0.0]))
        require_finite("third", torch.tensor([torch.nan]))
        assert far == []
    assert far == [1]
    with read_together():
        require_finite("first", torch.zeros(3))
    with read_together():
        pass
    assert far == [1, 1]


def test_off_the_cpu_it_is_read_at_once_outside_of_a_block(far):
    with pytest.raises(NonFiniteError, match="first"):
        require_finite("first", torch.tensor([torch.nan]))
    require_finite("second", torch.zeros(1))
    assert far == [1, 1]


def test_an_error_of_the_block_itself_comes_through(far):
    with pytest.raises(KeyError), read_together():
        require_finite("first", torch.tensor([torch.nan]))
        raise KeyError
    with pytest.raises(NonFiniteError):
        require_finite("second", torch.tensor([torch.nan]))


def test_a_block_is_one_of_this_thread_alone(far):
    def other():
        try:
            require_finite("theirs", torch.tensor([torch.nan]))
        except NonFiniteError as error:
            found.append(str(error))

    found = []
    with read_together():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(found) == 1 and found[0].startswith("theirs")


def test_nothing_is_read_while_a_graph_is_traced_or_mapped():
    def twice(x):
        require_finite("x", x)
        return 2 * x

    compiled = torch.compile(twice, fullgraph=True, backend="eager")
    assert compiled(torch.tensor([torch.nan])).isnan().all()
    assert torch.func.vmap(twice)(torch.tensor([[torch.nan]])).isnan().all()
