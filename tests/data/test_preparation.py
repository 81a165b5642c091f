"""Tests for preparation: each token once, the same bytes however it ran, and refusals."""

import io
import json
import subprocess
import sys
from pathlib import Path

import killing
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from known_tokenizers_like import LOSSLESS
from text_files import write_jsonl, write_parquet, write_zst

from calmkit.data import Manifest, Preparation, TextTokenizer, prepare_folder
from calmkit.data.output_folder import source_of_stream
from calmkit.disk import WriteError
from calmkit.text import BadInputError, ByHash, EncodingError, content_key, find_sources
from calmkit.text import filling as filling_module

TEXTS = [f"Text {n} says {n % 7} and {'more ' * (n % 5)}so." for n in range(60)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(LOSSLESS["llama_3"](), encoding="utf-8")
    return str(path)


def preparation(*given, **options):
    return Preparation(sources=find_sources(given), **options)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def documents(folder, side):
    """The documents of a side, read by the description of the folder alone."""
    manifest = Manifest.read(folder)
    facts = getattr(manifest, side)
    tokens = np.concatenate(
        [np.fromfile(folder / file.name, manifest.tokenizer.dtype) for file in facts.shards]
    )
    sizes = [file.bytes // manifest.tokenizer.dtype.itemsize for file in facts.shards]
    assert all(size == manifest.shard_tokens for size in sizes[:-1])
    offsets = np.fromfile(folder / facts.offsets.name, "<i8")
    assert (offsets[0], offsets[-1], len(offsets)) == (0, facts.tokens, facts.documents + 1)
    parts = np.split(tokens, offsets[1:-1])
    assert all(part[0] == part[-1] == manifest.tokenizer.end_id for part in parts)
    return [part[1:-1].tolist() for part in parts]


words = st.lists(st.sampled_from(["a", "word", "\n", " 12", "日本", "<|eot_id|>"]), max_size=9)
corpora = st.lists(words.map("".join), min_size=2, max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=corpora, shard_tokens=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_token_of_every_document_once(
    tokenizer, tmp_path_factory, texts, shard_tokens, seed
):
    """Empty documents, one token, longer than a shard, ends at the border of a shard."""
    folder = tmp_path_factory.mktemp("any")
    source = write_jsonl(folder / "a.jsonl", ["first", *texts, "last"])
    asked = preparation(source, tokenizer=tokenizer, shard_tokens=shard_tokens, seed=seed)
    manifest = prepare_folder(asked, folder / "out")
    manifest.check_digests(folder / "out")
    rule = ByHash(seed, manifest.held_out["below"])
    known = TextTokenizer.load(tokenizer)
    for side, facts in (("train", manifest.train), ("validation", manifest.validation)):
        want = [
            text
            for text in ["first", *texts, "last"]
            if text.strip() and rule.side_of(content_key(text)) == side
        ]
        found = documents(folder / "out", side)
        assert found == known.encode_many(want)
        assert [known.decode(ids) for ids in found] == want
        assert facts.characters == sum(map(len, want))
    assert (
        manifest.sources[0].documents == manifest.train.documents + manifest.validation.documents
    )


def test_bytes_do_not_depend_on_the_number_of_processes(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(filling_module, "_BATCH_DOCUMENTS", 3)
    sources = [
        write_jsonl(tmp_path / "a.jsonl", TEXTS[:20]),
        write_zst(tmp_path / "b.jsonl.zst", TEXTS[20:40]),
        write_parquet(tmp_path / "c.parquet", TEXTS[40:]),
    ]
    found = []
    for processes in (0, 1, 2, 5):
        asked = preparation(*sources, tokenizer=tokenizer, shard_tokens=100)
        prepare_folder(asked, tmp_path / str(processes), processes=processes)
        found.append(content(tmp_path / str(processes)))
    assert found[0] == found[1] == found[2] == found[3]
    assert "manifest.json" in found[0] and ".preparing" not in found[0]


@pytest.mark.skipif(not hasattr(subprocess.os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("processes", "every"), [(0, 9), (2, 41)])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path, processes, every):
    (texts := tmp_path / "texts").mkdir()
    write_jsonl(texts / "a.jsonl", TEXTS[:13])
    write_parquet(texts / "b.parquet", TEXTS[13:20])
    write_zst(texts / "c.jsonl.zst", TEXTS[20:])
    prepare_folder(preparation(texts, **killing.OPTIONS), tmp_path / "whole")
    given = [texts, tmp_path / "whole", tmp_path / "work", processes, every]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", killing.__file__, *map(str, given)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60  # so many moments are there


def test_a_whole_folder_is_left_as_it_is(tokenizer, tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    asked = preparation(source, tokenizer=tokenizer)
    first = prepare_folder(asked, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare_folder(asked, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


class Stop(Exception):
    pass


def stopped(asked, folder):
    """Begin, and stop after the first batches."""

    def stop(done, total):
        if done > 0:
            raise Stop

    with pytest.raises(Stop):
        prepare_folder(asked, folder, progress=stop)


CHANGES = {
    "seed": (1, "seed must be as it was when .*out was begun, 0; got 1"),
    "validation_fraction": (0.2, "validation_fraction must be as it was .* 0.1; got 0.2"),
    "shard_tokens": (7, "shard_tokens must be as it was"),
    "text_field": ("id", "text_field must be as it was .*'text'; got 'id'"),
    "tokenizer": ("train:270", "tokenizer must be as it was when .*'; got 'train:270'\\."),
    "end_token": ("<|eot_id|>", "end_token must be as it was|tokenizer must be as it was"),
    "sources": (None, r"sources must be as it was .*a\.jsonl', \d+, '.*; got"),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("option", CHANGES)
def test_other_options_on_a_begun_folder_are_refused(tokenizer, tmp_path, option, whole):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    options = {"tokenizer": tokenizer}
    if whole:
        prepare_folder(preparation(source, **options), tmp_path / "out")
    else:
        stopped(preparation(source, **options), tmp_path / "out")
    before = content(tmp_path / "out")
    value, message = CHANGES[option]
    if option == "sources":
        write_jsonl(source, [*TEXTS, "one more"])
    else:
        options[option] = value
    with pytest.raises(ValueError, match=message):
        prepare_folder(preparation(source, **options), tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_folder_in_which_nothing_was_written_takes_other_options(tmp_path):
    """A text too small for the first choice of a vocabulary is no reason to remove a folder."""
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(ValueError, match="vocab_size must be at most"):
        prepare_folder(preparation(source, tokenizer="train:30000"), tmp_path / "out")
    manifest = prepare_folder(preparation(source, tokenizer="train:257"), tmp_path / "out")
    assert manifest.tokenizer.name == "train:257"
    other = prepare_folder(preparation(source, tokenizer="train:257"), tmp_path / "other")
    assert other == manifest


def test_a_folder_with_other_files_is_refused(tokenizer, tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    with pytest.raises(ValueError, match=r"unfinished folder.*holds a\.jsonl\. Choose another"):
        prepare_folder(preparation(source, tokenizer=tokenizer), tmp_path)
    with pytest.raises(ValueError, match=r"holds a\.jsonl"):
        source_of_stream(io.BytesIO(b""), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_bad_documents_end_it_or_are_counted_and_it_goes_on_from_there(
    tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(filling_module, "_BATCH_DOCUMENTS", 10)
    path = tmp_path / "a.jsonl"
    lines = write_jsonl(path, TEXTS).read_bytes().splitlines(keepends=True)
    lines[30:30], lines[50:50] = [b"{broken\n"], [b'{"text": null}\n']
    path.write_bytes(b"".join(lines))
    asked = preparation(path, tokenizer=tokenizer)
    with pytest.raises(BadInputError, match=r"jsonl:31 is not: .*Or set skip_bad, the number of"):
        prepare_folder(asked, tmp_path / "out")
    noted = json.loads((tmp_path / "out" / ".preparing" / "state.json").read_text())
    assert noted["document"] == 30
    with pytest.raises(BadInputError, match=r"jsonl:51 has .*Or set.*; 1 were before it"):
        prepare_folder(asked, tmp_path / "out", skip_bad=1)
    manifest = prepare_folder(asked, tmp_path / "out", skip_bad=2)
    assert manifest.skipped["count"] == 2
    assert [
        ":31 is not" in manifest.skipped["first"][0],
        ":51 has" in manifest.skipped["first"][1],
    ]
    path.write_bytes(b"".join(line for line in lines if b"more" in line or b"says" in line))
    plain = prepare_folder(preparation(path, tokenizer=tokenizer), tmp_path / "plain")
    assert (plain.train, plain.validation) == (manifest.train, manifest.validation)


def test_a_wrong_field_is_named_even_where_bad_documents_may_be_left_out(tokenizer, tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    asked = preparation(source, tokenizer=tokenizer, text_field="words")
    with pytest.raises(BadInputError, match=r'object with a "words" string; .*:1 has'):
        prepare_folder(asked, tmp_path / "out", skip_bad=100)


def test_a_truncated_file_is_left_out_from_where_it_breaks(tokenizer, tmp_path):
    path = write_zst(tmp_path / "b.jsonl.zst", TEXTS)
    path.write_bytes(path.read_bytes()[:-9])
    write_jsonl(tmp_path / "c.jsonl", TEXTS[:10])
    asked = preparation(path, tmp_path / "c.jsonl", tokenizer=tokenizer)
    with pytest.raises(BadInputError, match=r"must be a whole \.jsonl\.zst file.*before its last"):
        prepare_folder(asked, tmp_path / "out")
    manifest = prepare_folder(asked, tmp_path / "out", skip_bad=1)
    assert 0 < manifest.sources[0].documents < 60 and manifest.sources[1].documents == 10


def test_given_held_out_text(tokenizer, tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    held_out = write_jsonl(tmp_path / "h.jsonl", [f" {TEXTS[3]}\n", "quite another", ""])
    asked = preparation(source, tokenizer=tokenizer, validation=find_sources([held_out]))
    manifest = prepare_folder(asked, tmp_path / "out")
    known = TextTokenizer.load(tokenizer)
    found = [known.decode(ids) for ids in documents(tmp_path / "out", "train")]
    assert found == [text for text in TEXTS if text != TEXTS[3]]
    found = [known.decode(ids) for ids in documents(tmp_path / "out", "validation")]
    assert found == [f" {TEXTS[3]}\n", "quite another"]
    assert manifest.held_out["by"] == "files" and manifest.held_out["copies_left_out"] == 1
    assert manifest.held_out["sources"][0]["documents"] == 2
    assert [source.documents for source in manifest.sources] == [59]
    write_jsonl(held_out, [" "])
    with pytest.raises(ValueError, match="validation must hold some text; its files are empty"):
        prepare_folder(
            preparation(source, tokenizer=tokenizer, validation=find_sources([held_out])),
            tmp_path / "other",
        )


def test_a_learnt_tokenizer_has_not_seen_what_is_held_out(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    manifest = prepare_folder(preparation(source, tokenizer="train:275"), tmp_path / "out")
    rule = ByHash(0, manifest.held_out["below"])
    train = [text for text in TEXTS if rule.side_of(content_key(text)) == "train"]
    want = TextTokenizer.train(train, vocab_size=275).to_json()
    assert (tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8") == want
    assert manifest.tokenizer.name == "train:275"


def test_standard_input_is_kept_until_the_folder_is_whole(tokenizer, tmp_path):
    lines = write_jsonl(tmp_path / "a.jsonl", TEXTS).read_bytes()
    want = prepare_folder(
        preparation(tmp_path / "a.jsonl", tokenizer=tokenizer), tmp_path / "want"
    )
    for _ in range(2):  # the second time it is whole already
        source = source_of_stream(io.BytesIO(lines), tmp_path / "out")
        found = prepare_folder(
            Preparation(sources=[source], tokenizer=tokenizer), tmp_path / "out"
        )
        assert found.digest == want.digest and found.sources[0].name == "standard input"
        assert not (tmp_path / "out" / ".preparing").exists()


def test_key_is_by_content_and_by_whatever_shapes_the_result(tokenizer, tmp_path):
    one = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    other = write_jsonl(tmp_path / "b.jsonl", TEXTS)
    key = preparation(one, tokenizer=tokenizer).key
    assert preparation(other, tokenizer=tokenizer).key == key
    write_jsonl(other, TEXTS[1:])
    others = [preparation(other, tokenizer=tokenizer).key]
    for name, (value, _) in CHANGES.items():
        if name != "sources":
            others.append(preparation(one, **{"tokenizer": tokenizer, name: value}).key)
    assert len({key, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, r"validation_fraction must be in \(0, 1\); got 1.0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"shard_tokens": 0}, "shard_tokens must be at least 1; got 0"),
        ({"tokenizer": "train:many"}, "must be train:SIZE, with a whole number; got 'train:many'"),
        ({"tokenizer": "train:256"}, "vocab_size must be at least 257"),
        ({"end_token": "</s>"}, "end_token must be left out when training a tokenizer"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        Preparation(sources=[], **{"tokenizer": "train:300", **options})


def test_a_full_disk_keeps_what_was_done(tokenizer, tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    asked = preparation(source, tokenizer=tokenizer)
    want = prepare_folder(asked, tmp_path / "want")

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("calmkit.text.shards._flush", full)
        with pytest.raises(
            WriteError, match=r"could not be written: No space.* the next run resumes there"
        ):
            prepare_folder(asked, tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert prepare_folder(asked, tmp_path / "out") == want


def test_a_process_that_dies_is_told(tokenizer, tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    asked = preparation(source, tokenizer=tokenizer)
    program = (
        "import sys; sys.path[:] = {path!r}; import pickle; "
        "pickle.load(sys.stdin.buffer); sys.exit(7)"
    )
    with monkeypatch.context() as patch:
        patch.setattr("calmkit.text.workers._PROGRAM", program)
        with pytest.raises(EncodingError, match=r"ended with code 7; .*finished work is kept"):
            prepare_folder(asked, tmp_path / "out", processes=2)
    prepare_folder(asked, tmp_path / "out", processes=2)


def test_progress_begins_at_what_is_done_and_ends_with_all(tokenizer, tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    told = []
    asked = preparation(source, tokenizer=tokenizer)
    prepare_folder(asked, tmp_path / "out", progress=lambda *progress: told.append(progress))
    total = Path(source).stat().st_size
    assert told[0] == (0, total) and told[-1] == (total, total)
    assert all(done < total for done, _ in told[:-1])
