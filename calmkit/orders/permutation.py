r"""A random order of n things without a table: where thing i goes is computed from i and a key.

A shuffle of the windows of ten billion tokens would be a table of megabytes to gigabytes for each
epoch. A keyed bijection needs none. The n things lie in a grid of a columns and b rows,

    i = x + a y,    a = ceil(sqrt(n)),    b = ceil(n / a),

and each round of a *Feistel network* moves one coordinate by a random function of the other:

    x <- (x + F_0(y)) mod a,    y <- (y + F_1(x)) mod b,    x <- (x + F_2(y)) mod a,    ...

Each round can be undone, whatever the functions F, so all of them together are a bijection of the
grid. It has a b < n + a places; the few above n - 1 are left by *walking the cycle*: the network
is applied again until the result is below n. That is a bijection of [0, n), since a bijection's
cycle through i comes back to a number below n.

Each F_r is a counter-based random word (`counter_random`). There are 24 rounds. Large n would do
with fewer; at n = 5, sixteen still show in a million orders, in where a pair of things goes.

Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002: the generalised
Feistel construction and cycle walking.
"""

import numpy as np

from .counter_random import words

__all__ = ["permuted"]

_ROUNDS = 24


def permuted(
    indices: np.ndarray, size: int | np.ndarray, key: int | np.integer | np.ndarray
) -> np.ndarray:
    """Where each index goes in the order of a key: a bijection of [0, size) for each key.

    Args:
        indices: Whole numbers in [0, size).
        size: n, how many things are ordered; at most 2^40. One for all indices, or one for each.
        key: Decides the order. One for all indices, or one for each.
    """
    place, sizes, keys = np.broadcast_arrays(
        np.asarray(indices, dtype=np.uint64),
        np.asarray(size, dtype=np.uint64),
        np.asarray(key, dtype=np.uint64),
    )
    place = place.ravel().copy()
    sizes, keys = sizes.ravel(), keys.ravel()
    left = np.arange(len(place))  # those that have not come to rest
    while len(left) > 0:
        place[left] = _network(place[left], sizes[left], keys[left])
        left = left[place[left] >= sizes[left]]
    return place.astype(np.int64)


def _network(place: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The bijection of the grid that all rounds are together."""
    columns = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    rows = (sizes + columns - np.uint64(1)) // columns
    x, y, rounds = place % columns, place // columns, np.uint64(_ROUNDS)
    # Word r + _ROUNDS * z of the key is F_r(z).
    for r in range(0, _ROUNDS, 2):
        x = (x + words(keys, np.uint64(r) + rounds * y) % columns) % columns
        y = (y + words(keys, np.uint64(r + 1) + rounds * x) % rows) % rows
    return x + columns * y
