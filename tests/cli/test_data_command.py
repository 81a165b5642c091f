"""`calmkit data`: what it tells is counted by hand here."""

import numpy as np
import pytest
from prepared_folders import write_prepared

from calmkit import cli
from calmkit.data import TextTokenizer
from calmkit.data.inspecting import inspect_folder

TEXTS = ["abc abc.\n" * 4, "é", "abc\nabc " * 9, "abc abc " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = TextTokenizer.train(["abc abc abc"] * 3, vocab_size=259)
    ids = [np.array([0, *tokenizer.encode(text), 0]) for text in TEXTS]
    return write_prepared(
        tmp_path_factory.mktemp("data") / "text",
        train=ids, validation=ids[:1], shard_tokens=16, vocab_size=259, end_id=0,
        tokenizer=tokenizer.to_json(),
    )  # fmt: skip


def lengths():
    tokenizer = TextTokenizer.train(["abc abc abc"] * 3, vocab_size=259)
    return sorted(2 + len(tokenizer.encode(text)) for text in TEXTS)


def test_numbers_are_those_of_the_folder(folder):
    content = inspect_folder(folder, chunk_size=2, positions=8, windows=5, seed=0)
    train = content.sides["train"]
    assert train.lengths.tolist() == lengths()
    assert (train.documents, train.tokens) == (4, sum(lengths()))
    assert content.unknown is None
    assert content.broken == pytest.approx(2 / sum(lengths()))  # the two bytes of é
    assert content.fill[1] == 1.0  # a grid of single tokens needs no padding
    assert 0.5 < content.fill[16] < content.fill[2] < 1.0
    assert (content.positions, len(content.windows)) == (8, 5)
    shown = "\n".join(content.windows)
    assert "||" in shown and "<end>" in shown and "\\n" in shown and "abc" in shown


def test_windows_are_shown_chunk_by_chunk(folder):
    (window,) = inspect_folder(folder, chunk_size=4, positions=3, windows=1, seed=1).windows
    assert window.replace("||", "|").count("|") >= 2
    pieces = [piece for piece in window.split("|") if piece]
    assert 1 <= len(pieces) <= 3


def test_it_prints_and_draws(folder, tmp_path, capsys):
    picture = tmp_path / "new" / "p.png"
    assert cli.main(["data", str(folder), "--output", str(picture), "--verify"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("every file is as it was written\n")
    assert f"train{4:21,}{sum(lengths()):18,}" in out
    assert "tokenizer a test's: 259 ids, end of text 0" in out
    least, median, most = lengths()[0], lengths()[2], lengths()[-1]
    _, line = [words for words in map(str.split, out.splitlines()) if words[:1] == ["train"]]
    found = [int(number) for number in line[1:]]
    assert (found[0], found[3], found[-1]) in ((least, median, most), (least, lengths()[1], most))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_changed_file_is_found_on_demand_alone(folder, tmp_path, capsys):
    path = folder / "train-00001.bin"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-2] + b"\x01\x00")
        assert cli.main(["data", str(folder)]) == 0
        assert cli.main(["data", str(folder), "--verify"]) == 2
        assert "train-00001.bin is not the file that was written" in capsys.readouterr().err
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "DIR must be one prepared folder before the options; got 0"),
        (["a", "b"], "got 2: calmkit data DIR"),
        (["nowhere"], "must be one that calmkit prepare wrote"),
        (["nowhere", "--output", "p.jpg"], "output must be a .png file; got p.jpg"),
    ],
)
def test_mistakes_are_told(options, message, capsys):
    assert cli.main(["data", *options]) == 2
    assert message in capsys.readouterr().err
