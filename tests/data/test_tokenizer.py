"""Tests for tokenizer: lossless on any text, deterministic, the end token never from text."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.data import TextTokenizer, read_documents
from calmkit.data.tokenizer import END_TOKEN

DOCUMENTS = read_documents()[:20]


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(DOCUMENTS, vocab_size=400)


texts = st.one_of(
    st.text(),
    st.lists(st.sampled_from([END_TOKEN, "<|", "end", "|>", " ", "a", "\n", "\r\n", "é"])).map(
        "".join
    ),
)


@given(text=texts)
def test_any_text_comes_back_and_holds_no_end_token(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(0 < token < 400 for token in tokens)


def test_training_on_the_letters_of_the_end_token_does_not_merge_them_into_it():
    tokenizer = TextTokenizer.train([END_TOKEN * 50, "some words " * 50], vocab_size=262)
    tokens = tokenizer.encode(END_TOKEN * 3)
    assert 0 not in tokens
    assert tokenizer.decode(tokens) == END_TOKEN * 3


def test_every_byte_has_a_token(tokenizer):
    every_character = "".join(map(chr, [*range(0xD800), 0x10FFFF]))
    assert tokenizer.decode(tokenizer.encode(every_character)) == every_character


def test_merges_are_learnt(tokenizer):
    text = DOCUMENTS[0]
    assert len(tokenizer.encode(text)) < 0.7 * len(text.encode())
    assert (tokenizer.vocab_size, tokenizer.end_id) == (400, 0)


@given(many=st.lists(st.text(max_size=20), max_size=5))
def test_encode_many_is_encode_of_each(tokenizer, many):
    assert tokenizer.encode_many(many) == [tokenizer.encode(text) for text in many]


def test_decode_leaves_out_end_tokens_and_marks_half_characters(tokenizer):
    assert tokenizer.decode([0, *tokenizer.encode("hello"), 0]) == "hello"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(tokenizer.encode("\U0001f600")[:1]) == "\ufffd"


def test_training_and_saving_are_deterministic(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a.json")
    TextTokenizer.train(DOCUMENTS, vocab_size=400).save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@given(text=texts)
def test_load_gives_the_same_tokenizer(tokenizer, tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "tokenizer.json"
    tokenizer.save(path)
    loaded = TextTokenizer.load(path)
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.vocab_size == tokenizer.vocab_size


def test_vocab_size_out_of_reach_states_what_can_be_learnt():
    with pytest.raises(ValueError, match="at least 257, the end token and 256 bytes; got 256"):
        TextTokenizer.train(DOCUMENTS, vocab_size=256)
    with pytest.raises(ValueError, match=r"at most 258, all .* from this text; got 5000"):
        TextTokenizer.train(["ab ab"], vocab_size=5000)
    assert TextTokenizer.train(["ab ab"], vocab_size=258).vocab_size == 258


@pytest.mark.parametrize("token", [-1, 400])
def test_decode_refuses_ids_out_of_range(tokenizer, token):
    with pytest.raises(ValueError, match=rf"in \[0, vocab_size = 400\); got {token}"):
        tokenizer.decode([5, token])


def test_load_refuses_other_files(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        TextTokenizer.load(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"written by TextTokenizer\.save"):
        TextTokenizer.load(tmp_path / "bad.json")
    from tokenizers import Tokenizer, models

    other = tmp_path / "other.json"
    other.write_text(Tokenizer(models.BPE()).to_str(), encoding="utf-8")
    with pytest.raises(ValueError, match=r"'<\|end\|>' the id 0; got None"):
        TextTokenizer.load(other)


def test_the_library_is_imported_only_when_it_is_needed():
    program = "import sys, calmkit.data; sys.exit('tokenizers' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
