"""Every CPU backend against a naive loop, over masks, lengths and head groups."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch._dynamo.testing import CompileCounter

from calmkit.attention import AttentionMask, attention, sdpa

BATCH, HEAD_DIM = 2, 4


def naive(q, k, v, mask, scale=None):
    """Softmax over the visible keys, one query of one head at a time."""
    batch, q_len, heads, head_dim = q.shape
    kv_len, kv_heads = k.shape[1:3]
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    visible = mask.dense(q_len, kv_len, q.device).expand(batch, -1, -1)
    rows = []
    for b in range(batch):
        for i in range(q_len):
            for h in range(heads):
                group = h // (heads // kv_heads)
                seen = [j for j in range(kv_len) if visible[b, i, j]]
                scores = torch.stack([scale * (q[b, i, h] @ k[b, j, group]) for j in seen])
                weights = scores.exp() / scores.exp().sum()
                rows.append(sum(w * v[b, j, group] for w, j in zip(weights, seen, strict=True)))
    return torch.stack(rows).view(batch, q_len, heads, head_dim)


MASKS = {
    "full": (AttentionMask.full(), 5),
    "causal": (AttentionMask.causal(), 5),
    "window": (AttentionMask.causal(window=2), 5),
    "packed": (AttentionMask.packed([(2, 3), (1, 4)]), 5),
    "packed, window": (AttentionMask.packed([(2, 3), (1, 4)], window=2), 5),
    "cached": (AttentionMask.cached(torch.tensor([3, 6])), 7),
    "cached, window": (AttentionMask.cached(torch.tensor([3, 6]), window=2), 7),
}


def of_more_rows(mask, times):
    """The mask of the same rows several times."""
    if mask.lengths is not None:
        return AttentionMask.packed(mask.lengths * times, window=mask.window)
    if mask.key_lengths is not None:
        return AttentionMask.cached(mask.key_lengths.repeat(times), window=mask.window)
    return mask


def problem(q_len, kv_len, heads, kv_heads):
    generator = torch.Generator().manual_seed(0)
    shapes = [(q_len, heads), (kv_len, kv_heads), (kv_len, kv_heads)]
    return [
        torch.randn(BATCH, *shape, HEAD_DIM, generator=generator, requires_grad=True)
        for shape in shapes
    ]


every_backend = pytest.mark.parametrize("backend", ["sdpa", "reference"])


@every_backend
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("q_len", [1, 3, 5])
@pytest.mark.parametrize("name", MASKS)
def test_matches_naive_outputs_and_gradients(name, q_len, heads, kv_heads, backend):
    mask, kv_len = MASKS[name]
    q_len = min(q_len, 3) if name.startswith("cached") else q_len
    q, k, v = problem(q_len, kv_len, heads, kv_heads)
    got, want = attention(q, k, v, mask, backend=backend), naive(q, k, v, mask)
    torch.testing.assert_close(got, want)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        torch.autograd.grad((got * weights).sum(), (q, k, v)),
        torch.autograd.grad((want * weights).sum(), (q, k, v)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MASKS)
@every_backend
def test_low_precision_stays_close_to_float64(name, dtype, backend):
    """Outputs and gradients, in root mean square. Measured: up to 2.3 epsilons of the dtype."""
    mask, kv_len = MASKS[name]
    exact = problem(5 if "packed" in name else 3, kv_len, 4, 2)
    low = [x.detach().to(dtype).requires_grad_() for x in exact]
    weights = torch.randn(exact[0].shape, generator=torch.Generator().manual_seed(1))
    results = []
    for leaves in (low, exact):
        out = attention(*leaves, mask, backend=backend if leaves is low else "reference")
        loss = (out * weights.to(out.dtype)).sum()
        results.append([out, *torch.autograd.grad(loss, leaves)])
    for got, want in zip(*results, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).norm() < 4 * torch.finfo(dtype).eps * want.norm()


@every_backend
@pytest.mark.parametrize("name", MASKS)
def test_dropout_drops_weights_and_keeps_their_mean(name, backend):
    """With values of 1 an output is the sum of the kept weights: 1 on average, 0 to 2 alone."""
    mask, kv_len = MASKS[name]
    q, k, v = problem(3, kv_len, 2, 2)
    if mask.lengths is not None:
        q = torch.cat([q, q[:, :2]], dim=1)
    torch.manual_seed(0)
    q, k, v = (x.repeat(100, 1, 1, 1) for x in (q, k, torch.ones_like(v)))
    mask = of_more_rows(mask, 100)
    draws = torch.stack(
        [attention(q, k, v, mask, dropout=0.5, backend=backend)[..., 0] for _ in range(20)]
    ).view(2000, BATCH, *q.shape[1:3])
    # Each draw has a variance of sum w^2 <= 1: a standard error of at most 0.0224.
    assert (draws.mean(dim=0) - 1).abs().max() < 5.5 * 0.0224
    assert (draws.amin(dim=0) < 0.5).all()
    assert (draws.amax(dim=0) > 1.5).all()


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_out_of_range_is_refused(dropout):
    q, k, v = problem(3, 3, 2, 2)
    with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\); got {dropout}"):
        attention(q, k, v, dropout=dropout)


def test_packed_documents_may_change_without_a_new_graph():
    """Compiled, and with the same shapes, one graph serves every packing."""
    counter = CompileCounter()
    compiled = torch.compile(attention, fullgraph=True, backend=counter)
    q, k, v = problem(5, 5, 2, 2)
    for lengths in ([(2, 3), (1, 4)], [(5,), (5,)], [(1, 1, 1, 1, 1), (3, 2)]):
        mask = AttentionMask.packed(lengths)
        torch.testing.assert_close(compiled(q, k, v, mask), naive(q, k, v, mask))
    assert counter.frame_count == 1


@pytest.mark.parametrize("window", [None, 2])
def test_no_leak_from_the_future(window):
    """Bitwise: what a query may not see cannot move a single bit, not even by being not finite."""
    q, k, v = (x.detach() for x in problem(5, 5, 4, 2))
    mask = AttentionMask.causal(window)
    before = attention(q, k, v, mask)
    k, v = k.clone(), v.clone()
    k[:, 3:] += 100.0
    v[:, 3:] -= 1e6
    after = attention(q, k, v, mask)
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=0)
    assert not torch.isclose(after[:, 3:], before[:, 3:]).any()


@pytest.mark.parametrize(
    ("mask", "shapes", "match"),
    [
        (AttentionMask.causal(), ((3, 3), (3, 2)), "kv_heads must divide heads; got 2 and 3"),
        (AttentionMask.causal(), ((4, 2), (3, 2)), "got 4 queries for 3 keys"),
        (AttentionMask.packed([(3,)]), ((3, 2), (3, 2)), "the 2 rows of q; it has 1"),
        (AttentionMask.cached(torch.tensor([3])), ((3, 2), (3, 2)), "the 2 rows of q; it has 1"),
        (AttentionMask.packed([(4,), (4,)]), ((3, 2), (3, 2)), "they add up to 4"),
        (AttentionMask.cached(torch.tensor([3, 4])), ((3, 2), (3, 2)), r"3 keys.*got \[3, 4\]"),
    ],
)
def test_misfits_are_refused(mask, shapes, match):
    q, k = (torch.zeros(BATCH, *shape, HEAD_DIM) for shape in shapes)
    with pytest.raises(ValueError, match=match):
        attention(q, k, k, mask)


def test_dtypes_are_one_or_made_one_by_autocast():
    q, k = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"one dtype; got torch.float64, torch.float32 and"):
        attention(q, k, k)
    with pytest.raises(ValueError, match="one dtype"):
        attention(q, q, k)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(q.float(), k.bfloat16(), k).dtype == torch.bfloat16


def test_a_batch_of_one_does_not_broadcast():
    q, k = torch.zeros(2, 3, 2, 4), torch.zeros(1, 3, 2, 4)
    with pytest.raises(TypeCheckError, match="parameter 'k'"):
        attention(q, k, k, AttentionMask.causal())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_short_rows_in_training_match_the_kernel(dtype, monkeypatch):
    """Plain products, and the kernel that long rows take, on the same rows."""
    generator = torch.Generator().manual_seed(0)
    x = [
        torch.randn(2, 60, 2, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)
    ]
    found = []
    for short in (sdpa._SHORT, {}):
        monkeypatch.setattr(sdpa, "_SHORT", short)
        for mask in (AttentionMask.causal(), AttentionMask.packed([(40, 20), (60,)])):
            out = attention(*x, mask, scale=0.3)
            found.append((out, *torch.autograd.grad(out.sum(), x)))
    tolerance = {torch.bfloat16: 0.02, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(found[:2], found[2:], rtol=tolerance, atol=tolerance)


def test_only_short_rows_in_training_hold_their_scores(monkeypatch):
    calls = []
    monkeypatch.setattr(sdpa, "_by_products", lambda q, *rest: calls.append(q.shape[2]) or q)
    for length, trained in ((128, True), (128, False), (129, True)):
        q = torch.randn(1, length, 1, 2, dtype=torch.float32, requires_grad=trained)
        attention(q, q, q)
        attention(q[:, -1:], q, q)  # a step with a cache
    assert calls == [128]


def test_short_rows_drop_weights():
    x = torch.randn(2, 50, 4, 8, requires_grad=True)
    ones = torch.ones_like(x)
    torch.manual_seed(0)
    out = attention(x, x, ones, dropout=0.25)
    assert out.std() > 0.05  # 400 rows of some 25 weights each
    assert abs(float(out.detach().mean()) - 1) < 0.1
    assert attention(x, x, ones).std() < 1e-6
