"""Random numbers by address: word n of a key is a function of (key, n), with no state between.

A generator that is read in order has to be read up to a place before that place is known. Batches
that are pure functions of (seed, step) want the number at a place at once, and those of many
places in one NumPy expression. SplitMix64 is made so: its word n is a mixing function of
key + (n + 1) * c with the odd constant c = 0x9E3779B97F4A7C15, all modulo 2^64. The mixing
function is a bijection whose every output bit depends on every input bit:

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * 0x94D049BB133111EB
    z =  z ^ z >> 31

A word can be the key of further words, so an address may have several parts: `words(key, 3, 5)`
is word 5 of word 3 of the key. A number below n is a word modulo n; for the n of this package,
below 2^40, no value is more likely than another by more than one part in 10^7.

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014,
section 3, with the constants of its reference implementation.
"""

import numpy as np

__all__ = ["key_of", "words"]

Words = int | np.integer | np.ndarray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _ONE = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(1)


def key_of(seed: int, *parts: int) -> int:
    """A key for each seed and each purpose that it serves.

    Args:
        seed: Any whole number from 0 on.
        parts: Whole numbers from 0 on that tell purposes apart.
    """
    # spawn_key, not [seed, *parts]: numpy takes [1, 2] and [1, 2, 0] for the same seed.
    return int(np.random.SeedSequence(seed, spawn_key=parts).generate_state(1, np.uint64)[0])


def words(key: Words, *address: Words) -> np.ndarray:
    """The 64-bit words at addresses that are broadcast against each other; an array in any case.

    Args:
        key: By `key_of`, or a word.
        address: Whole numbers from 0 on.
    """
    word = _words_of(key)
    for part in address:
        word = _mixed(word + (_words_of(part) + _ONE) * _STEP)
    return word


def _words_of(numbers: Words) -> np.ndarray:
    """As an array: those wrap around in silence, scalars with a warning."""
    return np.atleast_1d(np.asarray(numbers, dtype=np.uint64))


def _mixed(word: np.ndarray) -> np.ndarray:
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)
