"""A right sampler, and samplers that are wrong in one thing each."""

import torch

from calmkit.sampling import (
    MostFrequent,
    PlainSampler,
    SampledChunks,
    SoftmaxSampler,
    exact_temperature,
)


class Right:
    """The exact algorithm."""

    max_draws = 300

    def __init__(self, temperature=0.5):
        self.temperature = temperature

    def __call__(self, draw, generator=None):
        got = exact_temperature(
            draw, self.temperature, generator=generator, max_draws=self.max_draws
        )
        return self.told(got)

    def told(self, got):
        return got


class TokensAlone(Right):
    def told(self, got):
        return got.tokens


class CandidatesAxis(Right):
    def told(self, got):
        return SampledChunks(got.tokens[None], got.draws[None], got.settled[None])


class OneNumberOfDraws(Right):
    def told(self, got):
        return SampledChunks(got.tokens, got.draws.sum(), got.settled)


class Flattened(Right):
    def told(self, got):
        tokens = got.tokens.reshape(-1, got.tokens.shape[-1])
        return SampledChunks(tokens, got.draws.flatten(), got.settled.flatten())


class MixedPlaces(Right):
    def told(self, got):
        return SampledChunks(got.tokens.flip(-1), got.draws, got.settled)


class NextChunk(Right):
    def told(self, got):
        return SampledChunks(got.tokens + 7, got.draws, got.settled)


class Undercounting(Right):
    def told(self, got):
        return SampledChunks(got.tokens, (got.draws - 1).clamp_min(1), got.settled)


class CountingOne(Right):
    def told(self, got):
        return SampledChunks(got.tokens, torch.ones_like(got.draws), got.settled)


class Overcounting(Right):
    def told(self, got):
        return SampledChunks(got.tokens, got.draws + 1000, got.settled)


class CountingFromZero(Right):
    def told(self, got):
        return SampledChunks(got.tokens, got.draws - 1, got.settled)


class LooksAhead:
    """Temperature 1, by the second of two draws; it tells of one."""

    def __call__(self, draw, generator=None):
        tokens = draw(2)[1]
        ones = torch.ones_like(tokens[..., 0])
        return SampledChunks(tokens, ones, ones.bool())


class GlobalChoice(Right):
    def __call__(self, draw, generator=None):
        return super().__call__(draw, None)


class SeedingGlobally(Right):
    def __call__(self, draw, generator=None):
        torch.manual_seed(0)
        return super().__call__(draw, generator)


class Alternating(Right):
    calls = 0

    def __call__(self, draw, generator=None):
        self.calls += 1
        draw(self.calls % 2)
        return super().__call__(draw, generator)


class InvertedSettled(Right):
    def told(self, got):
        return SampledChunks(got.tokens, got.draws, ~got.settled)


class Zeros(Right):
    def told(self, got):
        return SampledChunks(0 * got.tokens, got.draws, got.settled)


class SettledByCount(Right):
    def told(self, got):
        return SampledChunks(got.tokens, got.draws, got.draws > 5)


class TakesAnything(Right):
    def __call__(self, draw, generator=None):
        return super().__call__(lambda n: draw(n)[:n].long(), generator)


class CutsDraws(Right):
    def __call__(self, draw, generator=None):
        return super().__call__(lambda n: draw(n)[:n], generator)


class RoundsDraws(Right):
    def __call__(self, draw, generator=None):
        return super().__call__(lambda n: draw(n).long(), generator)


class NamesNothing(Right):
    def __call__(self, draw, generator=None):
        try:
            return super().__call__(draw, generator)
        except ValueError:
            raise ValueError("bad input") from None


class TooCold(Right):
    def __init__(self, temperature=0.5):
        super().__init__(0.8 * temperature)


class WholeNumbersOnly(Right):
    """At 0.7, as at 1/2: pairs decide."""

    def __init__(self, temperature=0.5):
        super().__init__(1 / max(1, round(1 / temperature + 0.2)))


class IgnoresTemperature(Right):
    def __init__(self, temperature=0.5):
        super().__init__(1.0)


class HalfAlways(Right):
    def __init__(self, temperature=0.5):
        super().__init__(0.5)


class Inverted(Right):
    def __init__(self, temperature=0.5):
        super().__init__(min(1.0, 1.5 - temperature))


class NextRow(Right):
    def told(self, got):
        return SampledChunks(got.tokens.roll(1, 0), got.draws, got.settled)


