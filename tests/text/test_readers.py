"""Tests for readers: every format gives the same documents; what is wrong has its place."""

import gzip

import pytest
from text_files import (
    lines_of,
    write_dataset,
    write_gz,
    write_jsonl,
    write_parquet,
    write_zst,
)

from calmkit.text import BadInputError, DocumentStream, RawDocument, find_sources, text_of
from calmkit.text import readers as readers_module

TEXTS = ["one", "", "two\r\nlines", "日本 \U0001f600", " \n", "a\u2028b\x85c", "x" * 3000, "end"]


def texts(path, field="text"):
    return list(DocumentStream.of_sources(find_sources([path]), field).texts())


def all_of(path, field="text"):
    stream = DocumentStream(find_sources([path]), field, is_single=False)
    return [raw for _, raw in stream.raw()]


WRITERS = {
    "a.jsonl": write_jsonl,
    "a.jsonl.gz": write_gz,
    "a.jsonl.zst": write_zst,
    "a.parquet": write_parquet,
    "saved": write_dataset,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_documents(tmp_path, name, monkeypatch):
    path = WRITERS[name](tmp_path / name, TEXTS)
    want = [text for text in TEXTS if text.strip()]
    assert texts(path) == want
    monkeypatch.setattr(readers_module, "_PART", 7)  # lines over the borders of parts
    assert texts(path) == want


def test_dictionaries_of_large_strings_are_columns_of_strings(tmp_path):
    assert texts(write_parquet(tmp_path / "a.parquet", ["a", "b", "a"], dictionary=True)) == [
        "a", "b", "a",
    ]  # fmt: skip


def test_another_field(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["a", "b"], field="content")
    assert texts(path, "content") == ["a", "b"]


def test_byte_order_mark_and_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffé\r\nb\rc".encode())
    (tmp_path / "b.md").write_bytes(b"# head")
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + lines_of(["x"]))
    assert texts(tmp_path) == ["é\nb\nc", "# head", "x"]


def test_a_stream_goes_on_at_any_document(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", TEXTS)
    write_parquet(tmp_path / "b.parquet", TEXTS)
    stream = DocumentStream(find_sources([tmp_path]), "text", is_single=False)
    every = list(stream.raw())
    for place in range(len(every)):
        assert list(stream.raw(*divmod(place, len(TEXTS)))) == every[place:]


def test_a_single_document_is_read_as_its_sections(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    (tmp_path / "b.txt").write_text(" \n")
    stream = DocumentStream.of_sources(find_sources([tmp_path]), "text")
    assert list(stream.texts()) == ["one\n\n", "two\n\n", "three"]
    assert [raw.place for _, raw in stream.raw()][1].startswith("section 1 of ")


BAD_LINES = [
    (b'{"text": ', r"a\.jsonl:2 is not: .* at column 10"),
    (b'{"words": 1}', r"a\.jsonl:2 has \['words'\]"),
    (b'{"text": 3}', r"a\.jsonl:2 has \['text'\], with a int there"),
    (b"[1]", r"a\.jsonl:2 has list"),
    (b'{"text": "ab\\ud800"}', r"a\.jsonl:2 has half of a surrogate .* character 2"),
    (b'{"text": "\xff"}', r"a\.jsonl:2 is not, at byte 10\. Convert it"),
    (b"[" * 100_000, r"sensible size; .*a\.jsonl:2 is not"),
    (b'{"text": ' + b"1" * 5000 + b"}", r"sensible size; .*a\.jsonl:2 is not"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_line_is_named_and_the_stream_goes_on(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(["a"]) + line + b"\n" + lines_of(["b", "c"]))
    good, bad, *others = all_of(path)
    assert [text_of(raw, "text") for raw in (good, *others)] == ["a", "b", "c"]
    with pytest.raises(BadInputError, match=message):
        text_of(bad, "text")


def ruined(path):
    """(what was read before, the problem) of a damaged file."""
    *before, last = all_of(path)
    assert not any(raw.problem for raw in before)
    with pytest.raises(BadInputError) as caught:
        text_of(last, "text")
    return [text_of(raw, "text") for raw in before], str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "saved"])
def test_a_truncated_file_is_never_taken_for_whole(tmp_path, name):
    many = [f"{number} " * 50 for number in range(40)]
    path = WRITERS[name](tmp_path / name, many)
    file = sorted(path.glob("data*.arrow"))[-1] if path.is_dir() else path
    content = file.read_bytes()
    for size in (0, 1, len(content) // 3, len(content) // 2, len(content) - 12):
        file.write_bytes(content[:size])
        before, problem = ruined(path)
        assert before == many[: len(before)] and len(before) < len(many)
        assert file.name in problem and "must be a whole" in problem
        assert problem.endswith("Fetch the file again.")


def test_other_content_under_a_known_name_is_named(tmp_path):
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        (tmp_path / name).write_bytes(b"this is plain text")
        before, problem = ruined(tmp_path / name)
        assert before == [] and name in problem and "its " in problem


def test_a_damaged_checksum_is_named_with_the_line(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    content = bytearray(gzip.compress(lines_of(["a", "b"])))
    content[-6] ^= 1
    path.write_bytes(content)
    before, problem = ruined(path)
    assert before == ["a", "b"] and "what follows line 2 cannot be read: CRC" in problem


def test_a_damaged_row_group_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", ["x" * 50] * 9)
    import pyarrow.parquet as pq

    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    begin = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + 8] = b"\xff" * 8
    path.write_bytes(content)
    before, problem = ruined(path)
    assert len(before) == 3 and "row group 1 cannot be read" in problem


def test_columns_and_rows_that_hold_no_text(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", ["a", None, "b", None])
    problems = [raw.problem for raw in all_of(path)]
    assert problems[0] == problems[2] == ""
    assert "'text' must be a string in each row; row 1 of row group 0 of" in problems[1]
    assert "row 0 of row group 1" in problems[3]
    (missing,) = all_of(path, "words")
    assert "has ['id', 'text'], and no 'words'" in missing.problem
    (wrong,) = all_of(path, "id")
    assert "'id' of" in wrong.problem and "holds int64" in wrong.problem


def test_undecodable_bytes_in_a_column_are_named(tmp_path):
    raw = RawDocument("row 1 of row group 0 of a.parquet", b"ok \xff", "value", 0)
    with pytest.raises(BadInputError, match=r"row 1 of row group 0 of a\.parquet is not, at byte"):
        text_of(raw, "text")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", ["a"])
    monkeypatch.setattr("calmkit.extras.is_installed", lambda library: False)
    with pytest.raises(ImportError, match=r"needs pyarrow; .*'calmkit\[data\]'"):
        all_of(path)
