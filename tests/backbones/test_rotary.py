"""Rotations against complex multiplication, and the law that gives them their purpose."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.backbones.rotary import apply_rotary, rotation_at

# Angles are float32 on purpose, in models of every dtype.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


def turn(x, position, theta=10000.0):
    """One vector, turned to stand at one position."""
    rotation = rotation_at(torch.tensor([[position]]), x.shape[-1], theta=theta)
    return apply_rotary(x[None, None, None], rotation)[0, 0, 0]


def test_matches_complex_multiplication():
    x = torch.randn(6, generator=torch.Generator().manual_seed(0))
    for position in (0, 1, 7):
        want = torch.empty(6)
        for pair in range(3):
            angle = torch.tensor(position * 100.0 ** (-2 * pair / 6))
            turned = torch.complex(x[pair], x[pair + 3]) * torch.polar(torch.tensor(1.0), angle)
            want[pair], want[pair + 3] = turned.real, turned.imag
        torch.testing.assert_close(turn(x, position, theta=100.0), want, **FLOAT32)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 99))
def test_products_depend_on_the_distance_only(first, second, shift, seed):
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    here = turn(q, first) @ turn(k, second)
    there = turn(q, first + shift) @ turn(k, second + shift)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)  # sums of float32 errors


def test_norm_is_kept_and_position_zero_is_the_identity():
    x = torch.randn(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turn(x, 0), x, rtol=0, atol=0)
    torch.testing.assert_close(turn(x, 11).norm(), x.norm(), **FLOAT32)


def test_every_head_and_row_has_its_own_position():
    x = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2], [5, 6, 7]])
    got = apply_rotary(x, rotation_at(positions, 4, theta=10000.0))
    for row in range(2):
        for place in range(3):
            for head in range(2):
                want = turn(x[row, place, head], int(positions[row, place]))
                torch.testing.assert_close(got[row, place, head], want)
