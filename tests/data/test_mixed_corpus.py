"""Mixtures of prepared folders: one tokenizer, named shares, a digest of all that matters."""

import numpy as np
import pytest
from prepared_folders import write_prepared

from calmkit.data import TextTokenizer, mixed_corpus


@pytest.fixture(scope="module")
def tokenizers():
    texts = (["ab ab ab ab"], ["cd cd cd cd"])
    return [TextTokenizer.train(text, vocab_size=258).to_json() for text in texts]


def prepare(folder, tokenizer, first=1):
    documents = [np.array([0, *range(first, first + 20), 0]), np.array([0, first, 0])]
    return write_prepared(
        folder, train=documents, validation=documents[1:], shard_tokens=7, vocab_size=258,
        end_id=0, tokenizer=tokenizer,
    )  # fmt: skip


def test_texts_stand_side_by_side(tmp_path, tokenizers):
    a, b = prepare(tmp_path / "a", tokenizers[0]), prepare(tmp_path / "b", tokenizers[0], 50)
    corpus = mixed_corpus({"web": (a, 3), "books": (b, 1)})
    assert corpus.name == "web 75 %, books 25 %"
    assert list(corpus.train.stores) == ["web", "books"]
    assert (corpus.train.num_documents, corpus.train.num_tokens) == (4, 50)
    assert [corpus.train.document(i).tolist()[1] for i in range(4)] == [1, 1, 50, 50]
    assert [corpus.validation.document(i).tolist() for i in (0, 1)] == [[0, 1, 0], [0, 50, 0]]
    for index in (-1, 4):
        with pytest.raises(IndexError, match=rf"in \[0, 4\); got {index}"):
            corpus.train.document(index)
    wanted = 0.75 * np.bincount([0, 0, 0, 0, 1, *range(1, 21)], minlength=258) / 25
    wanted += 0.25 * np.bincount([0, 0, 0, 0, 50, *range(50, 70)], minlength=258) / 25
    np.testing.assert_allclose(corpus.train.token_frequencies(), wanted, atol=1e-15)


def test_the_digest_knows_texts_shares_and_their_order(tmp_path, tokenizers):
    a, b = prepare(tmp_path / "a", tokenizers[0]), prepare(tmp_path / "b", tokenizers[0], 50)

    def digest(*texts):
        return mixed_corpus({str(n): text for n, text in enumerate(texts)}).digest

    digests = [digest((a, 3), (b, 1)), digest((b, 3), (a, 1)), digest((a, 1), (b, 1)),
               digest((b, 1), (a, 1)), digest((a, 1))]  # fmt: skip
    assert len(set(digests)) == len(digests)
    assert digest((a, 6), (b, 2)) == digests[0]  # weights count as shares


def test_other_tokenizers_and_unprepared_texts_are_refused(tmp_path, tokenizers):
    a, b = (
        prepare(tmp_path / n, tokenizer) for n, tokenizer in zip("ab", tokenizers, strict=True)
    )
    with pytest.raises(
        ValueError, match=r"one tokenizer; web has a test's .* and books has .* Pre"
    ):
        mixed_corpus({"web": (a, 1), "books": (b, 1)})
    with pytest.raises(
        ValueError, match=r"data\.x\.path must be a folder written by calmkit prep"
    ):
        mixed_corpus({"x": (tmp_path, 1)})
    with pytest.raises(ValueError, match="weight must be a finite number above 0; got 0"):
        mixed_corpus({"web": (a, 0)})
