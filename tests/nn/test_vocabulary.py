"""Cross entropy in blocks: the plain form, its gradients, and what it holds in memory."""

import pytest
import resident_memory
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils.flop_counter import FlopCounterMode

from calmkit.nn import vocabulary, vocabulary_nats


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, 4, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(7, 4, generator=generator, dtype=dtype, requires_grad=True)
    return features, weight, torch.randint(7, (3, 5), generator=generator)


def plain(features, weight, target):
    logits = linear(features, weight)
    nats = cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
    return nats.view(target.shape)


# Logits and targets in a block: one logit, a row of it, several rows, all but one logit, all.
@pytest.mark.parametrize(
    ("at_once", "targets"), [(1, 4), (5, 2), (7, 4), (14, 15), (7 * 15 - 1, 15), (7 * 15, 15)]
)
@pytest.mark.parametrize("ignored", [False, True])
def test_is_the_plain_form(monkeypatch, at_once, targets, ignored):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(vocabulary, "_TARGETS_AT_ONCE", targets)
    features, weight, target = problem()
    if ignored:
        target[0, 1:3] = target[2, 4] = vocabulary.IGNORED
    upstream = torch.rand(3, 5, dtype=torch.float64)
    upstream[1, 2:] = 0.0  # positions that a mean does not count
    want = plain(features, weight, target)
    got = vocabulary_nats(features, weight, target)
    torch.testing.assert_close(got, want)
    for one, other in zip(
        torch.autograd.grad(got, (features, weight), upstream),
        torch.autograd.grad(want, (features, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    if ignored:
        assert bool((got[0, 1:3] == 0).all())


def test_logits_of_any_size(monkeypatch):
    """Neither do exponentials overflow nor do differences of large numbers lose digits."""
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem()
    for scale in (1e-8, 1e4, 1e8):
        scaled = features * scale
        got = torch.autograd.grad(vocabulary_nats(scaled, weight, target).sum(), weight)
        want = torch.autograd.grad(plain(scaled, weight, target).sum(), weight)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("wrong", [-1, 7])
@pytest.mark.parametrize("at_once", [14, 1000])
def test_a_token_outside_the_vocabulary_is_refused(monkeypatch, at_once, wrong):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", at_once)
    features, weight, target = problem()
    target[1, 1] = wrong
    with pytest.raises(ValueError, match=rf"target must hold token ids in \[0, 7\), .* {wrong}\."):
        vocabulary_nats(features, weight, target)


def test_second_derivatives(monkeypatch):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem()
    assert torch.autograd.gradgradcheck(
        lambda x, w: vocabulary_nats(x, w, target).sum(), (features, weight)
    )


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_costs_no_product(monkeypatch, frozen):
    """Such as the decoder's weights in a model that is trained on its cross entropy."""
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem()
    inputs = features, weight
    inputs[frozen].requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        (got,) = torch.autograd.grad(vocabulary_nats(*inputs, target).sum(), inputs[1 - frozen])
    # The logits twice, and one gradient.
    assert counter.get_total_flops() == 3 * 2 * features.numel() * len(weight)
    (want,) = torch.autograd.grad(plain(*inputs, target).sum(), inputs[1 - frozen])
    torch.testing.assert_close(got, want)


def test_low_precision_is_summed_in_float32(monkeypatch):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem(torch.bfloat16)
    assert vocabulary_nats(features, weight, target).dtype == torch.float32


def test_autocast_reaches_both_passes(monkeypatch):
    """Products in bfloat16, sums over the vocabulary and over blocks in float32."""
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = (x.float() if x.is_floating_point() else x for x in problem())
    products = []

    def recorded(first, second):
        products.append({first.dtype, second.dtype})
        return linear(first, second)

    monkeypatch.setattr(vocabulary, "linear", recorded)
    features, weight = (x.detach().requires_grad_() for x in (features, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = vocabulary_nats(features, weight, target)
    got = torch.autograd.grad(nats.sum(), (features, weight))
    assert nats.dtype == got[0].dtype == got[1].dtype == torch.float32
    assert len(products) == 2 * 7 and all(one == {torch.bfloat16} for one in products)
    want = torch.autograd.grad(plain(features, weight, target).sum(), (features, weight))
    # bfloat16 has 8 bits: each product and each slope is off by up to 0.4 per cent.
    torch.testing.assert_close(nats, plain(features, weight, target), rtol=0.02, atol=0.02)
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.05)


def test_no_rows():
    _, weight, _ = problem()
    empty = torch.zeros(0, 4, dtype=torch.float64), weight, torch.zeros(0, dtype=torch.long)
    assert vocabulary_nats(*empty).shape == (0,)


# PyTorch's own compiler makes an instance of the class, which PyTorch deprecates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_without_a_break(monkeypatch):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem(torch.float32)
    compiled = torch.compile(vocabulary_nats, fullgraph=True, backend="aot_eager")
    got, want = compiled(features, weight, target), plain(features, weight, target)
    torch.testing.assert_close(got, want)
    gradients = (torch.autograd.grad(nats.sum(), (features, weight)) for nats in (got, want))
    torch.testing.assert_close(*gradients)


@resident_memory.needs_linux
def test_memory_is_bounded(tmp_path):
    grown = resident_memory.growth(resident_memory.large_vocabulary, tmp_path)
    assert grown < 100  # measured: 50
