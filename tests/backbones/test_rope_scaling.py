"""Scalings of rotary rates against transformers', and what they are for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from calmkit.backbones import LinearScaling, Llama3Scaling, YarnScaling
from calmkit.backbones.rotary import rotation_at


def plain_rates(head_dim, theta):
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32)
    return theta ** (-pairs / head_dim)


def published(head_dim, theta, **parameters):
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=4096,
        rope_parameters={"rope_theta": theta, **parameters},
    )
    # The initialisers read the default device and dtype.
    return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu")


thetas = st.sampled_from([100.0, 1e4, 5e5])
head_dims = st.sampled_from([4, 8, 64])
factors = st.sampled_from([1.0, 2.0, 8.0])
lengths = st.sampled_from([16, 2048, 8192])


@given(head_dims, thetas, factors, lengths)
def test_rates_are_those_of_transformers(head_dim, theta, factor, length):
    rates = plain_rates(head_dim, theta)
    for kind, scaling, extra in (
        ("linear", LinearScaling(factor=factor), {}),
        (
            "llama3",
            Llama3Scaling(
                factor=factor, original_positions=length, low_freq_factor=1.5, high_freq_factor=5.0
            ),
            {
                "low_freq_factor": 1.5,
                "high_freq_factor": 5.0,
                "original_max_position_embeddings": length,
            },
        ),
        (
            "yarn",
            YarnScaling(factor=factor, original_positions=length, beta_fast=20.0, beta_slow=2.0),
            {
                "beta_fast": 20.0,
                "beta_slow": 2.0,
                "original_max_position_embeddings": length,
            },
        ),
    ):
        want, attention_factor = published(head_dim, theta, rope_type=kind, factor=factor, **extra)
        got = scaling.scaled(rates)
        torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=0, msg=kind)
        assert scaling.attention_factor == pytest.approx(attention_factor)


def test_slow_pairs_are_slowed_and_fast_ones_kept():
    rates = plain_rates(64, 1e4)
    turns = 2048 * rates / (2 * math.pi)
    for scaling in (
        Llama3Scaling(factor=8.0, original_positions=2048, high_freq_factor=32.0),
        YarnScaling(factor=8.0, original_positions=2048),
    ):
        ratio = scaling.scaled(rates) / rates
        torch.testing.assert_close(ratio[turns > 40], torch.ones_like(ratio[turns > 40]))
        slow = ratio[turns < 0.7]
        torch.testing.assert_close(slow, torch.full_like(slow, 1 / 8))
        assert (ratio.diff() <= 1e-6).all()


def test_the_attention_factor_multiplies_queries_and_keys():
    positions = torch.arange(5)[None]
    scaling = YarnScaling(factor=8.0, original_positions=16, attention_factor=1.25)
    rotation = rotation_at(positions, 8, theta=1e4, scaling=scaling)
    norm = rotation.cos.square() + rotation.sin.square()
    torch.testing.assert_close(norm, torch.full_like(norm, 1.25**2))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinearScaling(factor=0.5), r"factor must be in \[1, inf\); got 0.5"),
        (lambda: Llama3Scaling(factor=2.0, original_positions=0), "original_positions must be"),
        (
            lambda: Llama3Scaling(factor=2.0, original_positions=8, low_freq_factor=4.0),
            "below high_freq_factor; got 4.0 and 4.0",
        ),
        (lambda: YarnScaling(factor=0.0, original_positions=8), r"factor must be in \[1, inf\)"),
        (lambda: YarnScaling(factor=2.0, original_positions=-1), "original_positions must be"),
        (
            lambda: YarnScaling(factor=2.0, original_positions=8, beta_slow=40.0),
            r"below beta_fast; got 40.0 and 32.0",
        ),
    ],
)
def test_values_out_of_range_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
