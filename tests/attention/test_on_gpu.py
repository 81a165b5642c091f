"""What only a GPU can show: kernels for masks as lists of lengths, and that `auto` takes them."""

import warnings

import pytest
import torch

from calmkit.attention import AttentionMask, attention, available_backends, backends
from calmkit.attention import xformers as adapter
from calmkit.backbones import TransformerBackbone

# What kernels and the compiler use of Triton and torch may be deprecated; it asks for TF32, too.
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning"),
]

BATCH, LENGTH = 2, 96
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-4}


def masks(device="cuda"):
    return {
        "full": AttentionMask.full(),
        "causal": AttentionMask.causal(),
        "window": AttentionMask.causal(window=17),
        "packed": AttentionMask.packed([(40, 56), (10, 30, 56)]),
        "packed, window": AttentionMask.packed([(40, 56), (10, 30, 56)], window=17),
        "cached": AttentionMask.cached(torch.tensor([50, 96], device=device)),
        "cached, window": AttentionMask.cached(torch.tensor([50, 96], device=device), window=17),
    }


def problem(dtype, q_len, heads=4, kv_heads=4, head_dim=64, grad=False):
    generator = torch.Generator("cuda").manual_seed(0)
    return [
        torch.randn(
            BATCH, length, count, head_dim, generator=generator, device="cuda", dtype=dtype
        ).requires_grad_(grad)
        for length, count in ((q_len, heads), (LENGTH, kv_heads), (LENGTH, kv_heads))
    ]


def assert_close(got, want, dtype):
    torch.testing.assert_close(
        got.double(), want.double(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


def test_xformers_is_usable():
    assert "xformers" in available_backends("cuda"), adapter.xformers_missing(torch.device("cuda"))


@pytest.mark.parametrize(("kv_heads", "head_dim"), [(4, 64), (2, 64), (1, 64), (4, 20)])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("name", masks("cpu"))
def test_xformers_matches_the_reference(name, dtype, kv_heads, head_dim):
    if name == "cached, window" and dtype == torch.float32:
        pytest.skip("xformers has no kernel for it; see test_xformers.py")
    mask = masks()[name]
    q_len = 3 if name.startswith("cached") else LENGTH
    leaves = problem(dtype, q_len, kv_heads=kv_heads, head_dim=head_dim)
    got = attention(*leaves, mask, backend="xformers")
    want = attention(*(x.double() for x in leaves), mask, backend="reference")
    assert_close(got, want, dtype)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("name", [name for name in masks("cpu") if "cached" not in name])
def test_gradients_match_the_reference(name, dtype, kv_heads):
    if "window" in name and dtype == torch.float32:
        pytest.skip("xformers has no backward of float32 with a window; see test_xformers.py")
    mask = masks()[name]
    leaves = problem(dtype, LENGTH, kv_heads=kv_heads, grad=True)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    got = torch.autograd.grad(attention(*leaves, mask, backend="xformers").sum(), leaves)
    want = torch.autograd.grad(attention(*exact, mask, backend="reference").sum(), exact)
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs, dtype)


@pytest.mark.parametrize("name", masks("cpu"))
def test_auto_takes_xformers_for_masks_that_others_need_as_tensors(monkeypatch, name):
    ran = []
    real = backends._BACKENDS["xformers"].run

    def watched(*args, **arguments):
        ran.append(True)
        return real(*args, **arguments)

    chosen = backends._Backend(watched, adapter.xformers_refusal)
    monkeypatch.setitem(backends._BACKENDS, "xformers", chosen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention(*problem(torch.bfloat16, LENGTH), masks()[name])
    assert bool(ran) == (name not in {"full", "causal"})


def test_packed_xformers_needs_less_memory_than_a_dense_mask():
    length = 8192
    shape = (1, length, 8, 64)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    mask = AttentionMask.packed([(1000, 3000, 96, 4096)])

    def peak(work):
        work()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    ours = peak(lambda: attention(q, k, v, mask, backend="xformers"))
    dense = mask.dense(length, length, q.device)[:, None]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    theirs = dense.numel() + peak(
        lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense)
    )
    assert ours < theirs


def test_compiles_to_one_graph():
    """Forward and backward, on xformers' kernel."""
    leaves = problem(torch.bfloat16, LENGTH, grad=True)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    out = torch.compile(attention, fullgraph=True)(*leaves, backend="xformers")
    want = attention(*exact, backend="reference")
    assert_close(out, want, torch.bfloat16)
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), leaves),
        torch.autograd.grad(want.sum(), exact),
        strict=True,
    ):
        assert_close(ours, theirs, torch.bfloat16)


@pytest.mark.parametrize(("kv_heads", "head_dim"), [(4, 64), (2, 64), (4, 20)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["packed", "packed, window"])
@pytest.mark.parametrize("compiled", [False, True])
def test_varlen_matches_the_reference(name, dtype, kv_heads, head_dim, compiled):
    mask = masks()[name]
    leaves = problem(dtype, LENGTH, kv_heads=kv_heads, head_dim=head_dim, grad=True)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    run = torch.compile(attention, fullgraph=True) if compiled else attention
    got, want = run(*leaves, mask, backend="varlen"), attention(*exact, mask, backend="reference")
    assert_close(got, want, dtype)
    for ours, theirs in zip(
        torch.autograd.grad(got.sum(), leaves),
        torch.autograd.grad(want.sum(), exact),
        strict=True,
    ):
        assert_close(ours, theirs, dtype)


def test_compiled_packed_attention_is_that_of_varlen(monkeypatch):
    ran = []
    real = backends._BACKENDS["varlen"].run

    def watched(*args, **arguments):
        ran.append(True)
        return real(*args, **arguments)

    chosen = backends._Backend(watched, backends._BACKENDS["varlen"].refusal)
    monkeypatch.setitem(backends._BACKENDS, "varlen", chosen)
    leaves, mask = problem(torch.bfloat16, LENGTH), masks()["packed"]
    out = torch.compile(attention, fullgraph=True)(*leaves, mask)
    assert ran
    assert_close(
        out, attention(*(x.double() for x in leaves), mask, backend="reference"), out.dtype
    )


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
def test_the_backbone_trains_and_decodes_compiled(backend):
    """In bfloat16: a packed training step in one graph, and a cache that gives the same states."""
    torch.manual_seed(0)
    exact = TransformerBackbone(64, depth=2, heads=2, kv_heads=1, attention_backend="reference")
    model = TransformerBackbone(64, depth=2, heads=2, kv_heads=1, attention_backend=backend)
    model.load_state_dict(exact.state_dict())
    exact, model = exact.cuda(), model.cuda().bfloat16()
    x = torch.randn(BATCH, LENGTH, 64, device="cuda")
    mask = masks()["packed"]
    compiled = torch.compile(model, fullgraph=True)
    weights = torch.randn_like(x)
    (compiled(x.bfloat16(), mask) * weights).sum().backward()
    (exact(x, mask) * weights).sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        error = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert error < 0.05, name
    cache = model.new_cache(BATCH, LENGTH)
    with torch.no_grad():
        states = [compiled(part.bfloat16(), cache=cache) for part in x[:, :5].split(1, dim=1)]
        want = exact(x[:, :5])
    assert (torch.cat(states, dim=1) - want).norm() < 0.02 * want.norm()
