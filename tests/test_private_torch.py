"""What calmkit asks of PyTorch's private functions: a release that changes them fails here."""

import pytest
import torch

from calmkit.private_torch import (
    TorchDispatchMode,
    compiled_call,
    distance_gradient,
    has_values,
    in_transform,
    many_compilations,
    map_tensors,
    runs_while_tracing,
    set_compiled_call,
    shares_memory,
    storage_id,
    takes_device,
    without_memory_like,
)


def ask(question):
    """A function of a tensor that notes the answer on its way."""
    answers = []

    def function(x):
        answers.append(question(x))
        return x.sum()

    return function, answers


x = torch.ones(2, 3)
TRANSFORMS = {
    "none": (lambda f: f(x), True),
    "grad": (lambda f: torch.func.grad(f)(x), True),
    "grad of grad": (lambda f: torch.func.grad(lambda v: torch.func.grad(f)(v).sum())(x), True),
    "vmap": (lambda f: torch.vmap(f)(x), False),
    "vmap of grad": (lambda f: torch.vmap(torch.func.grad(f))(x), False),
    "grad of vmap": (lambda f: torch.func.grad(lambda v: torch.vmap(f)(v).sum())(x), False),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_values_cannot_be_read_under_vmap_at_any_depth(name):
    transform, readable = TRANSFORMS[name]
    function, answers = ask(has_values)
    transform(function)
    assert answers == [readable]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_seen(name):
    function, answers = ask(lambda _: in_transform())
    TRANSFORMS[name][0](function)
    assert answers == [name != "none"]
    assert not in_transform()


def test_gradient_of_distances():
    generator = torch.Generator().manual_seed(0)
    a, b, grad = (
        torch.randn(4, *shape, generator=generator) for shape in ((5, 3), (6, 3), (5, 6))
    )
    b[:, 0] = a[:, 0]  # a distance of zero counts as nothing
    differences = a[:, :, None] - b[:, None]
    distance = differences.norm(dim=-1)
    want = (grad / distance).nan_to_num(0.0, 0.0, 0.0)[..., None] * differences
    got = distance_gradient(grad, a, b, distance)
    torch.testing.assert_close(got, want.sum(dim=2))


def test_a_dispatch_mode_sees_every_operation():
    seen = []

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Noting():
        torch.ones(2).add(1.0)
    assert [str(func.overloadpacket) for func in seen] == ["aten.ones", "aten.add"]


def test_tensors_are_changed_wherever_they_are():
    tree = ((torch.ones(2), 3.0), {"a": [torch.zeros(3), "text"]})
    assert map_tensors(len, tree) == ((2, 3.0), {"a": [3, "text"]})


def test_operations_that_take_a_device():
    assert takes_device(torch.ops.aten.ones.default)
    assert not takes_device(torch.ops.aten.sum.dim_IntList)


def test_operations_whose_results_share_memory():
    for operation in (torch.ops.aten.t.default, torch.ops.aten.add_.Tensor):
        assert shares_memory(operation)
    for operation in (torch.ops.aten.mm.default, torch.ops.aten.add.Tensor):
        assert not shares_memory(operation)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_of_one_storage_have_one_id(device):
    first, second = torch.ones(2, 3, device=device), torch.ones(2, 3, device=device)
    assert storage_id(first) == storage_id(first[1:].T) == storage_id(first.detach())
    assert storage_id(first) != storage_id(second)


def test_a_stand_in_has_the_layout_of_its_tensor():
    class Own(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise AssertionError("nothing is computed")

    tensor = torch.ones(4, 6, dtype=torch.float16, device="meta").T[1:]
    got = without_memory_like(Own, tensor)
    assert type(got) is Own and got.device == torch.device("cpu")
    for layout in ("shape", "dtype"):
        assert getattr(got, layout) == getattr(tensor, layout)
    assert got.stride() == tensor.stride() and got.storage_offset() == tensor.storage_offset()


def test_what_runs_while_tracing_is_a_constant_of_the_graph():
    calls = []

    @runs_while_tracing
    def number():
        calls.append(1)  # would break the graph
        return len(set(map(str, "aabb")))

    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x * number(), fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    assert calls == [1]


def test_compiled_calls_are_taken_off_and_put_back():
    module = torch.nn.Linear(2, 3)
    assert compiled_call(module) is None
    module.compile(backend="eager")
    call = compiled_call(module)
    set_compiled_call(module, lambda x: "compiled")
    assert module(x[:, :2]) == "compiled"
    set_compiled_call(module, None)
    assert module(x[:, :2]).shape == (2, 3)
    set_compiled_call(module, call)
    assert compiled_call(module) is call is not None


def test_one_function_is_compiled_for_many_cases():
    def run(number):
        return x * number

    torch.compiler.reset()
    with many_compilations():
        for number in range(12):
            compiled = torch.compile(run, fullgraph=True, dynamic=False, backend="eager")
            assert torch.equal(compiled(number), x * number)
    torch.compiler.reset()
    with pytest.raises(Exception, match="fullgraph=True"):
        for number in range(12):
            torch.compile(run, fullgraph=True, dynamic=False, backend="eager")(number)
    torch.compiler.reset()
