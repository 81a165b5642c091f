"""Cross entropy in blocks: the plain form, its gradients, and what it holds in memory."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

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


@pytest.mark.parametrize("at_once", [1, 7, 14, 7 * 14, 7 * 15])
def test_is_the_plain_form(monkeypatch, at_once):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", at_once)
    features, weight, target = problem()
    upstream = torch.rand(3, 5, dtype=torch.float64)
    want = plain(features, weight, target)
    got = vocabulary_nats(features, weight, target)
    torch.testing.assert_close(got, want)
    for one, other in zip(
        torch.autograd.grad(got, (features, weight), upstream),
        torch.autograd.grad(want, (features, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_second_derivatives(monkeypatch):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem()
    assert torch.autograd.gradgradcheck(
        lambda x, w: vocabulary_nats(x, w, target).sum(), (features, weight)
    )


def test_low_precision_is_summed_in_float32(monkeypatch):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    features, weight, target = problem(torch.bfloat16)
    assert vocabulary_nats(features, weight, target).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nats = vocabulary_nats(features.float(), weight.float(), target)
    assert nats.dtype == torch.float32


def test_no_rows():
    _, weight, _ = problem()
    empty = torch.zeros(0, 4, dtype=torch.float64), weight, torch.zeros(0, dtype=torch.long)
    assert vocabulary_nats(*empty).shape == (0,)


def test_compiles_without_a_break(monkeypatch):
    monkeypatch.setattr(vocabulary, "_LOGITS_AT_ONCE", 14)
    problem_ = problem(torch.float32)
    compiled = torch.compile(vocabulary_nats, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*problem_), plain(*problem_))


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in KiB of Linux")
def test_memory_is_bounded():
    """1,024 targets of 128,257 tokens: their logits alone would take 525 MB."""
    program = """
import resource, torch
from calmkit.nn import vocabulary_nats
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
features = torch.randn(1024, 16, requires_grad=True)
weight = torch.randn(128257, 16, requires_grad=True)
weight.grad = torch.zeros_like(weight)
before = peak()
vocabulary_nats(features, weight, torch.zeros(1024, dtype=torch.long)).sum().backward()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert float(done.stdout) < 300, done.stderr
