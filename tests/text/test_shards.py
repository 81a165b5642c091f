"""Tests for shards: what is behind the noted place does not count."""

import numpy as np
import pytest

from calmkit.text import EncodedSide
from calmkit.text.shards import Done, SideWriter

DTYPE = np.dtype("<u2")


def documents(*lengths, first=0):
    tokens = np.arange(first, first + sum(lengths), dtype=DTYPE)
    return EncodedSide(tokens, np.array(lengths, np.int64), 10 * len(lengths))


def writer(folder, done=Done(), shard_tokens=10):  # noqa: B008  frozen
    return SideWriter(folder, "train", dtype=DTYPE, shard_tokens=shard_tokens, done=done)


def read(folder):
    return {path.name: np.fromfile(path, "<i8" if "doc" in path.name else DTYPE).tolist()
            for path in folder.iterdir()}  # fmt: skip


def test_tokens_are_one_stream_and_offsets_their_borders(tmp_path):
    with writer(tmp_path) as side:
        side.append(documents(3, 20))
        side.append(documents(7, first=23))
        assert side.done == Done(documents=3, tokens=30, characters=30)
        assert [path.name for path in side.paths()] == [
            "train-00000.bin", "train-00001.bin", "train-00002.bin", "train-documents.bin",
        ]  # fmt: skip
    assert read(tmp_path) == {
        "train-00000.bin": list(range(10)),
        "train-00001.bin": list(range(10, 20)),
        "train-00002.bin": list(range(20, 30)),
        "train-documents.bin": [0, 3, 23, 30],
    }


@pytest.mark.parametrize("noted", [(), (4,), (10,), (4, 6), (4, 19)])
def test_what_was_written_after_the_noted_place_is_cut_off(tmp_path, noted):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with writer(tmp_path / "a") as side:
        done = side.done
        if noted:
            side.append(documents(*noted))
            done = side.done
        side.append(documents(35, 3, first=500))
    with writer(tmp_path / "a", done) as side:
        side.append(documents(2, first=900))
    with writer(tmp_path / "b") as side:
        if noted:
            side.append(documents(*noted))
        side.append(documents(2, first=900))
    assert read(tmp_path / "a") == read(tmp_path / "b")


def test_files_that_hold_less_than_was_noted_are_refused(tmp_path):
    with writer(tmp_path) as side:
        side.append(documents(5))
        done = side.done
    (tmp_path / "train-00000.bin").write_bytes(b"ab")
    with pytest.raises(ValueError, match=r"00000\.bin must have at least 10 bytes.*it has 2"):
        writer(tmp_path, done)
