"""Flash attention of packed documents without a GPU: the adapter's layout, and what it refuses.

What PyTorch documents, computed plainly, stands in for the kernel, which is tested on a GPU.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import varlen

from calmkit.attention import AttentionBackendError, AttentionMask, attention
from calmkit.attention import varlen as adapter
from calmkit.attention.varlen import varlen_attention, varlen_refusal

PACKED = AttentionMask.packed([(2, 3), (5,), (1, 4)])
NEWER = (9, 0)


def by_document(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
    """PyTorch's definition: each stretch of rows by itself; `left` earlier keys are seen."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert q.shape == k.shape == v.shape
    assert q.shape[-1] * q.element_size() % 16 == 0, "the kernel reads rows of 16 bytes"
    left, right = window_size
    assert right == 0
    assert int(cu_seq_q.diff().max()) <= max_q == max_k
    mask = AttentionMask.causal(None if left == -1 else left + 1)
    lengths = cu_seq_q.diff().tolist()
    parts = zip(*(x[None].split(lengths, dim=1) for x in (q, k, v)), strict=True)
    whole = [attention(*part, mask, scale=scale, backend="reference") for part in parts]
    return torch.cat(whole, dim=1)[0]


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(varlen, "varlen_attn", by_document)


def problem(heads, kv_heads, head_dim, *, grad=False):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, 5, count, head_dim, generator=generator).requires_grad_(grad)
        for count in (heads, kv_heads, kv_heads)
    ]


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(2, 2, 8), (4, 2, 8), (2, 1, 3)])
def test_the_adapter_computes_attention(kernel, window, heads, kv_heads, head_dim):
    """Documents end to end, windows, groups of heads, and the scale of unpadded features."""
    mask = AttentionMask.packed(PACKED.lengths, window=window)
    leaves = problem(heads, kv_heads, head_dim, grad=True)
    for scale in (None, 0.3):
        got = varlen_attention(*leaves, mask, scale=scale, dropout=0.0)
        want = attention(*leaves, mask, scale=scale, backend="reference")
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got.square().sum(), leaves),
            torch.autograd.grad(want.square().sum(), leaves),
        )


def test_one_graph_serves_packings_of_any_number_of_documents(monkeypatch):
    """The compiler sees an operation on tensors: lengths are no constants of its graph."""
    traced = []

    def operation(q, k, v, cu_seq_q, **_):
        return q * cu_seq_q.sum()

    def backend(module, inputs):
        traced.append(module)
        return module.forward

    monkeypatch.setattr(varlen, "varlen_attn", operation)
    compiled = torch.compile(
        lambda q, mask: varlen_attention(q, q, q, mask, scale=None, dropout=0.0),
        fullgraph=True,
        backend=backend,
    )
    q = torch.ones(1, 9, 1, 8)
    packings = [[(4, 5)], [(5, 4)], [(2, 3, 4)], [(1,) * 9], [(1, 1, 7)], [(3, 2, 2, 2)]]
    for lengths in packings:
        mask = AttentionMask.packed(lengths)
        torch.testing.assert_close(compiled(q, mask), q * mask.starts.sum())
    assert len(traced) == 2  # of two documents; of any number


class OnGPU:
    """What `varlen_refusal` reads of a tensor, said to be on a GPU."""

    def __init__(self, dtype=torch.bfloat16, *, length=5, head_dim=64):
        self.device, self.dtype = torch.device("cuda", 0), dtype
        self.shape = (3, length, 4, head_dim)


@pytest.mark.parametrize(
    ("query", "mask", "dropout", "capability", "reason"),
    [
        ({}, PACKED, 0.0, NEWER, None),
        ({"dtype": torch.float16, "head_dim": 256}, PACKED, 0.0, (8, 0), None),
        ({}, PACKED, 0.0, (7, 5), "older than compute capability 8.0"),
        ({"dtype": torch.float32}, PACKED, 0.0, NEWER, "float32 is not supported"),
        ({"head_dim": 257}, PACKED, 0.0, NEWER, "at most 256; got 257"),
        ({}, PACKED, 0.1, NEWER, "dropout"),
        ({}, AttentionMask.causal(), 0.0, NEWER, "packed documents"),
        ({"length": 4}, PACKED, 0.0, NEWER, "as many queries as keys"),
    ],
)
def test_refusals(monkeypatch, query, mask, dropout, capability, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "this GPU")
    key = OnGPU()
    found = varlen_refusal(OnGPU(**query), key, key, mask, dropout=dropout)
    assert (found is None) if reason is None else (reason in found)


def of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False):
    """As it was before it had a scale and a window."""


@pytest.mark.parametrize("module", [None, SimpleNamespace(varlen_attn=of_torch_2_10)])
def test_an_older_torch_does_not_have_the_kernel(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    found = adapter.varlen_missing(torch.device("cuda", 0))
    assert "has no varlen_attn with scale and window_size" in found


def test_transforms_are_refused(monkeypatch):
    monkeypatch.setattr(adapter, "varlen_missing", lambda device: None)
    q = torch.zeros(3, 5, 1, 8, dtype=torch.bfloat16)
    refused = []

    def loss(x):
        refused.append(varlen_refusal(x, x, x, PACKED, dropout=0.0))
        return x.sum()

    torch.func.grad(loss)(q)
    assert refused == ["transforms of torch.func are not supported"]


def test_the_cpu_is_refused():
    q = torch.zeros(3, 5, 1, 8)
    with pytest.raises(AttentionBackendError, match=r"'varlen' cannot run .* are on cpu"):
        attention(q, q, q, PACKED, backend="varlen")
