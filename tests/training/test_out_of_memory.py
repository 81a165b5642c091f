"""Failed allocations, told from other errors."""

import pickle

import pytest
import torch
from training_problems import Toy, run

from calmkit.training import OutOfMemory
from calmkit.training.out_of_memory import out_of_memory_in


def test_the_cpu_allocators_own_error():
    with pytest.raises(OutOfMemory, match="training of model; an allocation failed") as caught:
        with out_of_memory_in("model"):
            torch.empty(2**60, dtype=torch.uint8)
    assert caught.value.stage == "model"
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_errors_by_their_class(error):
    with pytest.raises(OutOfMemory), out_of_memory_in("model"):
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="sizes differ") as caught, out_of_memory_in("model"):
        raise RuntimeError("sizes differ")
    assert type(caught.value) is RuntimeError


def test_it_can_be_sent_by_a_worker():
    sent = pickle.loads(pickle.dumps(OutOfMemory("model", during="validation")))
    assert (type(sent), sent.stage, sent.during) == (OutOfMemory, "model", "validation")


@pytest.mark.parametrize("during", ["training", "validation"])
def test_a_failure_in_a_validation_is_told_from_one_in_a_step(during):
    """`fit` does not know the stage; its caller does."""

    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    failing = {"validate" if during == "validation" else "aim": fail}
    with pytest.raises(OutOfMemory) as caught, out_of_memory_in("autoencoder"):
        run(Toy(), **failing)
    assert (caught.value.stage, caught.value.during) == ("autoencoder", during)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert f"the {during} of autoencoder" in str(caught.value)
    assert ("micro_batch" in str(caught.value)) == (during == "training")
