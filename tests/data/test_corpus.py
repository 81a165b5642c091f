"""Tests for corpus: the split, and a cache that survives damage, kills and races."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.data import (
    TextTokenizer,
    TokenStore,
    prepare_corpus,
    read_documents,
    split_documents,
)
from calmkit.data import corpus as corpus_module
from calmkit.disk import WriteError

SETTINGS = {"vocab_size": 300, "seed": 1}


@pytest.fixture
def text(tmp_path):
    """A small file of a dozen documents."""
    path = tmp_path / "small.txt"
    path.write_text("\n\n".join(read_documents()[:12]), encoding="utf-8")
    return path


@pytest.fixture
def no_work(monkeypatch):
    """Makes preparing fail, so that only a cache hit succeeds."""

    def forbid(*args, **kwargs):
        raise AssertionError("the tokenizer was trained again")

    def set_forbidden():
        monkeypatch.setattr(TextTokenizer, "train", forbid)

    return set_forbidden


def assert_same(first, second):
    for side in ("train", "validation"):
        one, two = getattr(first, side), getattr(second, side)
        np.testing.assert_array_equal(one.tokens, two.tokens)
        np.testing.assert_array_equal(one.offsets, two.offsets)
        assert one.num_characters == two.num_characters
    assert first.tokenizer._tokenizer.to_str() == second.tokenizer._tokenizer.to_str()
    assert (first.name, first.digest) == (second.name, second.digest)


def test_corpus_holds_the_split_text(text, tmp_path):
    corpus = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    documents = read_documents(text)
    split = split_documents(documents, validation_fraction=0.1, seed=1)
    for store, side in zip((corpus.train, corpus.validation), split, strict=True):
        assert [corpus.tokenizer.decode(document) for document in store.documents] == side
        assert all(document[0] == document[-1] == 0 for document in store.documents)
    assert corpus.name == "small.txt"
    assert corpus.tokenizer.vocab_size == corpus.train.vocab_size == 300


def test_tokenizer_has_not_seen_the_validation_text(text, tmp_path):
    corpus = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    train, _ = split_documents(read_documents(text), validation_fraction=0.1, seed=1)
    wanted = TextTokenizer.train(train, vocab_size=300)
    assert corpus.tokenizer._tokenizer.to_str() == wanted._tokenizer.to_str()


def test_cache_hit_gives_the_same_corpus_without_work(text, tmp_path, no_work):
    first = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    no_work()
    assert_same(first, prepare_corpus(text, **SETTINGS, cache_dir=str(tmp_path / "cache")))


def test_cache_is_by_content_not_by_name(text, tmp_path, no_work):
    first = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    no_work()
    copy = text.with_name("copy.txt")
    copy.write_bytes(text.read_bytes())
    second = prepare_corpus(copy, **SETTINGS, cache_dir=tmp_path / "cache")
    assert second.name == "copy.txt"
    assert second.digest == first.digest


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"vocab_size": 301}, {"validation_fraction": 0.2}, "text"]
)
def test_another_text_or_setting_is_another_entry(text, tmp_path, change):
    first = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    settings = dict(SETTINGS)
    if change == "text":
        text.write_text(text.read_text() + "one more line\n", encoding="utf-8")
    else:
        settings |= change
    second = prepare_corpus(text, **settings, cache_dir=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert (first.digest != second.digest) == (change == "text")


def test_digest_knows_where_documents_end():
    assert corpus_module.digest_of(["ab", "c"]) != corpus_module.digest_of(["a", "bc"])


FILES = [
    "manifest.json",
    "tokenizer.json",
    *(f"{side}/{name}" for side in ("train", "validation") for name in
      ("tokens.bin", "offsets.bin", "store.json")),
]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_damaged_entry_is_made_anew(text, tmp_path, file, no_work):
    cache = tmp_path / "cache"
    first = prepare_corpus(text, **SETTINGS, cache_dir=cache)
    wanted = {side: np.array(getattr(first, side).tokens) for side in ("train", "validation")}
    (entry,) = cache.iterdir()
    assert sorted(FILES) == sorted(
        path.relative_to(entry).as_posix() for path in entry.rglob("*") if path.is_file()
    )
    path = entry / file
    content = path.read_bytes()
    for damaged in (None, b"", content[:-3], bytes([content[0] ^ 1]) + content[1:]):
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        again = prepare_corpus(text, **SETTINGS, cache_dir=cache)
        assert path.read_bytes() == content
        for side, tokens in wanted.items():
            np.testing.assert_array_equal(getattr(again, side).tokens, tokens)
    assert list(cache.iterdir()) == [entry]
    no_work()
    prepare_corpus(text, **SETTINGS, cache_dir=cache)


def test_killed_while_writing_leaves_no_half_entry(text, tmp_path):
    cache = tmp_path / "cache"
    program = f"""
