"""Tests for corpus: any text or a prepared folder, a cache that survives damage, kills, races."""

import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from calmkit.data import (
    Manifest,
    Preparation,
    TextTokenizer,
    digest_of,
    prepare_corpus,
    prepare_folder,
    read_documents,
)
from calmkit.data import corpus as corpus_module
from calmkit.disk import WriteError
from calmkit.locks import only_one_in
from calmkit.text import ByHash, content_key, find_sources
from calmkit.text import filling as filling_module

SETTINGS = {"vocab_size": 300, "seed": 12}


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


def documents_of(store):
    return [store.document(number).tolist() for number in range(store.num_documents)]


def assert_same(first, second):
    for side in ("train", "validation"):
        one, two = getattr(first, side), getattr(second, side)
        assert documents_of(one) == documents_of(two)
        assert one.num_characters == two.num_characters
    assert first.tokenizer.to_json() == second.tokenizer.to_json()
    assert (first.name, first.digest) == (second.name, second.digest)


def split(path, seed=12):
    sides = {"train": [], "validation": []}
    for text in read_documents(path):
        sides[ByHash.of_fraction(0.1, seed).side_of(content_key(text))].append(text)
    return sides["train"], sides["validation"]


def test_corpus_holds_the_split_text(text, tmp_path):
    corpus = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    for store, side in zip((corpus.train, corpus.validation), split(text), strict=True):
        assert [corpus.tokenizer.decode(document) for document in documents_of(store)] == side
        assert all(document[0] == document[-1] == 0 for document in documents_of(store))
    assert corpus.name == "small.txt"
    assert corpus.tokenizer.vocab_size == corpus.train.vocab_size == 300


def test_tokenizer_has_not_seen_the_validation_text(text, tmp_path):
    corpus = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    wanted = TextTokenizer.train(split(text)[0], vocab_size=300)
    assert corpus.tokenizer.to_json() == wanted.to_json()


def test_the_embedded_text_has_both_sides(tmp_path):
    corpus = prepare_corpus(None, vocab_size=300, cache_dir=tmp_path)
    assert corpus.name == "pydoc_data.topics"
    assert corpus.train.num_documents + corpus.validation.num_documents == len(read_documents())
    share = corpus.validation.num_characters / sum(map(len, read_documents()))
    assert 0.05 < share < 0.2


def test_a_prepared_folder_is_taken_as_it_is(text, tmp_path):
    made = Preparation(sources=find_sources([text]), tokenizer="train:300", shard_tokens=500)
    manifest = prepare_folder(made, tmp_path / "made")
    assert len(manifest.train.shards) > 2
    before = sorted((tmp_path / "made").iterdir())
    found = prepare_corpus(tmp_path / "made", vocab_size=300, cache_dir=tmp_path / "cache")
    whole = prepare_corpus(text, vocab_size=300, cache_dir=tmp_path / "cache")
    assert documents_of(found.train) == documents_of(whole.train)
    assert (found.name, found.digest) == ("made", manifest.digest)
    assert sorted((tmp_path / "made").iterdir()) == before
    said = r"vocab_size must be 300, that of the tokenizer of made; got 301\. Leave it out\."
    with pytest.raises(ValueError, match=said):
        prepare_corpus(tmp_path / "made", vocab_size=301)


def test_another_tokenizer_and_its_size(text, tmp_path):
    TextTokenizer.train(read_documents()[:5], vocab_size=290).save(tmp_path / "tokenizer.json")
    given = {"tokenizer": str(tmp_path), "cache_dir": tmp_path / "cache"}
    corpus = prepare_corpus(text, **given)
    assert corpus.tokenizer.vocab_size == corpus.train.vocab_size == 290
    with pytest.raises(ValueError, match="vocab_size must be 290"):
        prepare_corpus(text, vocab_size=300, **given)
    with pytest.raises(ValueError, match="vocab_size must be given to train a tokenizer"):
        prepare_corpus(text)


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
    assert first.digest != second.digest


def test_digest_knows_where_documents_end():
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])


FILES = [
    "manifest.json",
    "tokenizer.json",
    *(f"{side}-{name}.bin" for side in ("train", "validation") for name in ("00000", "documents")),
]


