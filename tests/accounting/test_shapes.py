"""What is told of a result without computing it, against results that are computed."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.accounting import shapes
from calmkit.accounting.shapes import map_tensors, result_of

aten = torch.ops.aten


def plain(x):
    return x


def transposed(x):
    """The same with the strides of the first and the last dimension in the other order."""
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.ndim else x


def sliced(x):
    """The same with gaps between the elements of its last dimension."""
    return torch.stack((x, x), dim=-1)[..., 0]


def outline(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def layout(x):
    """All that can be known without numbers; strides only where they lead to an element."""
    strides = [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
    return tuple(x.shape), strides if x.numel() else [], x.dtype


def assert_told(func, *args, **kwargs):
    told = result_of(func, map_tensors(outline, args), map_tensors(outline, kwargs))
    real = func(*args, **kwargs)
    pairs = [(told, real)] if isinstance(real, torch.Tensor) else zip(told, real, strict=True)
    for ours, theirs in pairs:
        if theirs is None:
            assert ours is None
        else:
            assert ours.is_meta and layout(ours) == layout(theirs)


def floats(*sizes):
    return torch.linspace(-1, 1, torch.Size(sizes).numel(), dtype=torch.float32).view(sizes)


def longs(*sizes):
    return torch.arange(torch.Size(sizes).numel()).view(sizes) % 2


normalized = (floats(2, 5, 7), [5, 7], floats(5, 7), floats(5, 7), 1e-5)
heads, groups = floats(2, 6, 5, 4), floats(2, 3, 5, 4)

# Arguments of each operation that is not elementwise.
CALLS = {
    aten.mm.default: [(floats(3, 4), floats(4, 5)), (floats(1, 4), floats(4, 1))],
    aten.bmm.default: [(floats(2, 3, 4), floats(2, 4, 5))],
    aten.addmm.default: [(floats(5), floats(3, 4), floats(4, 5))],
    aten.baddbmm.default: [(floats(2, 3, 5), floats(2, 3, 4), floats(2, 4, 5))],
    aten.sum.dim_IntList: [
        (floats(2, 3, 4), [1]), (floats(2, 3, 4), [-1, 0], True), (longs(2, 3), [0]),
        (floats(2, 3), None),
    ],
    aten.mean.dim: [(floats(2, 3, 4), [1]), (floats(2, 3, 4), [0, 2], True)],
    aten.amax.default: [(floats(2, 3, 4), [1, 2], True), (floats(2, 3),)],
    aten.amin.default: [(floats(2, 3, 4), [1, 2], True), (floats(2, 3),)],
    aten.aminmax.default: [(floats(2, 3),)],
    aten.max.dim: [(floats(2, 3, 4), 1), (floats(2, 3, 4), -1, True)],
    aten.min.dim: [(floats(2, 3, 4), 1)],
    aten.all.default: [(longs(2, 3),)],
    aten.all.dim: [(longs(2, 3), 1, True)],
    aten.any.default: [(floats(2, 3),)],
    aten.any.dim: [(longs(2, 3), 0)],
    aten._softmax.default: [(floats(2, 3, 4), 1, False)],
    aten._log_softmax.default: [(floats(2, 3, 4), -1, False)],
    aten._softmax_backward_data.default: [(floats(2, 3), floats(2, 3), 1, torch.float32)],
    aten._log_softmax_backward_data.default: [(floats(2, 3), floats(2, 3), 1, torch.float32)],
    aten.cumsum.default: [(floats(2, 3, 4), 1), (longs(2, 3), 0)],
    aten.roll.default: [(floats(2, 3, 4), [7], [1])],
    aten.flip.default: [(floats(2, 3, 4), [0, 1])],
    aten.ones_like.default: [(floats(2, 3, 4),)],
    aten.zeros_like.default: [(floats(2, 3, 4),)],
    aten.embedding.default: [(floats(7, 5), longs(2, 3)), (floats(7, 5), longs(2, 3), 6)],
    aten.index_put.default: [(floats(7, 5, 3), [longs(4)], floats(4, 5, 3), True)],
    aten._cdist_forward.default: [(floats(2, 3, 7), floats(2, 5, 7), 2.0, None)],
    aten._cdist_backward.default: [
        (floats(2, 3, 5), floats(2, 3, 7), floats(2, 5, 7), 2.0, floats(2, 3, 5))
    ],
    aten.native_layer_norm.default: [normalized, (floats(2, 5, 7), [7], None, None, 1e-5)],
    aten.native_layer_norm_backward.default: [
        (floats(2, 5, 7), floats(2, 5, 7), [5, 7], floats(2, 1, 1), floats(2, 1, 1),
         floats(5, 7), floats(5, 7), [True, True, True]),
        (floats(2, 5, 7), floats(2, 5, 7), [7], floats(2, 5, 1), floats(2, 5, 1),
         None, None, [True, False, False]),
    ],
    aten.nll_loss_forward.default: [
        (floats(5, 3), longs(5), None, reduction, -100) for reduction in (0, 1)
    ],
    aten.nll_loss_backward.default: [
        (floats(5), floats(5, 3), longs(5), None, 0, -100, torch.tensor(0.0))
    ],
    aten.arange.default: [(5,), (2.5,)],
    aten.arange.start: [(3, 9), (0.5, 3.5)],
    aten.arange.start_step: [(3, 10, 2), (0, 1, 0.3), (9, 3, -2)],
    aten.randn.default: [([2, 3],), ([],)],
    aten.slice_backward.default: [(floats(2, 3), [2, 7], 1, 2, 5, 1)],
    aten.select_backward.default: [(floats(2, 3), [2, 5, 3], 1, 4)],
    aten.triu_indices.default: [(3, 3, 1), (4, 2), (2, 5, -1)],
    aten.cat.default: [
        ([floats(2, 3), floats(2, 5)], -1), ([floats(2, 3, 4)] * 3,),
        ([heads, heads], 2), ([floats(2, 3), longs(2, 3)],),
    ],
    aten.index.Tensor: [
        (floats(7, 5, 3), [longs(4)]), (floats(7, 5, 3), [None, longs(2, 4)]),
        (floats(7, 5, 3), [longs(4), None, longs(4)]),
    ],
    aten._scaled_dot_product_flash_attention_for_cpu.default: [
        (heads, heads, heads, 0.0, True), (heads, groups, groups),
    ],
}  # fmt: skip


def test_every_operation_has_an_example():
    assert set(CALLS) == shapes._TRIED | set(shapes._MADE)


@pytest.mark.parametrize("arrange", [plain, transposed, sliced], ids=lambda f: f.__name__)
@pytest.mark.parametrize("func", list(CALLS), ids=str)
def test_operations(func, arrange):
    for args in CALLS[func]:
        assert_told(func, *map_tensors(arrange, args))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("func", list(CALLS), ids=str)
def test_number_formats(func, dtype):
    def cast(x):
        return x.to(dtype) if x.is_floating_point() else x

    if dtype == torch.bfloat16 and "cdist" in str(func):
        pytest.skip("the CPU has no such kernel")
    for args in CALLS[func]:
        given = [dtype if one is torch.float32 else one for one in map_tensors(cast, args)]
        assert_told(func, *given)


DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.long, torch.bool])


@st.composite
def operands(draw):
    """Two tensors that broadcast, with dimensions in any order, expanded or with gaps."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 3, 8]), max_size=4))
    found = []
    for _ in range(2):
        whole = sizes[draw(st.integers(0, len(sizes))) :]
        own = [draw(st.sampled_from([size, size, 1])) for size in whole]
        order = draw(st.permutations(range(len(own))))
        x = torch.ones([own[place] for place in order], dtype=draw(DTYPES))
        x = draw(st.sampled_from([plain, sliced]))(x)
        x = x.permute([order.index(place) for place in range(len(own))])
        found.append(x.expand(whole) if draw(st.booleans()) else x)
    return found


