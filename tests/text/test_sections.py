"""Tests for sections, and for the texts that are read as lists of documents."""

from pydoc_data.topics import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.data import read_documents
from calmkit.text import split_into_sections

lines = st.sampled_from(["", " ", "\t", "word", "two words", "é\u2028x"])
texts = st.one_of(st.text(), st.lists(lines).map("\n".join))


def paragraphs(text):
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()]


def test_default_is_the_embedded_text_each_paragraph_once():
    found = [p for document in read_documents() for p in paragraphs(document)]
    in_topics = {p for name in topics for p in paragraphs(topics[name])}
    across_documents = [set(paragraphs(document)) for document in read_documents()]
    assert set(found) == in_topics
    assert sum(map(len, across_documents)) == len(in_topics)


def test_embedded_documents_are_in_the_order_of_topic_names():
    first = topics[min(topics)]
    assert read_documents()[0].startswith(first[:100])


def test_a_single_file_is_cut_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\none\n\ntwo\nlines\n \nthree\n\n", encoding="utf-8")
    assert read_documents(path) == ["\n\none\n\n", "two\nlines\n \n", "three\n\n"]


@given(texts)
def test_sections_are_the_text_and_none_is_blank(text):
    sections = split_into_sections(text)
    assert "".join(sections) == text
    assert all(section.strip() for section in sections) or len(sections) == 1


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 3000))
def test_sections_end_at_the_first_blank_line_after_enough_text(paragraphs, rows, width):
    paragraph = ("x" * width + "\n") * (rows if width < 100 else 1) + "\n"
    sections = split_into_sections(paragraph * paragraphs)
    enough = min(8000, len(paragraph) * paragraphs / 20)
    if paragraphs > 1:
        for section in sections[:-1]:
            assert section.endswith("\n\n")
            assert enough <= len(section) < enough + len(paragraph)


def test_text_without_blank_lines_is_cut_at_line_ends_and_one_line_stays_whole():
    assert split_into_sections("a\nb\nc") == ["a\n", "b\n", "c"]
    assert split_into_sections("a b c") == ["a b c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"data must hold some text; '.*a\.txt' is empty"),
        ("a.txt", b" \n", "must hold some text"),
        ("a.jsonl", b"\n", "must hold some text"),
        ("a.txt", b"ok \xff", r"must be UTF-8; '.*a\.txt' is not, at byte 3"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": ', r"a\.jsonl:3 is not: .* at column 10"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_documents(path)
