"""The clearest features, against a loop over all features, places and tokens."""

import pytest
import torch
from rounding import random_tokens

from calmkit.features import BestToken, clearest_features


def by_loop(activations, tokens):
    """Best F_1 of each feature over places and tokens that it meets five times."""
    found = {}
    points, features = activations.shape
    for f in range(features):
        for k in range(tokens.shape[1]):
            for v in set(tokens[:, k].tolist()):
                active = {t for t in range(points) if activations[t, f] > 0}
                there = {t for t in range(points) if tokens[t, k] == v}
                both = len(active & there)
                if both < 5:
                    continue
                p, r = both / len(active), both / len(there)
                score = 2 * p * r / (p + r)
                if score > found.get(f, (0.0,))[0]:
                    found[f] = (score, p, r, k, v)
    return found


def problem():
    tokens = random_tokens(200, 2, vocab=4)
    activations = torch.rand(200, 6, generator=torch.Generator().manual_seed(1))
    activations = torch.where(activations < 0.6, 0.0, activations)
    activations[:, 2] = (tokens[:, 1] == 3).double()  # a perfect one
    activations[:, 4] = 0.0  # a dead one
    activations[4:, 5] = 0.0  # one of a few chunks
    return activations, tokens


@pytest.mark.parametrize("at_once", [2**24, 1])
def test_are_those_of_a_loop(monkeypatch, at_once):
    monkeypatch.setattr("calmkit.features.clearest._COUNTS_AT_ONCE", at_once)
    activations, tokens = problem()
    want = by_loop(activations, tokens)
    found = clearest_features(activations, tokens, count=100)
    assert found[0] == BestToken(2, 1, 3, 1.0, 1.0) and found[0].clarity == 1.0
    assert {one.feature for one in found}.isdisjoint({4, 5})
    assert [one.clarity for one in found] == sorted((x.clarity for x in found), reverse=True)
    for one in found:
        score, precision, recall, _, _ = want[one.feature]
        # Of equal tokens, and of those that a clearer feature has, another may be shown.
        assert one.clarity <= score + 1e-6
    top = found[1]
    score, precision, recall, place, token = max(
        (x for f, x in want.items() if f != 2), key=lambda x: x[0]
    )
    assert (top.place, top.token) == (place, token)
    assert (top.precision, top.recall) == pytest.approx((precision, recall))


def test_each_token_and_each_feature_is_shown_once():
    activations, tokens = problem()
    twice = torch.cat((activations, activations), dim=1)
    found = clearest_features(twice, tokens, count=100)
    assert len({(one.place, one.token) for one in found}) == len(found)
    assert len({one.feature for one in found}) == len(found)
    assert len(clearest_features(twice, tokens, count=2)) == 2
