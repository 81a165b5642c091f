import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.training import learning_rate_factor


@given(st.integers(1, 40), st.integers(0, 40), st.floats(0.0, 1.0))
def test_matches_the_formula(steps, warmup, final):
    warmup = min(warmup, steps)
    for t in range(steps):
        if t < warmup:
            want = (t + 1) / warmup
        else:
            angle = math.pi * (t - warmup) / (steps - warmup)
            want = final * (1 - (1 + math.cos(angle)) / 2) + (1 + math.cos(angle)) / 2
        got = learning_rate_factor(t, steps=steps, warmup_steps=warmup, decay_to=final)
        assert got == pytest.approx(want, abs=1e-12)
        assert 0.0 < got <= 1.0


def test_without_decay_the_rate_is_exactly_its_peak():
    factors = [learning_rate_factor(t, steps=9, warmup_steps=4) for t in range(9)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
