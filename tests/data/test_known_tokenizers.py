"""Tests for known_tokenizers: found by file, folder or repository, with their own end token."""

import json

import pytest
from known_tokenizers_like import like_gpt_2, like_llama_3

from calmkit.data import find_tokenizer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.json").write_text(like_llama_3(), encoding="utf-8")
    return tmp_path


def end_of(tokenizer):
    return tokenizer._tokenizer.id_to_token(tokenizer.end_id)


def test_a_file_and_a_folder(folder):
    for given in (folder, folder / "tokenizer.json"):
        assert end_of(find_tokenizer(str(given))) == "<|end_of_text|>"


EOT = {"content": "<|eot_id|>", "lstrip": False}


@pytest.mark.parametrize(
    ("files", "end"),
    [
        ({"tokenizer_config.json": {"eos_token": "<|eot_id|>"}}, "<|eot_id|>"),
        ({"special_tokens_map.json": {"eos_token": EOT}}, "<|eot_id|>"),
        ({"tokenizer_config.json": {"eos_token": None}}, "<|end_of_text|>"),
        ({"generation_config.json": {"eos_token_id": "EOT"}}, "<|eot_id|>"),
        ({"config.json": {"eos_token_id": ["EOT", 3]}}, "<|eot_id|>"),
        ({"config.json": {"eos_token_id": []}}, "<|end_of_text|>"),
        (
            {
                "tokenizer_config.json": {"eos_token": "<|begin_of_text|>"},
                "config.json": {"eos_token_id": "EOT"},
            },
            "<|begin_of_text|>",
        ),
    ],
)
def test_files_beside_it_say_what_ends_a_text(folder, files, end):
    plain = find_tokenizer(str(folder))._tokenizer
    number = str(plain.token_to_id("<|eot_id|>"))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content).replace('"EOT"', number))
    assert end_of(find_tokenizer(str(folder))) == end
    assert end_of(find_tokenizer(str(folder), end_token="<tool>")) == "<tool>"


def test_padding_too(folder):
    (folder / "tokenizer_config.json").write_text('{"pad_token": "<|begin_of_text|>"}')
    found = find_tokenizer(str(folder))
    assert found.padding_id == found._tokenizer.token_to_id("<|begin_of_text|>")


def test_a_damaged_file_beside_it_is_named(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json cannot be read: it is not JSON"):
        find_tokenizer(str(folder))


def test_an_end_that_the_tokenizer_lacks_is_named(folder):
    with pytest.raises(ValueError, match="must have the end token '</s>'; it has not"):
        find_tokenizer(str(folder), end_token="</s>")


def test_a_repository_in_the_local_cache(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    (snapshot / "tokenizer.json").write_text(like_gpt_2(), encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert end_of(find_tokenizer("some/model")) == "<|endoftext|>"
    for absent in ("some/other", "no name", "/nowhere/tokenizer.json"):
        with pytest.raises(ValueError, match=f"repository in the local cache.*'{absent}' is none"):
            find_tokenizer(absent)
