"""Tests for source_files: what a user names, and which files that is."""

import pytest
from text_files import write_dataset, write_jsonl

from calmkit.text import find_sources


def names(given, folder):
    return [source.path.relative_to(folder).as_posix() for source in find_sources(given)]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.txt", "a/z.JSONL", "a/y.parquet", "c.jsonl.gz", "d.jsonl.zst", "e.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "f.csv").touch()
    (tmp_path / "a" / "state.json").write_text('{"of": "another program"}')
    return tmp_path


def test_a_folder_is_all_files_of_known_formats_below_it(folder):
    assert names([folder], folder) == [
        "a/y.parquet", "a/z.JSONL", "b.txt", "c.jsonl.gz", "d.jsonl.zst", "e.md",
    ]  # fmt: skip


def test_patterns_and_files_keep_the_given_order_and_each_file_counts_once(folder):
    given = [folder / "e.md", f"{folder}/*.jsonl*", f"{folder}/**/*.txt", folder / "e.md"]
    assert names(given, folder) == ["e.md", "c.jsonl.gz", "d.jsonl.zst", "b.txt"]


def test_a_saved_dataset_is_the_files_it_names(tmp_path):
    write_dataset(tmp_path / "saved", ["a", "b"])
    write_jsonl(tmp_path / "z.jsonl", ["c"])
    want = ["saved/data-0.arrow", "saved/data-1.arrow"]
    assert names([tmp_path / "saved"], tmp_path) == want
    assert names([tmp_path], tmp_path) == [*want, "z.jsonl"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("f.csv", r"data must be a \.jsonl\.gz, .* or \.md file, or a folder of them; got"),
        ("nowhere.txt", r"existing file or folder; '.*nowhere\.txt' is missing"),
        ("*.json", r"pattern that some file matches; '.*' has none"),
        ("empty", r"there are none in '"),
    ],
)
def test_what_names_no_text_is_refused(folder, given, message):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        find_sources([folder / given])
