"""Truncated softmaxes against a plain loop, and the sampler against its law."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from calmkit.finite import NonFiniteError
from calmkit.sampling import SoftmaxSampler
from calmkit.sampling.softmax import drawable, truncated_log_probabilities


def literal(logits, temperature, top_k, top_p):
    """Sort, keep k, keep the nucleus, normalise."""
    weights = {x: math.exp(logit / temperature) for x, logit in enumerate(logits)}
    order = sorted(weights, key=lambda x: -weights[x])
    order = order[: len(order) if top_k is None else top_k]
    total, kept, mass = sum(weights[x] for x in order), [], 0.0
    for x in order:
        if mass < top_p - 1e-12:
            kept.append(x)
        mass += weights[x] / total
    total = sum(weights[x] for x in kept)
    return [weights[x] / total if x in kept else 0.0 for x in range(len(logits))]


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=8, unique=True),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.none() | st.integers(1, 9),
    st.sampled_from([0.2, 0.7, 1.0]),
)
def test_matches_a_plain_loop(logits, temperature, top_k, top_p):
    logits = [x / 13 for x in logits]
    got = truncated_log_probabilities(
        torch.tensor([logits]), temperature=temperature, top_k=top_k, top_p=top_p
    )
    want = torch.tensor([literal(logits, temperature, top_k, top_p)])
    torch.testing.assert_close(got.exp(), want)


class Logits:
    def __init__(self, logits):
        self.logits = logits

    def __call__(self, n):
        raise NotImplementedError


def test_draws_follow_the_truncated_softmax():
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0])
    sampler = SoftmaxSampler(temperature=0.8, top_k=4, top_p=0.9)
    draw = Logits(logits.expand(20_000, 5))
    got = sampler(draw, torch.Generator().manual_seed(0))
    assert got.tokens.shape == (20_000, 1)
    assert (got.draws == 1).all() and got.settled.all()
    want = torch.tensor(literal(logits.tolist(), 0.8, 4, 0.9))
    share = torch.bincount(got.tokens.flatten(), minlength=5) / 20_000
    assert ((share - want).abs() <= 5.5 * (want * (1 - want) / 20_000).sqrt()).all()
    assert (want == 0).sum() == 2


def test_it_needs_logits():
    with pytest.raises(ValueError, match=r"draw must offer logits.* Use BatchTemperature"):
        SoftmaxSampler()(lambda n: torch.zeros(n, 1, 1, dtype=torch.long))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite; got 0.0"),
        ({"temperature": -1.0}, "temperature must be positive and finite; got -1.0"),
        ({"temperature": math.nan}, "temperature must be positive and finite; got nan"),
        ({"temperature": math.inf}, "temperature must be positive and finite; got inf"),
        ({"temperature": True}, "temperature must be positive and finite; got True"),
        ({"top_k": 0}, "top_k must be at least 1, or None; got 0"),
        ({"top_k": -3}, "top_k must be at least 1, or None; got -3"),
        ({"top_k": True}, "top_k must be a whole number; got True"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]; got 0.0"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\]; got 1.5"),
        ({"top_p": math.nan}, r"top_p must be in \(0, 1\]; got nan"),
        ({"top_p": True}, r"top_p must be in \(0, 1\]; got True"),
    ],
)
def test_bad_settings_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        SoftmaxSampler(**arguments)


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-40, 5e-324])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_next_to_zero_the_likeliest_token_is_certain(temperature, dtype):
    logits = torch.tensor([[-900.0, 3.0, 2.0], [900.0, -3.0, 2.0]], dtype=dtype)
    got = truncated_log_probabilities(logits, temperature=temperature)
    assert got.exp().tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_law_are_refused(wrong):
    with pytest.raises(NonFiniteError, match="logits must be finite; 1 of 2 values"):
        SoftmaxSampler(0.5)(Logits(torch.tensor([[0.0, 1.0], [wrong, 0.0]])))
    with pytest.raises(NonFiniteError, match="logits must be finite"):
        SoftmaxSampler(0.5)(Logits(torch.full((1, 2), -torch.inf)))


def test_a_token_may_be_ruled_out():
    got = SoftmaxSampler()(Logits(torch.tensor([[-torch.inf, 1.0]] * 50)))
    assert (got.tokens == 1).all()


def test_off_the_cpu_what_is_no_law_is_drawn_from_until_the_answer_is_there():
    shares = torch.tensor([[torch.nan, torch.nan], [0.25, 0.75]])
    assert drawable(shares) is shares
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "device", torch.device("cuda"))
        got = drawable(shares)
    assert got.tolist() == [[1, 1], [0.25, 0.75]]
