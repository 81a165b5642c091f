"""Times per token, under a clock that the test moves."""

import pytest
import torch
from calm_models import tiny

from calmkit.evaluation import Timing, microseconds_per_token, writing_speed
from calmkit.sampling import PlainSampler

ROWS, CHUNKS, CHUNK = 8, 10, 3
MOST = writing_speed._MOST  # read before a test runs, where the whole suite repeats less


@pytest.fixture(autouse=True)
def as_many_repeats_as_for_users(monkeypatch):
    monkeypatch.setattr(writing_speed, "_MOST", MOST)


class Clock:
    """A clock that stands still, except that reading a prompt and drawing chunks take time.

    Args:
        seconds: Of each chunk, by the number of the generation, from 0.
        prompt: Seconds before the first chunk.
    """

    def __init__(self, seconds, prompt=0.1):
        self.now, self.generations, self.chunks = 0.0, 0, 0
        self._seconds, self._prompt = seconds, prompt

    def perf_counter(self):
        return self.now

    def __call__(self, draw, generator):
        if self.chunks % (CHUNKS + 2) == 0:
            self.now += self._prompt
            self.generations += 1
        self.chunks += 1
        self.now += self._seconds(self.generations - 1)
        return PlainSampler()(draw, generator)


def measured(monkeypatch, seconds):
    clock = Clock(seconds)
    monkeypatch.setattr(writing_speed, "time", clock)
    return microseconds_per_token(tiny(CHUNK), [1, 2, 3], clock), clock


class TestTiming:
    @pytest.mark.parametrize(
        ("times", "median", "spread"),
        [([4.0], 4.0, None), ([1.0, 3.0], 2.0, 0.5), ([9.0, 1.0, 2.0, 3.0, 5.0], 3.0, 1.5)],
    )
    def test_median_and_half_the_distance_between_the_quartiles(self, times, median, spread):
        assert Timing.of(times) == Timing(median=median, spread=spread, repeats=len(times))


class TestMeasured:
    def test_is_the_time_of_a_chunk_over_its_tokens_without_prompt_and_warm_up(self, monkeypatch):
        found, clock = measured(monkeypatch, lambda number: 7.0 if number == 0 else 0.5)
        assert found.median == pytest.approx(1e6 * 0.5 / (ROWS * CHUNK), rel=1e-12)
        assert found.spread < 1e-6
        assert found.repeats == 5 and clock.generations == 6

    def test_a_pause_of_the_machine_does_not_move_it(self, monkeypatch):
        found, _ = measured(monkeypatch, lambda number: 60.0 if number == 3 else 0.01)
        assert found.median == pytest.approx(1e6 * 0.01 / (ROWS * CHUNK), rel=1e-12)

    def test_is_repeated_until_it_is_known_well(self, monkeypatch):
        """The first four repeats scatter; from the fifth one on they do not."""
        found, _ = measured(monkeypatch, lambda number: {1: 1e-3, 2: 9e-3}.get(number, 5e-3))
        rough, _ = measured(
            monkeypatch, lambda number: 1e-3 * (1 + number) if number < 5 else 5e-3
        )
        assert 5 == found.repeats < rough.repeats < 25
        assert rough.spread < 0.05 * rough.median

    @pytest.mark.parametrize(("scale", "repeats"), [(1e-5, 25), (100.0, 5)])
    def test_is_repeated_no_longer_than_25_times_or_10_seconds(self, monkeypatch, scale, repeats):
        found, _ = measured(monkeypatch, lambda number: scale * (1 + number % 2))
        assert found.repeats == repeats and found.spread > 0.05 * found.median > 0


def test_every_repeat_writes_the_same_text(monkeypatch):
    written = []

    def sampler(draw, generator):
        chosen = PlainSampler()(draw, generator)
        written.append(chosen.tokens)
        return chosen

    microseconds_per_token(tiny(CHUNK), [1, 2, 3], sampler)
    runs = torch.stack(written).unflatten(0, (-1, CHUNKS + 2))
    assert len(runs) >= 6 and (runs == runs[0]).all()
