"""Counter-based random numbers: word n of a key is a function of (key, n), without state.

A sequential generator must be advanced to an index before its number there is known. Batches that
are pure functions of (seed, step) need random access, for many indices in one NumPy expression.
SplitMix64 provides it: its word n is a mixing function of key + (n + 1) * c with the odd constant
c = 0x9E3779B97F4A7C15, all modulo 2^64. The mixing function is a bijection, and each of its output
bits depends on every input bit:

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * 0x94D049BB133111EB
    z =  z ^ z >> 31

A word can serve as a key, so an address can have several parts: `words(key, 3, 5)` is word 5 of
word 3 of the key. A number below n is a word modulo n. In this package n is below 2^40, and the
probabilities of two values differ by at most one part in 10^7.

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
    """A key for each seed and each purpose.

    Args:
        seed: A non-negative integer.
        parts: Non-negative integers that identify the purpose.
    """
    # spawn_key, not [seed, *parts]: numpy treats [1, 2] and [1, 2, 0] as the same seed.
    return int(np.random.SeedSequence(seed, spawn_key=parts).generate_state(1, np.uint64)[0])


def words(key: Words, *address: Words) -> np.ndarray:
    """The 64-bit words at addresses, which are broadcast; always an array.

    Args:
        key: A key from `key_of`, or a word.
        address: Non-negative integers.
    """
    word = _words_of(key)
    for part in address:
        word = _mixed(word + (_words_of(part) + _ONE) * _STEP)
    return word


def _words_of(numbers: Words) -> np.ndarray:
    """Convert to an array: arrays wrap around silently, scalars with a warning."""
    return np.atleast_1d(np.asarray(numbers, dtype=np.uint64))


def _mixed(word: np.ndarray) -> np.ndarray:
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)
