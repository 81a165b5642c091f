"""The generation speed of a model: time per token, repeated until it is known well enough.

A generation writes twelve chunks of eight texts. The clock runs from the second chunk to the last
one, so that the prompt is not included and the time is never negative. All repeats write the same
texts, so they differ only in what else the machine does. A pause of the machine hardly moves the
median, and the spread tells how much the repeats differ:

    spread = (third quartile - first quartile) / 2.

Repeats go on until the spread is below 5 % of the median, but not beyond a number and a time.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from calmkit.models import LanguageModel
from calmkit.sampling import Draw, SampledChunks, Sampler

__all__ = ["PROMPT_TOKENS", "Timing", "microseconds_per_token", "positions_written"]

PROMPT_TOKENS = 16  # at most
_ROWS = 8
_CHUNKS, _UNTIMED = 12, 1
_FEWEST, _MOST, _SECONDS = 5, 25, 10.0
_CLOSE = 0.05


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Repeated measurements of one time.

    Attributes:
        median: Median of the repeats.
        spread: Half the distance between their quartiles; None for a single measurement.
        repeats: Number of measurements.
    """

    median: float
    spread: float | None
    repeats: int

    @staticmethod
    def of(times: Sequence[float]) -> "Timing":
        """Summarize at least one measurement."""
        spread = None
        if len(times) > 1:
            first, _, third = statistics.quantiles(times, n=4, method="inclusive")
            spread = (third - first) / 2
        return Timing(median=statistics.median(times), spread=spread, repeats=len(times))


def microseconds_per_token(model: LanguageModel, prompt: list[int], sampler: Sampler) -> Timing:
    """Time per generated token in a batch of eight texts, without the time for the prompt.

    Args:
        model: The model, on any device.
        prompt: Tokens before the text.
        sampler: Chooses chunks.
    """
    _microseconds(model, prompt, sampler)  # warms up
    began, times = time.perf_counter(), []
    while True:
        times.append(_microseconds(model, prompt, sampler))
        found = Timing.of(times)
        if len(times) < _FEWEST or found.spread is None:
            continue
        if found.spread < _CLOSE * found.median or len(times) == _MOST:
            return found
        if time.perf_counter() - began > _SECONDS:
            return found


def positions_written(chunk_size: int, sample_tokens: int) -> int:
    """Number of positions that a model reads for the timing and for the sample text.

    Args:
        chunk_size: K, tokens in a chunk.
        sample_tokens: Maximum length of the sample text in tokens.
    """
    prompt, sample = (-(-tokens // chunk_size) for tokens in (PROMPT_TOKENS, sample_tokens))
    return prompt + max(_CHUNKS, sample) - 1  # the last chunk is not read


def _microseconds(model: LanguageModel, prompt: list[int], sampler: Sampler) -> float:
    """Time per token of one generation."""
    clock = _Clock(sampler)
    model.generate(
        [prompt] * _ROWS,
        max_new_tokens=_CHUNKS * model.chunk_size,
        sampler=clock,
        generator=torch.Generator(model.backbone.device),
    )
    seconds = clock.times[-1] - clock.times[_UNTIMED]
    return 1e6 * seconds / (_ROWS * (_CHUNKS - 1 - _UNTIMED) * model.chunk_size)


class _Clock:
    """A sampler that notes when each chunk is due.

    The tokens of a chunk are read before the next one is due, so a device has finished them.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.times: list[float] = []

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        self.times.append(time.perf_counter())
        return self._sampler(draw, generator)
