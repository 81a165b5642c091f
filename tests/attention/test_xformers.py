"""The xformers adapter without a GPU: its layout, and what it refuses.

xformers' reference implementation stands in for the kernel. What the kernels themselves do is
tested on a GPU.
"""

import importlib
import importlib.util
import warnings

import pytest
import torch

from calmkit.attention import AttentionMask, attention
from calmkit.attention import xformers as adapter

pytest.importorskip("xformers", reason="xformers has no build for this platform")

GPU = torch.device("cuda", 0)


@pytest.fixture
def with_kernel(monkeypatch):
    """Puts a function in the place of xformers' own."""
    ops = importlib.import_module("xformers.ops")
    return lambda kernel: monkeypatch.setattr(ops, "memory_efficient_attention", kernel)


def reference_kernel(q, k, v, attn_bias=None, p=0.0, scale=None):
    """xformers' definition of its function, on tensors of four or five axes."""
    from xformers.attn_bias_utils import ref_attention_bmhk

    assert p == 0.0
    assert len({x.dtype for x in (q, k, v)}) == 1
    rows = 16 // q.element_size()
    assert q.shape[-1] % rows == 0, "the kernels read rows of 16 bytes"
    flat = [x.flatten(2, -2) for x in (q, k, v)]
    return ref_attention_bmhk(*flat, attn_bias, scale=scale).view_as(q)


MASKS = {
    "full": (AttentionMask.full(), 3, 5),
    "causal": (AttentionMask.causal(), 3, 5),
    "window": (AttentionMask.causal(window=2), 5, 5),
    "packed": (AttentionMask.packed([(2, 3), (1, 4)]), 5, 5),
    "packed, window": (AttentionMask.packed([(2, 3), (1, 4)], window=2), 5, 5),
    "cached": (AttentionMask.cached(torch.tensor([3, 6])), 2, 7),
    "cached, window": (AttentionMask.cached(torch.tensor([3, 6]), window=2), 2, 7),
}


@pytest.mark.parametrize("head_dim", [3, 8])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_the_adapter_computes_attention(name, grad, heads, kv_heads, head_dim, with_kernel):
    """Layout, padding to 16 bytes, groups of heads and the scale of the unpadded features."""
    with_kernel(reference_kernel)
    mask, q_len, kv_len = MASKS[name]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, length, count, head_dim, generator=generator, dtype=torch.float32)
        for length, count in ((q_len, heads), (kv_len, kv_heads), (kv_len, kv_heads))
    )
    leaves = [x.requires_grad_(grad) for x in (q, k, v)]
    got = adapter.xformers_attention(*leaves, mask, scale=None, dropout=0.0)
    want = attention(*leaves, mask, backend="reference")
    torch.testing.assert_close(got, want)
    if grad:
        weights = torch.randn(got.shape, generator=generator, dtype=torch.float32)
        torch.testing.assert_close(
            torch.autograd.grad((got * weights).sum(), leaves),
            torch.autograd.grad((want * weights).sum(), leaves),
            rtol=1e-4,
            atol=1e-5,  # sums of float32 errors
        )
    scaled = adapter.xformers_attention(*leaves, mask, scale=0.3, dropout=0.0)
    torch.testing.assert_close(scaled, attention(*leaves, mask, scale=0.3, backend="reference"))


def test_groups_are_a_fifth_axis_only_without_a_backward(with_kernel):
    """The kernels have no backward for five axes; without one, keys are not copied."""
    seen = []

    def kernel(q, k, v, **_):
        seen.append((q.ndim, k.stride(-2)))
        return q

    with_kernel(kernel)
    q, k = torch.zeros(1, 2, 4, 4, dtype=torch.float32), torch.zeros(1, 2, 2, 4).float()
    mask = AttentionMask.causal()
    adapter.xformers_attention(q, k, k, mask, scale=None, dropout=0.0)
    adapter.xformers_attention(q.requires_grad_(), k, k, mask, scale=None, dropout=0.0)
    assert seen[0] == (5, 0)
    assert seen[1][0] == 4


