"""Tests for pieces: a long text in pieces has the ids of the text at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_tokenizers_like import LOSSLESS, TEXT

from calmkit.data import TextTokenizer
from calmkit.text import encode_exactly
from calmkit.text import pieces as pieces_module

DTYPE = np.dtype("<u2")
parts = st.sampled_from([*TEXT, "word ", "\n", "\r\n", "  ", "12345 ", "x_y\n", "don't ", ".\n"])


@pytest.fixture(scope="module", params=[*LOSSLESS, "own"])
def tokenizer(request, tmp_path_factory):
    if request.param == "own":
        return TextTokenizer.train(TEXT * 2, vocab_size=300)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(LOSSLESS[request.param](), encoding="utf-8")
    return TextTokenizer.load(path)


@given(texts=st.lists(st.lists(parts, max_size=60).map("".join), min_size=1, max_size=4))
def test_pieces_give_the_same_ids(tokenizer, texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces_module, "_PIECE", 64)
        patch.setattr(pieces_module, "_AROUND", 16)
        found = encode_exactly(texts, tokenizer.encode_many, DTYPE)
    want = tokenizer.encode_many(texts)
    assert [ids.tolist() for ids in found] == want
    assert all(ids.dtype == DTYPE for ids in found)


def test_no_piece_of_a_long_text_is_long(tokenizer, request):
    if "llama_2" in request.node.callspec.id:
        pytest.skip("puts a space before each text, and so is given it whole")
    longest = 0

    def encode_many(texts):
        nonlocal longest
        longest = max(longest, *map(len, texts))
        return tokenizer.encode_many(texts)

    text = "Some words of a long line\nand another one, " * 8000
    (found,) = encode_exactly([text], encode_many, DTYPE)
    assert found.tolist() == tokenizer.encode(text)
    assert longest <= 2 * pieces_module._PIECE < len(text) / 2


def test_no_text_has_no_ids():
    assert [ids.tolist() for ids in encode_exactly(["", ""], lambda few: [[] for _ in few], DTYPE)
            ] == [[], []]  # fmt: skip