import os, signal
from calmkit.data import TokenStore, prepare_corpus
save = TokenStore.save
def killed(self, folder):
    save(self, folder)
    if folder.name == "validation":
        os.kill(os.getpid(), signal.SIGKILL)
TokenStore.save = killed
prepare_corpus({str(text)!r}, vocab_size=300, seed=1, cache_dir={str(cache)!r})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()
    (leftover,) = cache.iterdir()  # it was killed after it had begun to write
    assert leftover.name.startswith(".writing-")

    corpus = prepare_corpus(text, **SETTINGS, cache_dir=cache)
    assert_same(corpus, prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "other"))
    assert leftover.exists()  # it might belong to a running process, until it is old
    os.utime(leftover, (0, 0))
    prepare_corpus(text, vocab_size=301, cache_dir=cache)
    assert not leftover.exists()
    assert all(path.name.startswith("corpus-") for path in cache.iterdir())


def test_an_error_while_writing_leaves_nothing(text, tmp_path, monkeypatch):
    def full_disk(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TextTokenizer, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_entry_written_meanwhile_by_another_process_is_used(text, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    prepare_corpus(text, **SETTINGS, cache_dir=cache)
    (entry,) = cache.iterdir()
    before = entry.stat().st_ino
    answers = itertools.chain([False], itertools.repeat(True))  # absent at first, then there
    monkeypatch.setattr(corpus_module, "_is_whole", lambda path: next(answers))
    prepare_corpus(text, **SETTINGS, cache_dir=cache)
    assert list(cache.iterdir()) == [entry]
    assert entry.stat().st_ino == before


def test_simultaneous_calls_agree(text, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(prepare_corpus, text, **SETTINGS, cache_dir=tmp_path / "cache")
            for _ in range(4)
        ]
    first, *others = [call.result() for call in calls]
    for other in others:
        assert_same(first, other)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_folder_that_vanishes_while_leftovers_are_looked_for(text, tmp_path, monkeypatch):
    """Another process finishes between the listing of its folder and the look at its age."""
    leftover = tmp_path / "cache" / ".writing-other"
    leftover.mkdir(parents=True)

    class Clock:
        @staticmethod
        def time():
            leftover.rmdir()
            return 0.0

    monkeypatch.setattr(corpus_module, "time", Clock)
    prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    assert not leftover.exists()


def test_a_whole_entry_is_never_moved_away(text, tmp_path, monkeypatch):
    """Another process puts its entry in place just before this one would."""
    first = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    before = entry.stat().st_ino
    is_whole, looks = corpus_module._is_whole, []

    def look(path):  # as if the entry came after the first look
        looks.append(path)
        return len(looks) > 1 and is_whole(path)

    monkeypatch.setattr(corpus_module, "_is_whole", look)
    assert_same(first, prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache"))
    assert entry.stat().st_ino == before


def test_default_cache_folder_follows_xdg(text, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    prepare_corpus(text, **SETTINGS)
    assert len(list((tmp_path / "xdg" / "calmkit").iterdir())) == 1
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert corpus_module._cache_folder(None) == tmp_path / "home" / ".cache" / "calmkit"


def test_cache_that_cannot_be_written_is_named(text, tmp_path):
    with pytest.raises(ValueError, match=r"cache_dir must be .* '.*small\.txt' cannot: .*another"):
        prepare_corpus(text, **SETTINGS, cache_dir=text)


def test_wrong_settings_are_refused_before_the_text_is_read(tmp_path):
    missing = tmp_path / "missing.txt"
    with pytest.raises(ValueError, match="vocab_size must be at least 257"):
        prepare_corpus(missing, vocab_size=100)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"validation_fraction must be in \(0, 1\); got"):
            prepare_corpus(missing, vocab_size=300, validation_fraction=fraction)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        prepare_corpus(missing, vocab_size=300, seed=-1)


def test_text_of_one_line_cannot_be_split(tmp_path):
    path = tmp_path / "line.txt"
    path.write_text("just one line", encoding="utf-8")
    with pytest.raises(ValueError, match=r"at least 2 documents.*got 1, without a line end"):
        prepare_corpus(path, vocab_size=300)


sizes = st.lists(st.integers(1, 50), min_size=2, max_size=30)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32)


@given(sizes, fractions, seeds)
def test_split_is_a_partition_with_both_sides_in_order(sizes, fraction, seed):
    documents = [chr(65 + i) * size for i, size in enumerate(sizes)]
    train, validation = split_documents(documents, validation_fraction=fraction, seed=seed)
    assert train and validation
    assert sorted(train + validation) == sorted(documents)
    for side in (train, validation):
        assert [document for document in documents if document in side] == side
    again = split_documents(documents, validation_fraction=fraction, seed=seed)
    assert again == (train, validation)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), fractions, seeds)