@given(operands())
def test_elementwise_operations(pair):
    x, y = pair
    assert_told(aten.mul.Tensor, x, y)
    assert_told(aten.eq.Tensor, x, y)
    assert_told(aten.where.self, x > 0, x, y)
    assert_told(aten.mul.Tensor, x, 2)
    assert_told(aten.div.Tensor, x, 2.0)
    assert_told(aten.exp.default, y)
    assert_told(aten.clone.default, y, memory_format=torch.contiguous_format)


def test_what_is_written_into_is_returned():
    x, y = (outline(floats(*sizes)) for sizes in ((2, 3), (3,)))
    assert result_of(aten.add_.Tensor, (x, y), {}) is x
    with pytest.raises(RuntimeError, match="output with shape"):
        result_of(aten.add_.Tensor, (y, x), {})


@pytest.mark.parametrize(
    ("func", "sizes", "message"),
    [
        (aten.mm.default, [(2, 3), (4, 5)], "must have same reduction dim, .*3.*4"),
        (aten.add.Tensor, [(2, 300), (2, 400)], "length 400"),
        (aten.cat.default, [[(2, 3), (3, 3)], 1], "Sizes of tensors must match"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_pytorch(func, sizes, message):
    def made(given):
        if isinstance(given, tuple):
            return outline(floats(*given))
        return [made(one) for one in given] if isinstance(given, list) else given

    with pytest.raises(RuntimeError, match=message):
        result_of(func, made(sizes), {})


def test_how_many_are_true_is_not_guessed():
    """Three sizes of 3, so that a guess would be one of the sizes."""
    where = torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises((NotImplementedError, RuntimeError)):
        result_of(aten.index.Tensor, (outline(floats(3, 3)), [outline(where)]), {})


@pytest.mark.parametrize("name", ["calm-xl", "transformer-s"])
def test_the_compiler_stays_out(name):
    """What an account needs of PyTorch comes without an import that takes longer than it does."""
    program = f"""
import sys
from calmkit.comparison.accounts import account_preset
account_preset("{name}")
print(sorted({{"torch._dynamo", "torch._inductor", "sympy"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
