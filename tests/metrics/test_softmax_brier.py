"""Brier scores by probabilities, unbiased by enumeration of all that can be drawn."""

import itertools

import torch

from calmkit.metrics.softmax import softmax_brier, softmax_collision


def chain(seed=0, vocab=3):
    """A random Markov chain: probabilities of the first token and of each next one."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(vocab, generator=generator).softmax(dim=-1),
        (3 * torch.rand(vocab, vocab, generator=generator)).softmax(dim=-1),
    )


def test_brier_of_one_token():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    got = softmax_brier(p.log(), torch.tensor([1, 2]))
    torch.testing.assert_close(got, torch.tensor([0.6 - 0.38, 1.6 - 0.66]))


def test_the_collision_term_is_unbiased():
    """The mean over all prefixes that can be drawn, each with its probability."""
    first, following = chain()
    for steps in (1, 2, 3):
        want = 0.0
        for x in itertools.product(range(3), repeat=steps + 1):
            each = [first[x[0]], *(following[a, b] for a, b in itertools.pairwise(x))]
            want += float(torch.stack(each).prod()) ** 2
        mean = 0.0
        for x in itertools.product(range(3), repeat=steps):
            each = [first[x[0]], *(following[a, b] for a, b in itertools.pairwise(x))]
            drawn = torch.stack(each).log()[None]
            got = softmax_collision(drawn, following[x[-1]].log()[None])
            mean += float(drawn.sum().exp() * got)
        torch.testing.assert_close(mean, want)


def test_samples_are_averaged():
    drawn = torch.tensor([[[0.5]], [[0.2]]]).log()
    last = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]).log()
    want = (0.5 * 0.82 + 0.2 * 0.5) / 2
    torch.testing.assert_close(softmax_collision(drawn, last), torch.tensor([want]))
