"""Mask objects of xformers, as they write themselves out, against `AttentionMask.dense`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.attention import AttentionMask
from calmkit.attention.xformers_bias import xformers_bias

pytest.importorskip("xformers", reason="xformers has no build for this platform")

CPU = torch.device("cpu")


def written_out(mask, batch, q_len, kv_len):
    """Visibility, (batch, q_len, kv_len), as xformers' object writes it."""
    bias = xformers_bias(mask, batch, q_len, kv_len, CPU)
    if mask.rows is None:
        return (bias.materialize((q_len, kv_len)) == 0).expand(batch, -1, -1)
    flat = bias.materialize((batch * q_len, batch * kv_len)) == 0
    blocks = flat.view(batch, q_len, batch, kv_len)
    for row in range(batch):
        assert not blocks[row, :, [other for other in range(batch) if other != row]].any()
    return torch.stack([blocks[row, :, row] for row in range(batch)])


windows = st.none() | st.integers(1, 4)


@given(st.integers(1, 5), st.integers(0, 4), windows)
def test_causal_masks_are_those_of_xformers(q_len, more, window):
    mask = AttentionMask.causal(window)
    got = written_out(mask, 1, q_len, q_len + more)
    torch.testing.assert_close(got, mask.dense(q_len, q_len + more, CPU))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), windows)
def test_packed_masks_are_those_of_xformers(lengths, window):
    total = sum(lengths)
    mask = AttentionMask.packed([lengths, (total,)], window)
    torch.testing.assert_close(written_out(mask, 2, total, total), mask.dense(total, total, CPU))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 3), windows, st.data())
def test_cached_masks_are_those_of_xformers(used, spare, window, data):
    q_len = data.draw(st.integers(1, min(used)))
    kv_len = max(used) + spare
    mask = AttentionMask.cached(torch.tensor(used), window)
    got = written_out(mask, len(used), q_len, kv_len)
    torch.testing.assert_close(got, mask.dense(q_len, kv_len, CPU))


def test_the_full_mask_is_none():
    assert xformers_bias(AttentionMask.full(), 2, 3, 4, CPU) is None


def test_lengths_are_listed_once_for_all_layers():
    mask = AttentionMask.packed([(2, 1)])
    first = xformers_bias(mask, 1, 3, 3, CPU)
    assert xformers_bias(mask, 1, 3, 3, CPU) is first
    other = AttentionMask.cached(torch.tensor([3]))
    short = xformers_bias(other, 1, 1, 4, CPU)
    assert xformers_bias(other, 1, 2, 4, CPU) is not short
