"""The checks themselves: alive, readable, gone under compile and where they are switched off."""

import ast
import os
import random
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

import calmkit
from calmkit.chunking import chunk_pair, chunk_prompts
from calmkit.nn import SwiGLU
from calmkit.sampling import Draw, PlainSampler, SampledChunks, Sampler
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


def test_no_other_error_stands_above_it():
    with pytest.raises(TypeCheckError) as caught:
        add(torch.zeros(2, 4), torch.zeros(4))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


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


@typed
def read(
    rows: Sequence[Sequence[int]],
    named: Mapping[str, list[float]] | None = None,
    pair: tuple[int, list[int]] = (1, [2]),
    parts: tuple[Float[Tensor, "*batch latent"], ...] = (),
) -> list[Int[Tensor, " length"]]:
    """Containers of each kind, one in another."""
    return [torch.tensor(row, dtype=torch.long) for row in rows]


MANY = [1] * 100


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"rows": [MANY, [*MANY, 1.7, *MANY]]}, "rows"),
        ({"rows": [MANY, MANY, "text", MANY]}, "rows"),
        ({"rows": [], "named": {"a": [1, 2.0], "b": [*MANY, "x"]}}, "named"),
        ({"rows": [], "named": {"a": [], 3: []}}, "named"),
        ({"rows": [], "pair": (1, [*MANY, None])}, "pair"),
        ({"rows": [], "parts": (*[torch.ones(2, 3)] * 50, torch.ones(2, 4))}, "parts"),
    ],
)
def test_every_item_is_looked_at_and_nothing_is_drawn(arguments, name):
    before = random.getstate()
    with pytest.raises(TypeCheckError, match=f"parameter '{name}'(.|\n)*every item of"):
        read(**arguments)
    assert random.getstate() == before


def test_right_containers_pass_and_nothing_is_drawn():
    before = random.getstate()
    got = read([[1, 2], (3, 4)], {"a": [1, 2.5]}, (1, [2, 3]), (torch.ones(2, 3),) * 3)
    assert [x.tolist() for x in got] == [[1, 2], [3, 4]]
    chunk_prompts([[1, 2, 3], [4]], 2, fill_id=0)
    chunk_pair([1], [2], 2, fill_id=0, end_id=None)
    assert random.getstate() == before


def test_wrong_arguments_name_the_function():
    @typed
    def scale(x: Float[Tensor, " length"], factor: float) -> Float[Tensor, " length"]:
        return x + None if factor == 0 else x * factor

    with pytest.raises(TypeError, match=r"scale\(\): missing a required argument: 'factor'"):
        scale(torch.ones(2))
    with pytest.raises(TypeError, match=r"scale\(\): got an unexpected keyword argument 'by'"):
        scale(torch.ones(2), 2.0, by=3)
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        scale(torch.ones(2), 0.0)
    assert "scale()" not in str(caught.value)


def test_wrong_items_of_a_result_are_refused():
    @typed
    def wrong() -> list[Float[Tensor, " length"]]:
        return [torch.ones(2)] * 50 + [torch.ones(3)]

    with pytest.raises(TypeCheckError, match="return value"):
        wrong()


def test_protocols_can_be_annotated_with():
    @typed
    def choose(sampler: Sampler, draw: Draw) -> SampledChunks:
        return sampler(draw)

    assert choose(PlainSampler(), lambda n: torch.ones(n, 1, 2, dtype=torch.long)).draws == 1
    with pytest.raises(TypeCheckError, match="parameter 'sampler'"):
        choose("plain", lambda n: None)


def test_every_annotation_can_be_checked():
    """By any checker that decorates function by function, which `Self` does not allow."""
    found = []
    for path in sorted(Path(calmkit.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id == "Self"), path
            if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
                found.append(node.name)
                assert "runtime_checkable" in map(ast.unparse, node.decorator_list), node.name
    assert len(found) >= 10


def test_a_project_may_check_calmkit_with_a_checker_of_its_own(tmp_path):
    """As `pytest --jaxtyping-packages` has it: the package is decorated while it is imported."""
    (tmp_path / "project.py").write_text(
        """
import torch
from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding, rank
from calmkit.sampling import BatchTemperature, Draw, ExactTemperature, Sampler

def write(model: CALM, sampler: Sampler | None = None) -> list[int]:
    return model.generate([[1, 2]], max_new_tokens=4, sampler=sampler)[0].tokens

model = CALM(
    autoencoder=MLPAutoencoder(2, 7, 4, width=8),
    input_encoder=ChunkEmbedding(7, 2, 8),
    backbone=TransformerBackbone(8, depth=1, heads=2),
    head=EnergyHead(8, 4, width=8, depth=1, noise_size=3, num_samples=2),
)
for sampler in (None, BatchTemperature(0.5, 40), ExactTemperature(0.9)):
    assert len(write(model, sampler)) == 4
assert len(rank(model, [1], [[2, 3]], num_samples=16)) == 1
assert list(model.stream([1], max_new_tokens=1))
"""
    )
    program = """
import jaxtyping
with jaxtyping.install_import_hook(["calmkit", "project"], "beartype.beartype"):
    import project
"""
    paths = os.pathsep.join(map(str, (tmp_path, Path(calmkit.__file__).parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
