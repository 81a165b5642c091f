"""Tests for manifest: what is written comes back, and nothing half is taken for whole."""

import dataclasses
import json

import pytest

from calmkit.data import Manifest, is_prepared
from calmkit.data.manifest import FileFacts, SideFacts, SourceFacts, TokenizerFacts
from calmkit.files import file_digest


@pytest.fixture
def made(tmp_path):
    def side(name):
        files = []
        for file in (f"{name}-00000.bin", f"{name}-documents.bin"):
            (tmp_path / file).write_bytes(file.encode())
            files.append(FileFacts(file, len(file), file_digest(tmp_path / file)))
        return SideFacts(documents=1, tokens=2, characters=3, files=tuple(files))

    (tmp_path / "tokenizer.json").write_text("{}")
    manifest = Manifest(
        tokenizer=TokenizerFacts(file_digest(tmp_path / "tokenizer.json"), 300, 5, None, "mine"),
        shard_tokens=100,
        train=side("train"),
        validation=side("validation"),
        sources=(SourceFacts("a.txt", 7, "0" * 64, 2),),
        held_out={"by": "hash", "fraction": 0.1, "seed": 0},
        skipped={"count": 0, "first": []},
        options={"seed": 0},
    )
    manifest.write(tmp_path)
    return tmp_path, manifest


def test_it_comes_back_and_says_what_the_files_are(made):
    folder, manifest = made
    assert is_prepared(folder) and not is_prepared(folder / "nowhere")
    assert Manifest.read(folder) == manifest
    manifest.check_digests(folder)
    content = json.loads((folder / "manifest.json").read_text())
    assert content["format"] == 1 and content["digest"] == manifest.digest
    assert content["sides"]["train"]["files"][0]["name"] == "train-00000.bin"
    assert [file.name for file in manifest.train.shards] == ["train-00000.bin"]
    assert manifest.validation.offsets.name == "validation-documents.bin"


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, "<u2"), (2**16 + 1, "<u4")])
def test_ids_take_two_bytes_while_the_vocabulary_allows(vocab_size, dtype):
    assert TokenizerFacts("", vocab_size, 0, None, "").dtype == dtype


def test_digest_is_of_the_content_and_not_of_names(made):
    _, manifest = made

    def changed(**changes):
        return dataclasses.replace(manifest, **changes).digest

    renamed = dataclasses.replace(manifest.tokenizer, name="yours")
    assert changed(tokenizer=renamed, sources=(), held_out={}, options={}) == manifest.digest
    other_end = dataclasses.replace(manifest.tokenizer, end_id=6)
    more = dataclasses.replace(manifest.train, documents=2)
    assert manifest.digest not in (
        changed(tokenizer=other_end), changed(train=more), changed(validation=more)
    )  # fmt: skip


def rewrite(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("held_out", "asked", "said"),
    [
        (
            32,
            0.1,
            "held out: 32.0% of the tokens, 3 of 10 documents. validation_fraction = 0.1 holds",
        ),
        (11, 0.1, "held out: 11.0% of the tokens, 3 of 10 documents."),
        (13, 0.1, "long one among them, make the share of the tokens differ."),
        (32, None, "held out: 32.0% of the tokens, 3 of 10 documents."),
    ],
)
def test_the_share_held_out_is_told_and_explained(made, held_out, asked, said):
    """Held out by files, no share was asked for."""
    _, manifest = made
    rule = {"by": "files"} if asked is None else {"by": "hash", "fraction": asked}
    told = dataclasses.replace(
        manifest,
        train=dataclasses.replace(manifest.train, documents=7, tokens=100 - held_out),
        validation=dataclasses.replace(manifest.validation, documents=3, tokens=held_out),
        held_out=rule,
    ).held_out_in_words
    assert said in told and (told == said or held_out > 11)


def test_another_format_is_refused_by_name(made):
    folder, _ = made
    rewrite(folder, format=2, calmkit="9.9")
    with pytest.raises(ValueError, match=r"must be of format 1; it is of 2, of calmkit 9\.9"):
        Manifest.read(folder)


def test_damage_is_named(made):
    folder, manifest = made
    rewrite(folder, shard_tokens=99)
    with pytest.raises(ValueError, match="is damaged: its digest does not fit"):
        Manifest.read(folder)
    manifest.write(folder)
    file = folder / "train-00000.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"train-00000\.bin must have 15 bytes.*it has 14"):
        Manifest.read(folder)
    file.write_bytes(content[:-1] + b"?")
    with pytest.raises(ValueError, match=r"train-00000\.bin is not the file that was written"):
        Manifest.read(folder).check_digests(folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"train-00000\.bin must have 15 bytes.*it is missing"):
        Manifest.read(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "null", "\udcff"])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"one that calmkit prepare wrote; .*cannot be read"):
        Manifest.read(tmp_path)
