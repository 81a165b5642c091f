"""Words by address, against the generator's published numbers and a loop in plain integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.orders import key_of, words

u64 = st.integers(0, 2**64 - 1)


def test_words_are_those_of_the_reference_implementation():
    """The first outputs of SplitMix64 from the state 1234567, as widely printed."""
    wanted = [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
        4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert words(1234567, np.arange(5)).tolist() == wanted


@given(u64, st.lists(st.integers(0, 2**40), min_size=1, max_size=3))
def test_an_address_is_walked_part_by_part(key, address):
    wanted = key
    for part in address:
        z = (wanted + (part + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        wanted = z ^ z >> 31
    assert words(key, *address).tolist() == [wanted]


@given(st.lists(u64, min_size=1, max_size=4), st.lists(st.integers(0, 2**40), min_size=4))
def test_arrays_give_the_words_of_their_elements(keys, parts):
    table = words(np.array(keys, dtype=np.uint64)[:, None], np.array(parts)[None])
    assert table.tolist() == [[int(words(k, p)[0]) for p in parts] for k in keys]


def test_keys_differ_by_seed_and_by_purpose():
    keys = [key_of(0), key_of(1), key_of(0, 0), key_of(0, 1), key_of(0, 0, 0), key_of(2**70)]
    assert len(set(keys)) == len(keys)
    assert key_of(3, 1) == key_of(3, 1)
    with pytest.raises(ValueError, match="non-negative"):
        key_of(-1)