class Twins(Right):
    def told(self, got):
        tokens = got.tokens.clone()
        half = len(tokens) // 2
        tokens[1 : 2 * half : 2] = tokens[: 2 * half : 2]
        return SampledChunks(tokens, got.draws, got.settled)


class SomeTwins(Right):
    def told(self, got):
        tokens = got.tokens.clone()
        count = len(tokens) // 8
        tokens[1 : 8 * count : 8] = tokens[: 8 * count : 8]
        return SampledChunks(tokens, got.draws, got.settled)


class NeverAlike(Right):
    """Every second row avoids the choice of the row before."""

    def told(self, got):
        tokens = got.tokens.clone()
        half = len(tokens) // 2
        first, second = tokens[: 2 * half : 2], tokens[1 : 2 * half : 2]
        tokens[1 : 2 * half : 2] = torch.where(first == second, (second + 1) % 4, second)
        return SampledChunks(tokens, got.draws, got.settled)


class Overdrawing(Right):
    def __call__(self, draw, generator=None):
        return exact_temperature(
            draw, self.temperature, generator=generator, max_draws=self.max_draws + 64
        )


class SettlesAnyway(Right):
    def __call__(self, draw, generator=None):
        return exact_temperature(
            draw,
            self.temperature,
            generator=generator,
            max_draws=self.max_draws - 1,
            fallback=PlainSampler(),
        )

    def told(self, got):
        return got


class SettlesAndSaysSo(SettlesAnyway):
    def __call__(self, draw, generator=None):
        got = super().__call__(draw, generator)
        return SampledChunks(got.tokens, got.draws, torch.ones_like(got.settled))


class LooksOnceMore(Right):
    def __call__(self, draw, generator=None):
        try:
            return super().__call__(draw, generator)
        finally:
            draw(1)


MUTANTS = {
    "can_be_built_and_used": {
        TokensAlone: "seen      a Tensor",
        CandidatesAxis: "tokens has shape (1, 6, 1)",
        OneNumberOfDraws: "TypeCheckError",
    },
    "any_batch_and_chunk": {
        Flattened: "tokens has shape",
        MixedPlaces: "which was never drawn for it",
        NextChunk: "which was never drawn for it",
    },
    "draws_are_reported_honestly": {
        Undercounting: "choices change when draws beyond the reported number do",
        CountingOne: "choices change when draws beyond the reported number do",
        LooksAhead: "choices change when draws beyond the reported number do",
        Overcounting: "were made",
        CountingFromZero: "report fewer than one draw",
    },
    "randomness_is_the_generators": {
        GlobalChoice: "global generator was moved",
        SeedingGlobally: "global generator was moved",
        Alternating: "of 200 choices differ",
    },
    "sure_rows_are_settled": {
        InvertedSettled: "20 of 20 rows got their only chunk, 0 are settled",
        Zeros: "0 of 20 rows got their only chunk",
        SettledByCount: "0 are settled",
    },
    "wrong_draws_are_refused": {
        TakesAnything: "names draw: a black box gives as many draws as it is asked for",
        CutsDraws: "names draw: a black box gives as many draws as it is asked for",
        RoundsDraws: "names draw: a black box gives integers",
        NamesNothing: "ValueError: bad input",
    },
    "law_is_tempered": {
        TooCold: "at temperature 1 shares",
        WholeNumbersOnly: "at temperature 0.7 shares",
        NextRow: "at temperature 1 shares",
    },
    "temperature_is_used": {
        IgnoresTemperature: "a larger share at the lower temperature",
        HalfAlways: "a larger share at the lower temperature",
        Inverted: "a larger share at the lower temperature",
    },
    "rows_are_independent": {
        Twins: "neighbouring rows choose alike in 100.0 per cent",
        SomeTwins: "neighbouring rows choose alike in",
        NeverAlike: "neighbouring rows choose alike in 0.0 per cent",
    },
    "budget_is_kept": {
        Overdrawing: "364 draws of a row",
        SettlesAndSaysSo: "which is then settled",
        LooksOnceMore: "301 draws of a row",
    },
}


class OneByOne(Right):
    """Asks for one candidate at a time."""

    def __call__(self, draw, generator=None):
        def singly(n):
            return torch.cat([draw(1) for _ in range(n)])

        return super().__call__(singly, generator)


ACCEPTED = {
    Right: (),
    OneByOne: (),
    SettlesAnyway: (),
    PlainSampler: (),
    SoftmaxSampler: (),
    MostFrequent: ("law_is_tempered",),
}
