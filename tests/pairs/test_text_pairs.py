"""Pairs from a file: what is wrong is named by file and line, and no prompt is on both sides."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.data import TextTokenizer
from calmkit.pairs import PairStore, TextPair, TokenPair, encode_pairs, read_pairs
from calmkit.text import content_key

GOOD = '{"prompt": "a", "response": "b"}\n'


def write(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


def test_pairs_are_read_in_order_with_their_places(tmp_path):
    text = (
        '{"prompt": "", "response": "täxt\u2028", "more": 1}\n\n{"response": "r", "prompt": "p"}'
    )
    path = tmp_path / "p.jsonl"
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert list(read_pairs(str(path))) == [
        TextPair("", "täxt\u2028", str(path), 1), TextPair("p", "r", str(path), 3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"prompt": "a"}', r'a "response" string; .*p\.jsonl:2 has \[\'prompt\'\]\.'),
        ('{"response": "a"}', r'a "prompt" string; .*p\.jsonl:1 has \[\'response\'\]\.'),
        (
            GOOD + '\n{"prompt": ["a"], "response": "b"}',
            r'"prompt" string; .*:3 has \[\'prompt\', \'response\'\], with a list there',
        ),
        ('{"prompt": "a", "response": 3}', r'"response" string; .*:1 has .*, with a int there'),
        ('["a", "b"]', r"p\.jsonl:1 has list\."),
        (GOOD + "{", r"must be JSON; .*p\.jsonl:2 is not: .* at column 2"),
        (GOOD + '{"prompt": "a", "response": ""}', r'"response" must hold some .*:2 has none'),
        (GOOD + '{"prompt": "a", "response": " \\n"}', r"jsonl:2 has none"),
        ('{"prompt": "\\ud800", "response": "b"}', r'"prompt" must be valid Unicode; .*:1 has'),
        (GOOD, r"at least 2 pairs, one to train on .*p\.jsonl' holds 1"),
        ("", r"holds 0"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, message):
    path = tmp_path / "p.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        list(read_pairs(path))


def test_bad_files_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.jsonl"):
        with pytest.raises(ValueError, match=r"finetune must be an existing \.jsonl file; got '"):
            list(read_pairs(path))
    (tmp_path / "p.jsonl").write_bytes(b"ok \xff")
    with pytest.raises(ValueError, match=r"finetune must be UTF-8; '.*' is not, at byte 3"):
        list(read_pairs(tmp_path / "p.jsonl"))


prompts = st.lists(st.integers(0, 8), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1)


def stored(prompts):
    """A pair for each prompt, a text; the line is its place from 0 on."""
    return PairStore.of(
        TokenPair(np.zeros(1), np.ones(1), "p", line, int.from_bytes(content_key(text)[:8], "big"))
        for line, text in enumerate(prompts)
    )


def numbers(store):
    return [store[index].line for index in range(len(store))]


@given(prompts, st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_prompt_is_on_one_side_with_all_its_responses(prompts, fraction, seed):
    store = stored(map(str, prompts))
    sides = [numbers(x) for x in store.split(validation_fraction=fraction, seed=seed)]
    assert sorted(sides[0] + sides[1]) == list(range(len(prompts)))
    assert all(side == sorted(side) for side in sides)
    train, held_out = ({prompts[line] for line in side} for side in sides)
    assert not train & held_out
    wanted = fraction * len(set(prompts))
    assert len(held_out) == min(max(1, round(wanted)), len(set(prompts)) - 1)
    again = [numbers(x) for x in store.split(validation_fraction=fraction, seed=seed)]
    assert again == sides


def test_prompts_that_differ_in_white_space_stay_together():
    forms = ["Which {} barks?", "Which {} barks?\n", " Which\t{}  barks? "]
    texts = [forms[place % 3].format(place // 3) for place in range(60)]
    for seed in range(5):
        sides = [numbers(x) for x in stored(texts).split(validation_fraction=0.3, seed=seed)]
        train, held_out = ({line // 3 for line in side} for side in sides)
        assert not train & held_out and len(sides[1]) == 3 * len(held_out) == 18
    with pytest.raises(ValueError, match=r"at least 2 different prompts, .*; got 1"):
        stored(texts[:3]).split(validation_fraction=0.5, seed=0)


def test_encoding_hashes_a_prompt_without_its_white_space():
    tokenizer = TextTokenizer.train(["ab ab ab ab"], vocab_size=258)
    texts = ["Which one?", " Which\none? ", "Which other?"]
    store = encode_pairs([TextPair(text, "r") for text in texts], tokenizer)
    first, again, other = (store[index].prompt_hash for index in range(3))
    assert first == again != other


def test_each_prompt_is_held_out_equally_often():
    """Five prompts, one held out, 500 seeds: 6 standard deviations around 100."""
    store = stored("abcde")
    counts = np.zeros(5)
    for seed in range(500):
        _, held_out = store.split(validation_fraction=0.2, seed=seed)
        counts[numbers(held_out)] += 1
    assert counts.sum() == 500
    assert (abs(counts - 100) < 6 * (500 * 0.2 * 0.8) ** 0.5).all()


def test_split_refuses():
    for fraction in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"validation_fraction must be in \(0, 1\); got"):
            stored("ab").split(validation_fraction=fraction, seed=0)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        stored("ab").split(validation_fraction=0.5, seed=-1)


def test_without_pairs_there_is_no_store():
    with pytest.raises(ValueError, match="pairs must hold at least one pair; got none"):
        PairStore.of([])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9))
def test_a_store_gives_back_every_pair(sizes):
    pairs = [
        TokenPair(np.arange(p) + 70_000 * n, np.arange(r), "file", n, 2**63 + n)
        for n, (p, r) in enumerate(sizes, 1)
    ]
    store = PairStore.of(iter(pairs))
    assert len(store) == len(pairs)
    for index, pair in enumerate(pairs):
        got = store[index]
        assert got.prompt.tolist() == pair.prompt.tolist()
        assert got.response.tolist() == pair.response.tolist()
        assert (got.place, got.prompt_hash) == (f"file:{index + 1}", pair.prompt_hash)
    assert [tuple(pair) for pair in np.array(store.sizes()).T.tolist()] == sizes


def test_pairs_are_read_and_encoded_some_at_a_time(tmp_path):
    """Memory for 20,000 pairs is their numbers, not their 8 MB of text."""
    path, tokenizer = tmp_path / "p.jsonl", TextTokenizer.train(["ab " * 9], vocab_size=258)
    with path.open("w") as file:
        for line in range(20_000):
            file.write(json.dumps({"prompt": f"{line}" + "a" * 200, "response": "b" * 200}) + "\n")
    tracemalloc.start()
    try:
        store = encode_pairs(read_pairs(path), tokenizer)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == 20_000
    assert held < 1_500_000
    assert peak < 12_000_000 < store.tokens.nbytes


def test_tokens_are_those_that_the_model_is_used_with():
    """The prompt as `calmkit generate` begins; no token straddles the border."""
    tokenizer = TextTokenizer.train(["ab ab ab ab"], vocab_size=258)
    assert len(tokenizer.encode("ab")) == 1
    pairs = [TextPair("xa", "b<|end|>", "here", 1), TextPair("", "ab", "here", 2)]
    store = encode_pairs(pairs, tokenizer)
    first, second = store[0], store[1]
    assert first.prompt.tolist() == [tokenizer.end_id, *tokenizer.encode("xa")]
    assert tokenizer.decode(first.response.tolist()) == "b<|end|>"
    assert tokenizer.end_id not in first.response
    assert second.prompt.tolist() == [tokenizer.end_id]
    assert second.response.tolist() == tokenizer.encode("ab")
    assert (first.place, second.place) == ("here:1", "here:2")
