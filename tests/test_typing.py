"""The checks themselves: alive, readable, gone under compile and where they are switched off."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from calmkit.nn import SwiGLU
from calmkit.typing import checks_are_on, typed, unchecked


@typed
def add(
    first: Float[Tensor, "*batch latent"], second: Float[Tensor, "*batch latent"]
) -> Float[Tensor, "*batch latent"]:
    """Add two tensors of one shape."""
    return first + second


@typed
def drop_an_axis(x: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
    return x.sum(dim=0)


@typed
@dataclass(frozen=True)
class Pair:
    first: Float[Tensor, "*batch latent"]
    second: Float[Tensor, "*batch latent"]

    def __post_init__(self) -> None:
        if self.first.shape[-1] > 5:
            raise ValueError("first must have at most 5 features.")


@typed
def scale(x: Float[Tensor, "*batch"], factor: float) -> Float[Tensor, "*batch"]:
    return x * factor


def test_right_shapes_pass():
    assert add(torch.ones(2, 3), second=torch.ones(2, 3)).sum() == 12
    assert add(torch.ones(3), torch.ones(3)).shape == (3,)


def test_broadcasting_batch_axis_is_refused():
    with pytest.raises(TypeCheckError):
        add(torch.ones(2, 3), torch.ones(1, 3))
    with pytest.raises(TypeCheckError):
        add(torch.ones(2, 3), torch.ones(3))


def test_message_names_the_argument_and_both_shapes():
    with pytest.raises(TypeCheckError) as caught:
        add(torch.ones(2, 3), torch.ones(4, 3))
    message = str(caught.value)
    assert "typechecking parameter 'second'" in message
    assert "f64[4,3]" in message
    assert "f64[2,3]" in message
    assert ".add" in message


def test_wrong_dtype_is_refused():
    with pytest.raises(TypeCheckError, match="parameter 'first'"):
        add(torch.ones(3, dtype=torch.long), torch.ones(3))


def test_wrong_result_is_refused():
    with pytest.raises(TypeCheckError, match="return value"):
        drop_an_axis(torch.ones(2, 3))


def test_dataclass_fields_are_checked_together():
    Pair(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(TypeCheckError, match="parameter 'second'"):
        Pair(torch.ones(2, 3), torch.ones(1, 3))


def test_a_dataclass_keeps_its_own_errors():
    with pytest.raises(ValueError, match="at most 5 features"):
        Pair(torch.ones(2, 6), torch.ones(2, 6))


def test_an_integer_is_a_float():
    torch.testing.assert_close(scale(torch.ones(2), 3), torch.full((2,), 3.0))


def test_metadata_is_kept():
    assert add.__name__ == "add"
    assert add.__doc__ == "Add two tensors of one shape."


def test_a_block_without_checks_ends_with_the_block():
    wrong = torch.ones(2, 3), torch.ones(1, 3)
    with unchecked():
        assert not checks_are_on()
        assert add(*wrong).shape == Pair(*wrong).first.shape == (2, 3)
        with unchecked(False):
            assert add(*wrong).shape == (2, 3)
        assert not checks_are_on()
    with pytest.raises(KeyError), unchecked():
        raise KeyError
    with unchecked(False), pytest.raises(TypeCheckError):
        add(*wrong)
    assert checks_are_on()
    with pytest.raises(TypeCheckError):
        add(*wrong)


def test_a_block_without_checks_is_one_of_this_thread_alone():
    seen = []
    with unchecked():
        thread = threading.Thread(target=lambda: seen.append(checks_are_on()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_nothing_is_left_under_compile():
    @typed
    def call(first: Float[Tensor, "*batch latent"]) -> Tensor:
        pair = Pair(first, first)
        return add(pair.first, pair.second)

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_environment_variable_switches_everything_off():
    program = """
import torch
from calmkit.distributions import DiagonalGaussian
from calmkit.nn import SwiGLU
DiagonalGaussian(torch.zeros(2, 3), torch.zeros(1, 3))
# The functions are the bare ones, not wrapped at all.
assert not hasattr(SwiGLU.forward, "__wrapped__")
"""
    environment = {**os.environ, "CALMKIT_TYPECHECK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # And they are wrapped here, where the variable is not set.
    assert hasattr(SwiGLU.forward, "__wrapped__")
