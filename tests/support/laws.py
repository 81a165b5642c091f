"""Exact laws of the samplers, in plain Python."""

import itertools
import math


def falling(x, k):
    return math.prod(x - i for i in range(k))


def restarts(a, i):
    """Probability that step 2 of the exact algorithm restarts at its i-th miss."""
    return a / i


def exact_weight(count, number, n, a):
    """Chance that the exact algorithm, fed with candidates in random order, each once, takes x.

    Sum over the misses before the next x; what is left when all candidates are used is counted
    as taken.
    """
    if count < n:
        return 0.0
    agree = falling(count, n) / falling(number, n)
    if a == 0:
        return agree
    rest, others = number - n, number - count
    taken, passed = 0.0, 1.0
    for misses in range(others + 1):
        reached = passed * falling(others, misses) / falling(rest, misses)
        if misses == rest:  # nothing is left to draw
            return agree * (taken + reached)
        taken += reached * (count - n) / (rest - misses)
        passed *= 1 - restarts(a, misses + 1)
    return agree * taken


def batch_law(candidates, temperature):
    """Probability of each chunk among given candidates."""
    exponent = 1 / temperature
    n = math.floor(exponent + 1e-9)
    a = max(exponent - n, 0.0) if exponent - n > 1e-9 else 0.0
    counts = {x: candidates.count(x) for x in candidates}
    weights = {x: exact_weight(c, len(candidates), n, a) for x, c in counts.items()}
    level = n
    while sum(weights.values()) == 0:
        level -= 1
        weights = {x: math.comb(c, level) for x, c in counts.items()}
    total = sum(weights.values())
    return {x: w / total for x, w in weights.items() if w > 0}


def expected_batch_law(p, number, temperature):
    """The batch algorithm's law over all lists of candidates, given their law."""
    law = dict.fromkeys(range(len(p)), 0.0)
    for counts in compositions(number, len(p)):
        candidates = [x for x, c in enumerate(counts) for _ in range(c)]
        chance = math.factorial(number)
        for x, c in enumerate(counts):
            chance = chance * p[x] ** c / math.factorial(c)
        for x, share in batch_law(candidates, temperature).items():
            law[x] += chance * share
    return law


def compositions(total, parts):
    """All count vectors."""
    for bars in itertools.combinations(range(total + parts - 1), parts - 1):
        ends = (-1, *bars, total + parts - 1)
        yield [b - a - 1 for a, b in itertools.pairwise(ends)]


def tempered(p, temperature):
    powers = [x ** (1 / temperature) for x in p]
    return [x / sum(powers) for x in powers]