def test_split_of_few_documents_is_the_nearest_of_all(sizes, fraction, seed):
    documents = [chr(65 + i) * size for i, size in enumerate(sizes)]
    _, validation = split_documents(documents, validation_fraction=fraction, seed=seed)
    wanted = fraction * sum(sizes)
    nearest = min(
        abs(sum(subset) - wanted)
        for count in range(1, len(sizes))
        for subset in itertools.combinations(sizes, count)
    )
    distance = abs(sum(map(len, validation)) - wanted)
    assert distance <= max(nearest, 0.01 * wanted) + 1e-9


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), fractions, seeds)
def test_copies_stay_on_one_side(contents, fraction, seed):
    """Copies differ in white space: in indents, line ends and wrapping."""
    texts = ["word {}", " word\n{}", "word\t {}\r\n", "word {}\n\n"]
    documents = [
        texts[place % len(texts)].format(content) for place, content in enumerate(contents)
    ]
    if len(set(contents)) < 2:
        with pytest.raises(ValueError, match=r"at least 2 different documents.*copies of one"):
            split_documents(documents, validation_fraction=fraction, seed=seed)
        return
    train, validation = split_documents(documents, validation_fraction=fraction, seed=seed)
    assert train and validation
    assert sorted(train + validation) == sorted(documents)
    words = [{tuple(text.split()) for text in side} for side in (train, validation)]
    assert not words[0] & words[1]
    for side in (train, validation):  # in the given order
        places = iter(documents)
        assert all(document in places for document in side)


def test_copies_count_with_all_their_characters():
    """Nine short documents, and one in nine copies that is half of the text."""
    documents = ["a" * 9 * n for n in range(5, 14)] + ["b" * 81] * 9
    for seed in range(20):
        _, validation = split_documents(documents, validation_fraction=0.5, seed=seed)
        assert sum(map(len, validation)) == pytest.approx(729, rel=0.02)


def test_split_of_different_documents_is_that_of_the_order_drawn():
    """Numbers of runs are tied to it: the first of a permutation, as many as come nearest."""
    documents = [chr(65 + i) * (10 + i) for i in range(40)]
    order = np.random.default_rng(7).permutation(40)
    ends = np.cumsum([len(documents[i]) for i in order])
    wanted = 0.3 * ends[-1]
    count = int(np.abs(ends - wanted).argmin()) + 1
    assert abs(ends[count - 1] - wanted) <= 0.01 * wanted  # the first order drawn is good enough
    _, validation = split_documents(documents, validation_fraction=0.3, seed=7)
    assert validation == [documents[i] for i in sorted(order[:count])]


def test_embedded_text_has_no_copies():
    documents = read_documents()
    assert len({" ".join(document.split()) for document in documents}) == len(documents)


def test_prepared_text_keeps_copies_apart(tmp_path):
    for number in range(24):
        text = f"Text {number % 6} says " + f"{number % 6} and more. " * 40
        (tmp_path / f"{number}.txt").write_text(text + "\n" * (number % 2), encoding="utf-8")
    corpus = prepare_corpus(tmp_path, vocab_size=270, cache_dir=tmp_path / "cache")
    sides = [
        {corpus.tokenizer.decode(document).strip() for document in store.documents}
        for store in (corpus.train, corpus.validation)
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 6


def test_an_entry_under_another_name_is_made_anew(text, tmp_path):
    """A folder of the cache that was renamed holds another text than its name says."""
    cache, other = tmp_path / "cache", tmp_path / "other"
    prepare_corpus(text, **SETTINGS, cache_dir=cache)
    prepare_corpus(text, **SETTINGS | {"vocab_size": 290}, cache_dir=other)
    (entry,), (foreign,) = cache.iterdir(), other.iterdir()
    shutil.rmtree(entry)
    shutil.copytree(foreign, entry)
    assert prepare_corpus(text, **SETTINGS, cache_dir=cache).tokenizer.vocab_size == 300


@pytest.mark.parametrize("name", ["tokenizer.json", "tokens.bin", "store.json", "manifest.json"])
def test_a_full_disk_is_told_and_leaves_nothing(text, tmp_path, name, monkeypatch):
    def full(path):
        if Path(path).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_text(self, *args, write=Path.write_text, **kwargs):
        full(self)
        return write(self, *args, **kwargs)

    def save(self, folder, save=TokenStore.save):
        full(folder / "tokens.bin")
        save(self, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        patch.setattr(TokenStore, "save", save)
        with pytest.raises(WriteError, match=r"cache could not be written: No space left.*Free"):
            prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")


def test_split_depends_on_the_seed():
    documents = [chr(65 + i) * 10 for i in range(20)]
    splits = {
        tuple(split_documents(documents, validation_fraction=0.1, seed=seed)[1])
        for seed in range(10)
    }
    assert len(splits) > 5
