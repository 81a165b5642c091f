"""Tests for tokenizer: lossless on any text, deterministic, the end token never from text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_tokenizers_like import LOSSLESS, TEXT, with_end_among_its_words

from calmkit.data import TextTokenizer, read_documents
from calmkit.text.tokenizer import END_TOKEN

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
    with pytest.raises(ValueError, match=r"a tokenizer\.json; .*bad\.json' cannot be read"):
        TextTokenizer.load(tmp_path / "bad.json")
    from tokenizers import Tokenizer, models

    other = tmp_path / "other.json"
    other.write_text(Tokenizer(models.BPE()).to_str(), encoding="utf-8")
    with pytest.raises(ValueError, match=r"one of the names <\|end_of_text\|>, .*it has none"):
        TextTokenizer.load(other)
    with pytest.raises(ValueError, match="must have the end token 'stop'; it has not"):
        TextTokenizer.load(other, end="stop")


ENDS = {"gpt_2": "<|endoftext|>", "llama_3": "<|end_of_text|>", "llama_2": "</s>"}
OTHERS = {"<|endoftext|>": "<|separator|>", "<|end_of_text|>": "<|eot_id|>", "</s>": "<s>"}


@pytest.fixture(scope="module", params=LOSSLESS)
def like(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("like") / "tokenizer.json"
    path.write_text(LOSSLESS[request.param](), encoding="utf-8")
    return path, TextTokenizer.load(path), ENDS[request.param]


spelled = st.sampled_from([*ENDS.values(), "<tool>", "<s>", "<0x0A>", " ", "word", "\n", "é"])


@given(text=st.one_of(st.text(), st.lists(spelled).map("".join)))
def test_any_text_comes_back_from_tokenizers_of_other_models(like, text):
    """And what spells a special token is text, of no special token."""
    _, tokenizer, end = like
    tokens = tokenizer.encode(text)
    # That of Llama 2 means the same by its sign for a space and by a space.
    assert tokenizer.decode(tokens) == (text.replace("▁", " ") if end == "</s>" else text)
    assert tokenizer.end_id not in tokens


def test_ids_are_those_of_the_library_and_none_is_cut_or_padded(like):
    from tokenizers import Tokenizer

    path, tokenizer, end = like
    plain = Tokenizer.from_file(str(path))
    plain.no_truncation()
    plain.no_padding()
    text = " ".join(TEXT)
    assert tokenizer.encode(text) == plain.encode(text, add_special_tokens=False).ids
    assert tokenizer.end_id == plain.token_to_id(end)
    assert tokenizer.vocab_size == max(plain.get_vocab().values()) + 1
    assert tokenizer.decode([tokenizer.end_id]) == ""


def test_padding_is_what_the_tokenizer_pads_with(like):
    _, tokenizer, end = like
    padding = tokenizer.padding_id
    assert padding == (tokenizer.end_id + 1 if end == "<|end_of_text|>" else None)


def test_the_end_token_that_was_chosen_is_saved(like, tmp_path):
    path, tokenizer, end = like
    chosen = TextTokenizer.load(path, end=OTHERS[end])
    assert chosen.end_id != tokenizer.end_id
    chosen.save(tmp_path / "tokenizer.json")
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert again.end_id == chosen.end_id
    assert again.encode(" ".join(TEXT)) == chosen.encode(" ".join(TEXT))
    assert chosen.end_id not in chosen.encode(OTHERS[end])


def test_a_model_with_its_end_among_its_words_never_gives_it(tmp_path):
    (tmp_path / "tokenizer.json").write_text(with_end_among_its_words(), encoding="utf-8")
    tokenizer = TextTokenizer.load(tmp_path / "tokenizer.json")
    for text in ("ab</s>c", "</s>", "</s></s>a", "abc"):
        assert tokenizer.end_id not in tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_chance_is_taken_out_of_the_encoding(tmp_path):
    from tokenizers import Tokenizer

    wild = Tokenizer.from_str(LOSSLESS["gpt_2"]())
    wild.model.dropout = 0.5
    wild.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert len({tuple(tokenizer.encode(TEXT[0])) for _ in range(20)}) == 1
