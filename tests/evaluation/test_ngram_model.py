"""n-grams: against counting with dictionaries, draws against probabilities, bounds."""

from collections import Counter, defaultdict
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calmkit.data import TextMixture, TokenStore
from calmkit.evaluation import NgramModel, ngram_model
from calmkit.evaluation.text_blocks import text_blocks

VOCAB = 4
TEXT = st.lists(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12), min_size=1, max_size=6
)


def store(lists):
    return TokenStore(
        tokens=np.concatenate([np.array(tokens, dtype=np.uint16) for tokens in lists]),
        offsets=np.cumsum([0, *map(len, lists)]),
        vocab_size=VOCAB,
        end_id=0,
        num_characters=0,
    )


def by_loops(lists, order, context, token):
    """The formula of the module, with dictionaries."""
    found = 1 / VOCAB
    for n in range(1, order + 1):
        if n - 1 > len(context):
            break
        after = defaultdict(Counter)
        for tokens in lists:
            for i in range(n - 1, len(tokens)):
                after[tuple(tokens[i - n + 1 : i])][tokens[i]] += 1
        counts = after[tuple(context[len(context) - n + 1 :])]
        total, new = sum(counts.values()), len(counts)
        if total:
            found = (counts[token] + new * found) / (total + new)
    return found


@given(TEXT, st.integers(1, 4), st.lists(st.integers(0, VOCAB - 1), max_size=4))
def test_probabilities_are_the_formula(lists, order, context):
    model = NgramModel.fit(store(lists), order=order)
    contexts = np.tile(np.array(context, dtype=np.int64), (VOCAB, 1)).reshape(VOCAB, -1)
    got = model.probability(contexts, np.arange(VOCAB))
    want = [by_loops(lists, order, context, token) for token in range(VOCAB)]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert got.sum() == pytest.approx(1, abs=1e-12)


@given(TEXT, st.integers(1, 3), st.integers(1, 7))
def test_blocks_change_nothing_but_at_their_borders(lists, order, block):
    place, cut = 0, []
    for tokens in lists:
        borders = [0, *range(-place % block or block, len(tokens), block), len(tokens)]
        cut += [tokens[begin:end] for begin, end in pairwise(borders)]
        place += len(tokens)
    want = NgramModel.fit(store(cut), order=order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngram_model, "text_blocks", partial(text_blocks, block=block))
        got = NgramModel.fit(store(lists), order=order)
    context = np.array([[0, 1], [2, 3], [-1, 0], [-1, -1]])
    for token in range(VOCAB):
        tokens = np.full(len(context), token)
        np.testing.assert_array_equal(
            got.probability(context, tokens), want.probability(context, tokens)
        )


@given(TEXT, st.integers(1, 3))
def test_shorter_n_grams_are_those_of_a_shorter_fit(lists, order):
    want = NgramModel.fit(store(lists), order=order)
    got = NgramModel.fit(store(lists), order=3).shorter(order)
    context = np.array([[0, 1], [2, 3], [-1, 0]])
    for token in range(VOCAB):
        tokens = np.full(len(context), token)
        np.testing.assert_array_equal(
            got.probability(context, tokens), want.probability(context, tokens)
        )


def test_draws_follow_the_probabilities():
    """All continuations of two tokens, from a context that is known, half known and unknown."""
    generator = np.random.default_rng(0)
    lists = [[0, 1, 2, 0, 1, 3, 0, 1, 2, 2], [1, 1, 0]]
    model = NgramModel.fit(store(lists), order=3)
    for context in ([0, 1], [3, 1], [3, 3], [-1, 2]):
        many = 40_000
        drawn = model.draw(np.tile(context, (many, 1)), 2, generator)
        outcomes = np.array([(a, b) for a in range(VOCAB) for b in range(VOCAB)])
        first = model.probability(np.tile(context, (16, 1)), outcomes[:, 0])
        after = np.stack([np.full(16, context[1]), outcomes[:, 0]], axis=1)
        expected = first * model.probability(after, outcomes[:, 1])
        observed = np.bincount(drawn[:, 0] * VOCAB + drawn[:, 1], minlength=16)
        assert expected.sum() == pytest.approx(1)
        assert stats.chisquare(observed, many * expected).pvalue > 1e-6 / 4
        uniform = np.full(16, many / 16)
        assert stats.chisquare(observed, uniform).pvalue < 1e-6  # it can fail


def frequencies(model):
    return model.probability(np.empty((VOCAB, 0), dtype=np.int64), np.arange(VOCAB))


def test_a_long_text_is_counted_in_part(monkeypatch):
    monkeypatch.setattr(ngram_model, "text_blocks", partial(text_blocks, block=50))
    text = store([[0] * 50 + [1] * 50, [2] * 100])
    got = frequencies(NgramModel.fit(text, order=1, most_tokens=100))
    np.testing.assert_allclose(got, (np.array([50, 0, 50, 0]) + 2 * 0.25) / 102)


def test_each_text_of_a_mixture_has_its_share(monkeypatch):
    monkeypatch.setattr(ngram_model, "text_blocks", partial(text_blocks, block=10))
    texts = {"a": store([[0] * 200]), "b": store([[1] * 200])}
    mixture = TextMixture(texts, (Fraction(3, 4), Fraction(1, 4)))
    got = frequencies(NgramModel.fit(mixture, order=1, most_tokens=80))
    np.testing.assert_allclose(got, (np.array([60, 20, 0, 0]) + 2 * 0.25) / 82)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"order": 0}, "order must be at least 1; got 0"),
        ({"order": 2, "most_tokens": 0}, "most_tokens must be at least 1; got 0"),
        ({"order": 32}, r"vocab_size \*\* order must be below 2\^63; got 4 \*\* 32"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        NgramModel.fit(store([[0, 1]]), **arguments)
