"""Pairs from a file: what is wrong is named by file and line, and no prompt is on both sides."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.data import TextPair, TextTokenizer, encode_pairs, read_pairs, split_pairs

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
    assert read_pairs(str(path)) == [
        TextPair("", "täxt\u2028", f"{path}:1"), TextPair("p", "r", f"{path}:3")
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
        read_pairs(path)


def test_bad_files_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.jsonl"):
        with pytest.raises(ValueError, match=r"finetune must be an existing \.jsonl file; got '"):
            read_pairs(path)
    (tmp_path / "p.jsonl").write_bytes(b"ok \xff")
    with pytest.raises(ValueError, match=r"finetune must be UTF-8; '.*' is not, at byte 3"):
        read_pairs(tmp_path / "p.jsonl")


prompts = st.lists(st.integers(0, 8), min_size=2, max_size=40).filter(lambda x: len(set(x)) > 1)


def numbered(prompts):
    return [TextPair(str(prompt), "r", str(place)) for place, prompt in enumerate(prompts)]


@given(prompts, st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_prompt_is_on_one_side_with_all_its_responses(prompts, fraction, seed):
    pairs = numbered(prompts)
    train, held_out = split_pairs(pairs, validation_fraction=fraction, seed=seed)
    assert sorted(train + held_out, key=lambda pair: int(pair.place)) == pairs
    for side in (train, held_out):
        assert [int(pair.place) for pair in side] == sorted(int(pair.place) for pair in side)
    sides = [{pair.prompt for pair in side} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    wanted = fraction * len(set(prompts))
    assert len(sides[1]) == min(max(1, round(wanted)), len(set(prompts)) - 1)
    assert (train, held_out) == split_pairs(pairs, validation_fraction=fraction, seed=seed)


def test_prompts_that_differ_in_white_space_stay_together():
    forms = ["Which {} barks?", "Which {} barks?\n", " Which\t{}  barks? "]
    pairs = [TextPair(forms[place % 3].format(place // 3), "r", str(place)) for place in range(60)]
    for seed in range(5):
        train, held_out = split_pairs(pairs, validation_fraction=0.3, seed=seed)
        sides = [{" ".join(pair.prompt.split()) for pair in side} for side in (train, held_out)]
        assert not sides[0] & sides[1] and len(held_out) == 3 * len(sides[1]) == 18
    with pytest.raises(ValueError, match=r"at least 2 different prompts, .*; got 1"):
        split_pairs(pairs[:3], validation_fraction=0.5, seed=0)


def test_each_prompt_is_held_out_equally_often():
    """Five prompts, one held out, 500 seeds: 6 standard deviations around 100."""
    pairs = numbered(range(5))
    counts = np.zeros(5)
    for seed in range(500):
        ((held_out,),) = [split_pairs(pairs, validation_fraction=0.2, seed=seed)[1:]]
        counts[int(held_out[0].prompt)] += 1
    assert (abs(counts - 100) < 6 * (500 * 0.2 * 0.8) ** 0.5).all()


def test_split_refuses():
    with pytest.raises(ValueError, match=r"at least 2 different prompts, .*; got 1"):
        split_pairs(numbered([3, 3, 3]), validation_fraction=0.5, seed=0)
    for fraction in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"validation_fraction must be in \(0, 1\); got"):
            split_pairs(numbered([1, 2]), validation_fraction=fraction, seed=0)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        split_pairs(numbered([1, 2]), validation_fraction=0.5, seed=-1)


def test_tokens_are_those_that_the_model_is_used_with():
    """The prompt as `calmkit generate` begins; no token straddles the border."""
    tokenizer = TextTokenizer.train(["ab ab ab ab"], vocab_size=258)
    assert len(tokenizer.encode("ab")) == 1
    pairs = [TextPair("xa", "b<|end|>", "here:1"), TextPair("", "ab", "here:2")]
    first, second = encode_pairs(pairs, tokenizer)
    assert first.prompt.tolist() == [tokenizer.end_id, *tokenizer.encode("xa")]
    assert tokenizer.decode(first.response.tolist()) == "b<|end|>"
    assert tokenizer.end_id not in first.response
    assert second.prompt.tolist() == [tokenizer.end_id]
    assert second.response.tolist() == tokenizer.encode("ab")
    assert (first.place, second.place) == ("here:1", "here:2")
