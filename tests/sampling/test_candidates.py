"""Pruned decoding chooses what full decoding chooses, and decodes less."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeding import seeded

from calmkit.sampling import BatchTemperature, batch_temperature
from calmkit.sampling import candidates as module
from calmkit.sampling.undecoded import LazyDraw


class Lazy:
    """A black box that notes which tokens it was asked for."""

    def __init__(self, tokens):
        self.left, self.asked = tokens, []

    def __call__(self, n):
        raise AssertionError("all tokens were asked for")

    def undecoded(self, n):
        now, self.left = self.left[:n], self.left[n:]
        return LazyBlock(now, self.asked)


class LazyBlock:
    def __init__(self, tokens, asked):
        self.tokens, self.asked = tokens, asked
        self.shape, self.device = tuple(tokens.shape), tokens.device

    def tokens_at(self, places, chosen):
        self.asked += [(place, i) for place in places for i in chosen.tolist()]
        return self.tokens.flatten(0, -2)[chosen][:, list(places)]


@given(
    st.integers(0, 10_000),
    st.sampled_from([0.7, 0.5, 0.4, 1 / 3, 0.2]),
    st.integers(5, 30),
    st.integers(1, 4),
    st.integers(2, 9),
)
def test_the_same_chunk_is_chosen(seed, temperature, number, chunk, vocab):
    candidates = torch.randint(vocab, (number, 4, chunk), generator=seeded(seed))
    box = Lazy(candidates)
    assert isinstance(box, LazyDraw)
    got = BatchTemperature(temperature, number)(box, seeded(seed))
    want = batch_temperature(candidates, temperature, generator=seeded(seed))
    assert torch.equal(got.tokens, want)
    assert len(set(box.asked)) == len(box.asked), "no token is computed twice"


def test_an_ending_that_occurs_too_seldom_is_not_decoded_further(monkeypatch):
    monkeypatch.setattr(module, "at_once", lambda device: 0)
    rows = [[3, 2, 1], [4, 2, 1], [6, 5, 1], [9, 8, 7], [3, 2, 1]]
    box = Lazy(torch.tensor(rows)[:, None])
    got = BatchTemperature(0.5, 5)(box, seeded())
    assert got.tokens.tolist() == [[3, 2, 1]]
    places = [{i for place, i in box.asked if place == at} for at in (2, 1, 0)]
    assert places == [{0, 1, 2, 3, 4}, {0, 1, 2, 4}, {0, 1, 4}]


@pytest.mark.parametrize("few", [2, 3])
def test_few_that_are_left_are_decoded_at_once(few, monkeypatch):
    """Three of five have the same last token, two of them the same two last ones."""
    monkeypatch.setattr(module, "at_once", lambda device: few)
    rows = [[0, 1, 2, 3, 9], [0, 1, 2, 3, 9], [0, 1, 2, 4, 9], [5, 5, 5, 5, 5], [6, 6, 6, 6, 6]]
    box = Lazy(torch.tensor(rows)[:, None])
    asked = []
    real = LazyBlock.tokens_at

    def noting(block, places, chosen):
        asked.append((len(chosen), places))
        return real(block, places, chosen)

    monkeypatch.setattr(LazyBlock, "tokens_at", noting)
    got = BatchTemperature(0.5, 5)(box, seeded())
    assert got.tokens.tolist() == [rows[0]]
    assert asked[:2] == [(5, range(4, 5)), (3, range(0 if few == 3 else 3, 4))]
    assert asked[2:] == ([] if few == 3 else [(2, range(3))])


def test_where_nothing_agrees_one_candidate_is_decoded():
    tokens = torch.arange(20).view(20, 1, 1).expand(20, 1, 4)
    box = Lazy(tokens)
    got = BatchTemperature(0.5, 20)(box, seeded())
    assert len(box.asked) == 20 + 3
    assert not got.settled.any() and len(set(got.tokens[0].tolist())) == 1


def test_fewer_that_agree_decide_before_one_alone():
    """At temperature 1/4: no four agree, no three; a pair does."""
    tokens = torch.tensor([[1, 2], [3, 4], [1, 2], [3, 5], [6, 7]])[:, None]
    for seed in range(10):
        got = BatchTemperature(0.25, 5)(Lazy(tokens), seeded(seed))
        assert got.tokens.tolist() == [[1, 2]] and not got.settled.any()


def test_batch_axes_are_kept():
    candidates = torch.randint(3, (6, 2, 3, 2), generator=seeded())
    got = BatchTemperature(0.5, 6)(Lazy(candidates), seeded(1))
    assert got.tokens.shape == (2, 3, 2) and got.draws.shape == (2, 3) == got.settled.shape
    want = batch_temperature(candidates, 0.5, generator=seeded(1))
    assert torch.equal(got.tokens, want)


def test_a_wrong_number_of_undecoded_candidates_is_named():
    box = Lazy(torch.zeros(3, 2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"undecoded\(4\) must give .* got \(3, 2, 2\)"):
        BatchTemperature(0.5, 4)(box, seeded())
