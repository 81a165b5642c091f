"""Tests for store: documents come back token by token, from memory and from files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepared_folders import write_prepared
from token_stores import documents_of, make_store

from calmkit.data import TextTokenizer, TokenStore, read_documents
from calmkit.data import store as store_module
from calmkit.data.sharded_tokens import ShardedTokens


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(read_documents()[:10], vocab_size=300)


@given(documents=st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_documents_are_end_text_end(tokenizer, documents):
    store = TokenStore.from_documents(documents, tokenizer)
    wanted = [[0, *tokenizer.encode(text), 0] for text in documents]
    assert [document.tolist() for document in documents_of(store)] == wanted
    flat = [token for document in wanted for token in document]
    assert store.tokens.tolist() == flat
    assert store.num_documents == len(documents)
    assert store.num_tokens == len(flat)
    assert store.num_characters == sum(map(len, documents))
    wanted = [flat.count(i) / len(flat) for i in range(300)]
    np.testing.assert_allclose(store.token_frequencies(), wanted, rtol=1e-15)


def test_grouping_changes_nothing(tokenizer, monkeypatch):
    documents = read_documents()[:7]
    wanted = TokenStore.from_documents(documents, tokenizer)
    monkeypatch.setattr(store_module, "_BATCH_CHARACTERS", 3000)
    assert len(store_module._groups(documents)) > 1
    got = TokenStore.from_documents(documents, tokenizer)
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    np.testing.assert_array_equal(got.offsets, wanted.offsets)


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


@st.composite
def folders(draw):
    """Documents of both sides, and how many tokens a file has."""
    sizes = st.lists(st.integers(1, 20), min_size=1, max_size=6)
    sides = [
        [np.arange(size) % 256 for size in draw(sizes)],
        [np.arange(size)[::-1] % 256 for size in draw(sizes)],
    ]
    return *sides, draw(st.integers(1, 25)), draw(st.sampled_from([300, 70_000]))


@given(folders(), st.data())
def test_a_prepared_side_reads_as_one_stream(tmp_path_factory, folder, data):
    train, validation, shard_tokens, vocab_size = folder
    where = write_prepared(
        tmp_path_factory.mktemp("prepared"),
        train=train, validation=validation, shard_tokens=shard_tokens, vocab_size=vocab_size,
    )  # fmt: skip
    for side, documents in (("train", train), ("validation", validation)):
        store, stream = TokenStore.open(where, side), np.concatenate(documents)
        assert [d.tolist() for d in documents_of(store)] == [d.tolist() for d in documents]
        assert (store.num_tokens, store.num_documents) == (len(stream), len(documents))
        assert (store.vocab_size, store.end_id) == (vocab_size, 7)
        begin = data.draw(st.integers(0, len(stream)))
        end = data.draw(st.integers(begin, len(stream)))
        got = store.read(begin, end)
        assert got.dtype == (np.uint16 if vocab_size == 300 else np.uint32)
        assert got.tolist() == stream[begin:end].tolist()


def test_files_beyond_the_most_are_mapped_again(tmp_path, monkeypatch):
    monkeypatch.setattr("calmkit.data.sharded_tokens._MOST_MAPPED", 2)
    document = np.arange(40)
    folder = write_prepared(tmp_path, train=[document], validation=[document], shard_tokens=3)
    store = TokenStore.open(folder, "train")
    for _ in range(2):
        assert store.read(0, 40).tolist() == document.tolist()
    assert store.tokens._mapped.cache_info().currsize == 2


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "long"])
@pytest.mark.parametrize("file", ["train-00000.bin", "train-00001.bin", "train-documents.bin"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path, file, damage):
    documents = [np.arange(9), np.arange(4)]
    folder = write_prepared(tmp_path, train=documents, validation=documents, shard_tokens=8)
    path = folder / file
    content = path.read_bytes()
    path.write_bytes(
        {"short": content[:-1], "empty": b"", "long": content + b"00"}.get(damage, b"")
    )
    if damage == "missing":
        path.unlink()
    with pytest.raises(ValueError, match=rf"{file} must have {len(content)} bytes"):
        TokenStore.open(folder, "train")


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be one that calmkit prepare wrote"):
        TokenStore.open(tmp_path, "train")


def test_a_side_without_documents_is_refused(tmp_path):
    folder = write_prepared(tmp_path, train=[np.arange(3)], validation=[], shard_tokens=8)
    TokenStore.open(folder, "train")
    with pytest.raises(ValueError, match="at least one document to measure on; it has none"):
        TokenStore.open(folder, "validation")


def test_files_of_another_size_than_the_manifest_says_are_refused(tmp_path):
    """Shards that are whole, but of a manifest that cuts elsewhere."""
    (tmp_path / "a").write_bytes(bytes(8))
    (tmp_path / "b").write_bytes(bytes(4))
    files = [tmp_path / "a", tmp_path / "b"]
    assert len(ShardedTokens(files, 4, np.dtype("<u2"))) == 6
    with pytest.raises(ValueError, match=r"a must hold 3 tokens of 2 bytes; it has 8 bytes"):
        ShardedTokens(files, 3, np.dtype("<u2"))
    with pytest.raises(ValueError, match=r"a must hold at most 3 tokens of 2 bytes"):
        ShardedTokens(files[:1], 3, np.dtype("<u2"))
    with pytest.raises(ValueError, match="step must be 1; got 2"):
        ShardedTokens(files, 4, np.dtype("<u2"))[::2]


def test_frequencies_of_a_long_text_are_those_of_blocks_all_over_it(monkeypatch):
    monkeypatch.setattr(store_module, "_BLOCK_TOKENS", 4)
    monkeypatch.setattr(store_module, "_MOST_BLOCKS", 3)
    store = make_store([40])  # ids are places
    assert np.flatnonzero(store.token_frequencies()).tolist() == [
        0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27,
    ]  # fmt: skip
    assert store.token_frequencies().sum() == pytest.approx(1.0)
