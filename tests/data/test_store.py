"""Tests for store: documents come back token by token, from memory and from files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.data import TextTokenizer, TokenStore, read_documents
from calmkit.data import store as store_module


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(read_documents()[:10], vocab_size=300)


@given(documents=st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_documents_are_end_text_end(tokenizer, documents):
    store = TokenStore.from_documents(documents, tokenizer)
    wanted = [[0, *tokenizer.encode(text), 0] for text in documents]
    assert [document.tolist() for document in store.documents] == wanted
    flat = [token for document in wanted for token in document]
    assert store.tokens.tolist() == flat
    assert store.num_documents == len(documents)
    assert store.num_tokens == len(flat)
    assert store.num_characters == sum(map(len, documents))
    assert store.token_counts().tolist() == [flat.count(i) for i in range(300)]


def test_grouping_changes_nothing(tokenizer, monkeypatch):
    documents = read_documents()[:7]
    wanted = TokenStore.from_documents(documents, tokenizer)
    monkeypatch.setattr(store_module, "_BATCH_CHARACTERS", 3000)
    assert len(store_module._groups(documents)) > 1
    got = TokenStore.from_documents(documents, tokenizer)
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    np.testing.assert_array_equal(got.offsets, wanted.offsets)


@pytest.mark.parametrize(("vocab_size", "width"), [(65536, 2), (65537, 4)])
def test_save_and_load_keep_every_id(tmp_path, vocab_size, width):
    tokens = np.array([0, vocab_size - 1, 0, 0, 7, 0])
    store = TokenStore(tokens, np.array([0, 3, 6]), vocab_size, 0, num_characters=2)
    store.save(tmp_path / "store")
    loaded = TokenStore.load(tmp_path / "store")
    assert (tmp_path / "store" / "tokens.bin").stat().st_size == width * 6
    assert isinstance(loaded.tokens, np.memmap)
    assert not loaded.tokens.flags.writeable
    np.testing.assert_array_equal(loaded.tokens, store.tokens)
    np.testing.assert_array_equal(loaded.offsets, store.offsets)
    assert (loaded.vocab_size, loaded.end_id, loaded.num_characters) == (vocab_size, 0, 2)


@pytest.mark.parametrize("file", ["tokens.bin", "offsets.bin", "store.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "empty"])
def test_load_refuses_damaged_files(tmp_path, tokenizer, file, damage):
    folder = tmp_path / "store"
    TokenStore.from_documents(["some", "text"], tokenizer).save(folder)
    path = folder / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -8 if damage == "short" else 0])
    with pytest.raises(ValueError, match=r"written by TokenStore\.save; '.*store' cannot be read"):
        TokenStore.load(folder)


def test_load_refuses_unknown_facts(tmp_path, tokenizer):
    folder = tmp_path / "store"
    TokenStore.from_documents(["text"], tokenizer).save(folder)
    (folder / "store.json").write_text(json.dumps({"vocab_size": 300, "x": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read"):
        TokenStore.load(folder)


def test_wrong_documents_are_refused(tokenizer):
    with pytest.raises(ValueError, match="at least one text; got none"):
        TokenStore.from_documents([], tokenizer)
    with pytest.raises(ValueError, match="offsets must go from 0 to the 4 tokens"):
        TokenStore(np.zeros(4, dtype=int), np.array([0, 3]), 10, 0, 0)
    with pytest.raises(ValueError, match="no document may be empty"):
        TokenStore(np.zeros(4, dtype=int), np.array([0, 2, 2, 4]), 10, 0, 0)
    store = TokenStore.from_documents(["a"], tokenizer)
    for index in (-1, 1):
        with pytest.raises(IndexError, match=rf"in \[0, 1\); got {index}"):
            store.document(index)
