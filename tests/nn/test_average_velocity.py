"""The network of the one-step heads against its formula."""

import pytest
import torch

from calmkit.nn.average_velocity import AverageVelocity


def network():
    """A small network in which nothing is zero."""
    net = AverageVelocity(4, 3, width=6, depth=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return net


def test_matches_its_formula():
    """Embeddings of the time, of the span and of the condition are added, nothing else."""
    net = network()
    x, cond = torch.randn(2, 7, 3), torch.randn(7, 4)
    time, end = torch.rand(2, 2, 7)
    for s in range(2):
        for p in range(7):
            embedding = net.network.time_embedding(time[s, p])
            embedding = embedding + net.span_embedding(end[s, p] - time[s, p])
            embedding = embedding + net.network.cond_embedding(cond[p])
            want = net.network.modulated(x[s, p][None], embedding[None])[0]
            torch.testing.assert_close(net(x, time, end, cond)[s, p], want)


def test_time_and_span_have_embeddings_of_their_own():
    net, x, cond = network(), torch.randn(1, 3), torch.randn(4)
    first, second = torch.tensor([0.2]), torch.tensor([0.7])
    ahead, behind = net(x, first, second, cond), net(x, second, first, cond)
    later = net(x, first + 0.1, second + 0.1, cond)  # the same span
    assert not torch.isclose(ahead, behind).any() and not torch.isclose(ahead, later).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 1)])
def test_shared_times_give_what_repeated_ones_give(shape):
    net, x, cond = network(), torch.randn(2, 7, 3), torch.randn(7, 4)
    time, end = torch.rand(2, *shape)
    want = net(x, time.expand(2, 7), end.expand(2, 7), cond)
    torch.testing.assert_close(net(x, time, end, cond), want)


def test_starts_at_zero():
    torch.manual_seed(0)
    net = AverageVelocity(4, 3, width=6, depth=2)
    x, cond = torch.randn(2, 7, 3), torch.randn(7, 4)
    time, end = torch.rand(2, 2, 7)
    assert (net(x, time, end, cond) == 0).all()
    assert (net.span_embedding(end) != 0).any()
