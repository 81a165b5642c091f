import itertools

import torch

from calmkit.training import step_generator
from calmkit.training.randomness import seed_global_generators, step_seed


def test_same_place_same_numbers():
    first, second = (torch.randn(4, generator=step_generator(3, 8)) for _ in range(2))
    assert torch.equal(first, second)


def test_other_seed_step_or_micro_batch_gives_another_stream():
    places = list(itertools.product((0, 1, 11), (0, 1, 11), (0, 1, 11)))
    draws = {tuple(torch.rand(2, generator=step_generator(*p)).tolist()) for p in places}
    assert len(draws) == len({step_seed(*p) for p in places}) == len(places)


def test_seeding_globally_equals_manual_seed():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        want = torch.rand(3)
        seed_global_generators(5, torch.device("cpu"))
        assert torch.equal(torch.rand(3), want)
