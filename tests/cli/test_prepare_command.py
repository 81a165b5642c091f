"""`calmkit prepare`, as a user types it."""

import io
import json

import pytest
from text_files import write_jsonl

from calmkit import cli
from calmkit.data import Manifest

TEXTS = [f"Text {n} says {n % 7} and more." for n in range(50)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    write_jsonl(tmp_path / "texts" / "a.jsonl", TEXTS)
    (tmp_path / "b.md").write_text("# another")
    return tmp_path


def prepare(*given):
    return cli.main(["prepare", *given])


def test_it_shows_what_was_made_and_a_second_time_leaves_it(folder, capsys):
    given = ["texts", "*.md", "--tokenizer", "train:270", "--output", "out"]
    for _ in range(2):
        assert prepare(*given) == 0
        out = capsys.readouterr().out
        manifest = Manifest.read(folder / "out")
        assert manifest.train.documents + manifest.validation.documents == 51
        assert [source.name for source in manifest.sources] == ["texts/a.jsonl", "b.md"]
        assert f"train{manifest.train.documents:21,}" in out
        assert "tokenizer train:270: 270 ids, end of text 0" in out
        assert manifest.held_out_in_words in " ".join(out.split())
        assert out.endswith("out/: 6 files\n")
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "manifest.json", "tokenizer.json", "train-00000.bin", "train-documents.bin",
        "validation-00000.bin", "validation-documents.bin",
    ]  # fmt: skip


def test_progress_is_told_with_the_time_it_took(folder, capsys):
    assert prepare("texts", "--tokenizer", "train:270", "--output", "out") == 0
    assert "encoding, MB ...\nencoding, MB: 1/1, done in 0:0" in capsys.readouterr().out


def test_standard_input_and_held_out_files(folder, capsys, monkeypatch):
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    write_jsonl(folder / "held.jsonl", [TEXTS[4]])
    given = ["--tokenizer", "train:270", "--output", "out", "--validation", "held.jsonl,b.md"]
    assert prepare("-", *given) == 0
    manifest = Manifest.read(folder / "out")
    assert (manifest.train.documents, manifest.validation.documents) == (49, 2)
    out = capsys.readouterr().out
    assert "1 training documents were dropped because they are also held out." in out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tokenizer", "train:270", "--output", "out"], "SOURCE must be given before"),
        (["--tokenizer", "train:270", "--output", "out", "texts"], "SOURCE must be given before"),
        (["texts", "--tokenizer", "none", "--output", "out"], "'none' is none of them. Fetch"),
        (["texts", "--output", "out"], "tokenizer"),
        (["texts", "--tokenizer", "train:270", "--output", "texts"], "texts holds a.jsonl"),
        (["no.txt", "--tokenizer", "train:270", "--output", "out"], "'no.txt' is missing"),
        (
            ["texts", "--tokenizer", "train:270", "--output", "out", "--skip_bad", "-1"],
            "skip_bad must be at least 0; got -1",
        ),
        (
            ["texts", "--tokenizer", "train:270", "--output", "out", "--processes", "-1"],
            "processes must be at least 0; got -1",
        ),
        (
            ["texts", "--tokenizer", "train:270", "--output", "out", "--text_field", "words"],
            'object with a "words" string; texts/a.jsonl:1 has',
        ),
    ],
)
def test_mistakes_are_told_in_a_few_lines(folder, capsys, given, said):
    assert prepare(*given) == 2
    error = capsys.readouterr().err
    assert error.startswith("calmkit prepare: ") and said in error
    assert len(error.splitlines()) <= 4


def test_bad_lines_are_listed(folder, capsys):
    with (folder / "texts" / "a.jsonl").open("a") as file:
        file.write("broken\n")
    given = ["texts", "--tokenizer", "train:270", "--output", "out"]
    assert prepare(*given) == 2
    assert "skip_bad" in capsys.readouterr().err
    assert prepare(*given, "--skip_bad", "1") == 0
    out = capsys.readouterr().out
    assert "1 bad documents were skipped:\n  each line of a .jsonl file must be JSON; " in out


def test_of_many_bad_lines_the_first_are_listed(folder, capsys):
    with (folder / "texts" / "a.jsonl").open("a") as file:
        file.write("broken\n" * 23)
    given = ["texts", "--tokenizer", "train:270", "--output", "out", "--skip_bad", "30"]
    assert prepare(*given) == 0
    out = capsys.readouterr().out
    assert "23 bad documents were skipped:\n" in out and "\n  and 3 more\n" in out
    assert out.count("must be JSON") == 20


def test_a_process_that_dies_ends_it_with_code_1(folder, capsys, monkeypatch):
    monkeypatch.setattr("calmkit.text.workers._PROGRAM", "import sys; sys.exit(7) # {path}")
    given = ["texts", "--tokenizer", "train:270", "--output", "out", "--processes", "1"]
    assert prepare(*given) == 1
    assert "ended with code 7" in capsys.readouterr().err