def test_autocast_is_heeded(with_kernel):
    def kernel(q, k, v, **_):
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        assert q.shape[-1] == 8
        return q

    with_kernel(kernel)
    q = torch.zeros(1, 2, 1, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        adapter.xformers_attention(q, q, q, AttentionMask.causal(), scale=None, dropout=0.0)


def test_dropout_is_handed_on(with_kernel):
    seen = {}
    q = torch.zeros(1, 2, 1, 4, dtype=torch.float32)
    with_kernel(lambda q, k, v, **arguments: seen.update(arguments) or q)
    adapter.xformers_attention(q, q, q, AttentionMask.causal(), scale=None, dropout=0.25)
    assert seen["p"] == 0.25


def test_compiles_to_one_graph(with_kernel):
    """The mask object is a constant of the graph."""

    def kernel(q, k, v, attn_bias, **_):
        return q * (2 if type(attn_bias).__name__.startswith("LowerTriangular") else 3)

    def compute(q):
        mask = AttentionMask.causal()
        return adapter.xformers_attention(q, q, q, mask, scale=None, dropout=0.0)

    with_kernel(kernel)
    q = torch.ones(1, 2, 1, 4, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(compute, fullgraph=True, backend="eager")(q), 2 * q)


class OnGPU:
    """What `xformers_refusal` reads of a tensor, said to be on a GPU."""

    def __init__(self, dtype=torch.bfloat16, *, length=5, head_dim=64, requires_grad=False):
        self.device, self.dtype, self.requires_grad = GPU, dtype, requires_grad
        self.shape = (2, length, 4, head_dim)


PACKED, CACHED = MASKS["packed"][0], MASKS["cached"][0]


@pytest.mark.parametrize(
    ("arguments", "mask", "dropout", "match"),
    [
        ({"dtype": torch.float64}, MASKS["causal"][0], 0.0, "float64 is not supported"),
        ({"head_dim": 264}, MASKS["causal"][0], 0.0, "at most 256 in torch.bfloat16; got 264"),
        ({"length": 3}, PACKED, 0.0, "as many queries as keys"),
        (
            {"dtype": torch.float32},
            MASKS["cached, window"][0],
            0.0,
            "float32 with a window does not support a padded cache",
        ),
        ({}, CACHED, 0.1, "a padded cache does not support dropout"),
        ({"requires_grad": True}, CACHED, 0.0, "a padded cache does not support a backward"),
        (
            {"requires_grad": True, "dtype": torch.float32},
            MASKS["window"][0],
            0.0,
            "float32 with a window does not support a backward",
        ),
        (
            {"requires_grad": True, "dtype": torch.float32},
            MASKS["packed, window"][0],
            0.0,
            "float32 with a window does not support a backward",
        ),
    ],
)
def test_what_the_kernels_do_not_offer_is_refused(monkeypatch, arguments, mask, dropout, match):
    monkeypatch.setattr(adapter, "_probe", lambda device: None)
    reason = adapter.xformers_refusal(OnGPU(**arguments), OnGPU(), OnGPU(), mask, dropout=dropout)
    assert match in reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", MASKS)
def test_what_they_offer_is_not(monkeypatch, name, dtype):
    monkeypatch.setattr(adapter, "_probe", lambda device: None)
    for grad in [False] if name.startswith("cached") else [False, True]:
        q = OnGPU(dtype, requires_grad=grad)
        lacking = grad or name.startswith("cached")
        refused = lacking and "window" in name and dtype == torch.float32
        reason = adapter.xformers_refusal(q, q, q, MASKS[name][0], dropout=0.0)
        assert (reason is not None) == refused


def test_packed_bfloat16_training_is_refused_where_results_must_repeat(monkeypatch):
    monkeypatch.setattr(adapter, "_probe", lambda device: None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    for dtype, grad, refused in [
        (torch.bfloat16, True, True),
        (torch.float16, True, True),
        (torch.bfloat16, False, False),
        (torch.float32, True, False),
    ]:
        q = OnGPU(dtype, requires_grad=grad)
        reason = adapter.xformers_refusal(q, q, q, PACKED, dropout=0.0)
        assert (reason is not None) == refused
    assert adapter.xformers_refusal(q, q, q, MASKS["causal"][0], dropout=0.0) is None


@pytest.mark.parametrize(
    ("mask", "dtype", "grad", "match"),
    [
        (PACKED, torch.bfloat16, False, "lengths of documents and caches would be constants"),
        (CACHED, torch.bfloat16, False, "lengths of documents and caches would be constants"),
        (MASKS["causal"][0], torch.float32, True, "float32 with a backward pass does not compile"),
        (MASKS["causal"][0], torch.bfloat16, True, None),
    ],
)
def test_what_does_not_compile_is_refused_under_compile(monkeypatch, mask, dtype, grad, match):
    monkeypatch.setattr(adapter, "_probe", lambda device: None)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    q = OnGPU(dtype, requires_grad=grad)
    reason = adapter.xformers_refusal(q, q, q, mask, dropout=0.0)
    assert reason is None if match is None else match in reason


@pytest.fixture
def fresh_probe(monkeypatch):
    """A probe that has not run, on a machine that says it has a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    adapter._probe.cache_clear()
    yield
    adapter._probe.cache_clear()


def test_where_it_is_not_installed(monkeypatch, fresh_probe):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert adapter.xformers_missing(GPU) == (
        "xformers is not installed (pip install 'calmkit[xformers]')"
    )


def test_where_torch_sees_no_gpu(monkeypatch, fresh_probe):
    """A CPU build of torch would raise an `AssertionError` at the first tensor."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert adapter.xformers_missing(GPU) == "torch sees no CUDA device"


@pytest.mark.parametrize(
    "error",
    [
        ImportError,
        OSError,
        RuntimeError,
        AttributeError,
        NotImplementedError,
        SyntaxError,
        LookupError,
    ],
)
def test_where_a_call_fails_the_reason_is_kept(monkeypatch, fresh_probe, error):
    """The library's own first cause where it is known, else the error of the call."""
    from xformers import _cpp_lib

    def broken(*_, **__):
        raise error("first line\nsecond line")

    monkeypatch.setattr(adapter.torch, "zeros", broken)
    monkeypatch.setattr(_cpp_lib, "_cpp_library_load_exception", None)
    assert adapter.xformers_missing(GPU) == (
        f"xformers does not work here: {error.__name__}: first line"
    )
    adapter._probe.cache_clear()
    outer = RuntimeError("xformers cannot load its extensions")
    outer.__cause__ = OSError("libcudart.so.12: cannot open shared object file")
    monkeypatch.setattr(_cpp_lib, "_cpp_library_load_exception", outer)
    assert adapter.xformers_missing(GPU) == (
        "xformers does not work here: OSError: libcudart.so.12: cannot open shared object file"
    )


def test_a_warning_is_no_reason(monkeypatch, fresh_probe):
    """Also where warnings are errors, as in these tests."""
    import xformers.ops

    def deprecated(q, k, v):
        warnings.warn("use something newer", DeprecationWarning, stacklevel=2)

    zeros = torch.zeros(1, 8, 1, 8)
    monkeypatch.setattr(adapter.torch, "zeros", lambda *_, **__: zeros)
    monkeypatch.setattr(xformers.ops, "memory_efficient_attention", deprecated)
    assert adapter.xformers_missing(GPU) is None


def test_the_probe_runs_once_for_a_device(monkeypatch, fresh_probe):
    calls = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: calls.append(name))
    for _ in range(3):
        assert "not installed" in adapter.xformers_missing(GPU)
    assert calls == ["xformers"]