@pytest.mark.parametrize("file", FILES)
def test_damaged_entry_is_made_anew(text, tmp_path, file, no_work):
    cache = tmp_path / "cache"
    first = prepare_corpus(text, **SETTINGS, cache_dir=cache)
    wanted = {side: documents_of(getattr(first, side)) for side in ("train", "validation")}
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
            assert documents_of(getattr(again, side)) == tokens
    assert list(cache.iterdir()) == [entry]
    no_work()
    prepare_corpus(text, **SETTINGS, cache_dir=cache)


def test_a_killed_run_is_gone_on_with_and_old_leftovers_go(text, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(filling_module, "_BATCH_DOCUMENTS", 2)

    def killed(self, task, encoded, first, take=filling_module.Filling._take):
        take(self, task, encoded, first)
        self._note()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling_module.Filling, "_take", killed)
        for vocab_size in (300, 301):
            with pytest.raises(KeyboardInterrupt):
                prepare_corpus(text, vocab_size=vocab_size, seed=12, cache_dir=cache)
    begun = {entry for entry in cache.iterdir() if (entry / ".preparing" / "state.json").exists()}
    assert len(begun) == 2

    text = text.rename(text.with_name("renamed.txt"))  # its content is the same
    other = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "other")
    assert_same(prepare_corpus(text, **SETTINGS, cache_dir=cache), other)
    (left,) = [entry for entry in begun if not (entry / "manifest.json").exists()]
    prepare_corpus(text, vocab_size=302, cache_dir=cache)
    assert left.exists()  # its process may go on, until it is old
    with only_one_in(left, name="entry"):
        for path in (left, *left.rglob("*")):
            os.utime(path, (0, 0))
        prepare_corpus(text, vocab_size=303, cache_dir=cache)
    assert left.exists()  # in use
    for path in (left, *left.rglob("*")):
        os.utime(path, (0, 0))
    prepare_corpus(text, vocab_size=304, cache_dir=cache)
    assert not left.exists()


def test_a_second_process_waits_for_the_first(text, tmp_path, no_work):
    first = prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    shutil.move(entry, tmp_path / "aside")
    told, waits = [], threading.Event()

    def tell(said):
        told.append(said)
        waits.set()

    no_work()
    with ThreadPoolExecutor(1) as pool:
        with only_one_in(entry, name="entry"):
            call = pool.submit(
                prepare_corpus, text, **SETTINGS, cache_dir=tmp_path / "cache", tell=tell
            )
            assert waits.wait(60)
            for path in (tmp_path / "aside").iterdir():  # the other one is done
                path.rename(entry / path.name)
        assert_same(first, call.result(60))
    assert len(told) == 1 and told[0].startswith("waiting for process")


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
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="vocab_size must be at least 257"):
        prepare_corpus(bad, vocab_size=100)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"validation_fraction must be in \(0, 1\); got"):
            prepare_corpus(bad, vocab_size=300, validation_fraction=fraction)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        prepare_corpus(bad, vocab_size=300, seed=-1)


def test_text_of_one_line_cannot_be_split(tmp_path):
    path = tmp_path / "line.txt"
    path.write_text("just one line", encoding="utf-8")
    with pytest.raises(ValueError, match=r"at least 2 documents.*got 1, without a line end"):
        prepare_corpus(path, vocab_size=300, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_embedded_text_has_no_copies():
    documents = read_documents()
    assert len({" ".join(document.split()) for document in documents}) == len(documents)


def test_prepared_text_keeps_copies_apart(tmp_path):
    for number in range(24):
        text = f"Text {number % 6} says " + f"{number % 6} and more. " * 40
        (tmp_path / f"{number}.txt").write_text(text + "\n" * (number % 2), encoding="utf-8")
    corpus = prepare_corpus(tmp_path, vocab_size=270, cache_dir=tmp_path / "cache")
    sides = [
        {corpus.tokenizer.decode(document).strip() for document in documents_of(store)}
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


def test_a_full_disk_is_told_and_what_was_done_is_kept(text, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("calmkit.text.shards._flush", full)
        with pytest.raises(WriteError, match=r"corpus-\w+ could not be written: No space.*Free"):
            prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    Manifest.read(entry).check_digests(entry)


def test_a_large_entry_is_not_read_at_each_start(text, tmp_path, monkeypatch):
    prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(corpus_module, "_CHECKED_BYTES", 10)
    monkeypatch.setattr(Manifest, "check_digests", None)
    prepare_corpus(text, **SETTINGS, cache_dir=tmp_path / "cache")
