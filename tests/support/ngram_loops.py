"""chrF and BLEU as plain loops; words are whitespace apart."""

import math


def grams(items, n):
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


def matches(one, other):
    """Each n-gram of one text crosses out an equal one of the other."""
    left, found = list(other), 0
    for gram in one:
        if gram in left:
            left.remove(gram)
            found += 1
    return found


def loop_chrf(pairs):
    precision, recall = [], []
    for n in range(1, 7):
        m = h = r = 0
        for text, reference in pairs:
            one, other = (grams([c for c in x if not c.isspace()], n) for x in (text, reference))
            m, h, r = m + matches(one, other), h + len(one) * bool(other), r + len(other)
        if h and r:
            precision.append(m / h)
            recall.append(m / r)
    p, r = (sum(x) / len(x) if x else 0.0 for x in (precision, recall))
    return 5 * p * r / (4 * p + r) if p + r else 0.0


def loop_bleu(pairs):
    logs, halves, lengths = 0.0, 1.0, [0, 0]
    for n in range(1, 5):
        m = h = 0
        for text, reference in pairs:
            one, other = (grams(x.split(), n) for x in (text, reference))
            m, h = m + matches(one, other), h + len(one)
            if n == 1:
                lengths = [lengths[0] + len(one), lengths[1] + len(other)]
        if h == 0 or (n == 1 and m == 0):
            return 0.0
        if m == 0:
            halves /= 2
        logs += math.log((m or halves) / h) / 4
    return min(1.0, math.exp(1 - lengths[1] / lengths[0])) * math.exp(logs)
