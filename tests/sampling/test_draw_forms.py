"""Samplers are right for integers of any dtype, and refuse draws that change their form."""

import copy

import pytest
import torch
from seeding import seeded

from calmkit.sampling import (
    BatchTemperature,
    Draw,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    Sampler,
    batch_temperature,
    most_frequent,
)
from calmkit.sampling.undecoded import Decoded

DTYPES = [
    torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip
SAMPLERS = {
    "plain": PlainSampler(),
    "few": BatchTemperature(0.5, 9),
    "subsets": BatchTemperature(0.5, 64),
    "between": BatchTemperature(0.7, 20),
    "nucleus": BatchTemperature(0.5, 20, top_p=0.8),
    "exact": ExactTemperature(0.4, 2000, fallback=BatchTemperature(0.4, 300)),
    "frequent": MostFrequent(300),
}


class Box:
    """Draws chunks from a table, in a dtype; counts what it drew for each row."""

    def __init__(self, dtype=torch.long, shift=0, batch=(40,)):
        self.table, self.dtype, self.batch = CHUNKS + shift, dtype, batch
        self.generator = seeded()
        self.counts = torch.zeros(batch, dtype=torch.long)
        self.numbers = torch.arange(self.counts.numel())

    def __call__(self, n):
        rows = len(self.numbers)
        self.counts.view(-1)[self.numbers] += n
        drawn = torch.multinomial(SHARES, n * rows, True, generator=self.generator)
        return self.table[drawn].view(n, *self.batch, -1).to(self.dtype)


class Selectable(Box):
    """The same, also for some of its rows alone."""

    def select(self, rows):
        some = copy.copy(self)
        some.numbers, some.batch = self.numbers[rows], (len(rows),)
        return some


CHUNKS = torch.tensor([[99, 1, 2, 3], [0, 1, 2, 5], [0, 1, 2, 37], [7, 0, 0, 0]])
SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.uint32])
def test_chunks_that_agree_in_the_low_bits_of_a_sum_are_told_apart(dtype):
    """Packed into 32 bits, the first and the third of these were one."""
    a, b, c = [599, 1, 2, 3], [0, 1, 2, 5], [0, 1, 2, 37]
    candidates = torch.tensor([a] * 5 + [b] * 4 + [c] * 4, dtype=dtype)
    rows = 40_000
    chosen = batch_temperature(
        candidates[:, None].expand(-1, rows, -1), 0.5, generator=seeded()
    ).long()
    for chunk, pairs in ((a, 10), (b, 6), (c, 6)):
        share = (chosen == torch.tensor(chunk)).all(dim=-1).double().mean()
        want = pairs / 22
        assert abs(share - want) < 5 * (want * (1 - want) / rows) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_any_dtype_gives_the_choice_of_int64(name, dtype):
    got = SAMPLERS[name](Box(dtype), seeded(1))
    want = SAMPLERS[name](Box(), seeded(1))
    assert got.tokens.dtype == dtype
    assert torch.equal(got.tokens.long(), want.tokens)
    assert got.draws.dtype == torch.long and torch.equal(got.draws, want.draws)
    assert torch.equal(got.settled, want.settled)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("shift", [2**31, 2**40, 2**62, -50, -(2**62)])
def test_ids_beyond_31_bits_and_below_zero(name, shift):
    got = SAMPLERS[name](Box(shift=shift), seeded(1))
    want = SAMPLERS[name](Box(), seeded(1))
    assert torch.equal(got.tokens - shift, want.tokens)
    assert torch.equal(got.draws, want.draws)


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_return_the_dtype_of_the_candidates(dtype):
    candidates = torch.tensor([[3, 4], [1, 2], [3, 4]], dtype=dtype)
    for chosen in (batch_temperature(candidates, 0.5), most_frequent(candidates)):
        assert chosen.dtype == dtype and chosen.tolist() == [3, 4]
    assert batch_temperature(candidates[:, None][:, :0], 0.5).dtype == dtype


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", [Box, Selectable])
@pytest.mark.parametrize("batch", [(), (30,), (2, 3)])
def test_draws_are_what_the_box_drew_for_each_row(name, kind, batch):
    box = kind(batch=batch)
    got = SAMPLERS[name](box, seeded(1))
    assert torch.equal(got.draws, box.counts)


def changing(change):
    """A box whose second draw, and each later one, is changed."""
    calls = []

    def draw(n):
        calls.append(n)
        tokens = (torch.arange(n * 24) % 7).view(n, 3, 8)
        return tokens if len(calls) == 1 else change(tokens)

    return draw


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[..., :1],
        lambda x: x[:, :1],
        lambda x: x.flatten(1),
        lambda x: x.int(),
        lambda x: x.double(),
        lambda x: x[:-1],
        lambda x: x.tolist(),
    ],
    ids=["chunk", "rows", "axes", "dtype", "float", "number", "list"],
)
@pytest.mark.parametrize("name", ["subsets", "exact"])
def test_a_draw_of_another_form_than_the_first_is_named(name, change):
    with pytest.raises(ValueError, match=r"draw\(\d+\) must return"):
        SAMPLERS[name](changing(change), seeded())


class Narrow(Decoded):
    def tokens_at(self, places, chosen):
        return super().tokens_at(places, chosen)[:, :1]


def test_undecoded_candidates_of_another_form_are_named():
    class Lazy:
        def __init__(self, make):
            self.make = make

        def __call__(self, n):
            raise NotImplementedError

        def undecoded(self, n):
            return self.make(n)

    with pytest.raises(ValueError, match=r"tokens_at must return integers of shape \(4, 2\)"):
        BatchTemperature(0.5, 4)(Lazy(lambda n: Narrow(torch.zeros(n, 1, 3).long())))
    sizes = iter([2, 3])
    with pytest.raises(ValueError, match=r"undecoded\(\d+\) .* \(\d+, 1, 2\), as earlier"):
        BatchTemperature(0.5, 64)(
            Lazy(lambda n: Decoded(torch.arange(n)[:, None, None].expand(n, 1, next(sizes))))
        )


def test_protocols_can_be_checked():
    assert isinstance(PlainSampler(), Sampler) and isinstance(lambda n: n, Draw)
    assert not isinstance(3, Sampler) and not isinstance(3, Draw)
