"""Words and n-grams that occur in the training text, against plain loops over it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_stores import documents_of, make_store

from calmkit.data import TextMixture, TextTokenizer, TokenStore
from calmkit.evaluation import text_blocks, text_overlap
from calmkit.evaluation.text_overlap import distinct_share, known_ngrams, known_words, words_in
from calmkit.orders import shares_of

TEXTS = ["The river's edge, where Anna stood.", "An old house; the OLD river.", "Zoë can't come."]


@pytest.fixture(scope="module")
def trained():
    tokenizer = TextTokenizer.train(TEXTS, vocab_size=262)
    return tokenizer, TokenStore.from_documents(TEXTS, tokenizer)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (
                "The river's edge, x2y: can\u2019t!",
                ["the", "river's", "edge", "x", "y", "can\u2019t"],
            ),
            ("'Zoë' and 14 dogs-", ["zoë", "and", "dogs"]),
            ("  ... 12", []),
        ],
    )
    def test_a_word_is_a_run_of_letters(self, text, words):
        assert words_in(text) == words

    @pytest.mark.parametrize(
        ("text", "inside", "left"),
        [
            ("er and ri", "er and ri", ["and"]),
            (" er and ri.", "", ["er", "and", "ri"]),
            ("ab", "", []),
        ],
    )
    def test_words_that_are_cut_are_left_out(self, text, inside, left):
        assert words_in(text, begins_inside=True, ends_inside=True) == left
        assert len(words_in(text)) >= len(left)

    def test_known_are_those_of_the_training_text(self, trained, monkeypatch):
        tokenizer, store = trained
        asked = {"river's", "old", "zoë", "can't", "edge", "horse", "riv", "stan"}
        found = known_words(store, tokenizer, asked)
        # The first and the last word of a stretch may be cut.
        assert found == {"river's", "old", "zoë", "can't", "edge"}
        assert known_words(TextMixture.of(store), tokenizer, asked) == found


def every_ngram(store, size):
    """A plain loop over the stream, documents and all."""
    stream = np.concatenate(documents_of(store)).tolist()
    return {tuple(stream[i : i + size]) for i in range(len(stream) - size + 1)}


class TestNgrams:
    @given(
        sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
        asked=st.lists(st.lists(st.integers(0, 45), min_size=2, max_size=2), max_size=30),
    )
    def test_known_are_those_of_the_stream(self, sizes, asked):
        store = make_store(sizes)
        some = sorted(every_ngram(store, 2))[:5] + [tuple(x) for x in asked]
        found = known_ngrams(store, np.array(some, dtype=np.int64).reshape(-1, 2))
        assert found.tolist() == [ngram in every_ngram(store, 2) for ngram in some]

    def test_long_ngrams_and_large_ids(self):
        """Far beyond 64 bits as numbers in base V."""
        tokens = np.arange(0, 200_000, 7) % 100_003
        offsets = np.array([0, len(tokens)])
        store = TokenStore(tokens, offsets, vocab_size=128_000, end_id=0, num_characters=1)
        right = np.lib.stride_tricks.sliding_window_view(tokens, 8)[::991].astype(np.int64)
        swapped = right[:, ::-1].copy()
        assert known_ngrams(store, right).all() and not known_ngrams(store, swapped).any()
        shifted = right.copy()
        shifted[:, -1] += 1
        assert not known_ngrams(store, shifted).any()

    def test_every_text_of_a_mixture_counts(self):
        a, b = make_store([5]), make_store([9, 4])
        mixture = TextMixture({"a": a, "b": b}, shares_of([1, 3]))
        for store in (a, b):
            assert known_ngrams(mixture, np.array(sorted(every_ngram(store, 3)))).all()

    def test_blocks_are_spread_over_a_long_text(self):
        store = make_store([40, 40, 40])
        begins = [int(t[0]) for t, _ in text_blocks.text_blocks(store, 30, block=10)]
        whole = [int(t[0]) for t, _ in text_blocks.text_blocks(store, 10**9, block=10)]
        assert begins == whole[:: len(whole) // 3][:3] and len(whole) > 9


class TestDistinct:
    def test_against_counting_by_hand(self):
        rows = [[1, 2, 1, 2], [1, 2, 3]]
        assert distinct_share(rows, 1) == 3 / 7
        assert distinct_share(rows, 2) == 3 / 5  # 12 21 12 | 12 23
        assert distinct_share(rows, 3) == 3 / 3
        assert distinct_share([[1], []], 2) is None


def test_no_ngram_is_no_answer():
    assert known_ngrams(make_store([4]), np.zeros((0, 3), dtype=np.int64)).shape == (0,)
    assert text_overlap.words_in("") == []
