"""Work per distinct token: the plain computation's results and gradients."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from calmkit.nn import for_each_distinct

IDS = torch.randint(20, (4, 32, 3), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 6), nn.RMSNorm(6), nn.Linear(6, 5), nn.SiLU())


def counting(function):
    """The function, and the number of ids that it was asked for."""
    asked = []

    def call(ids):
        asked.append(ids.numel())
        return function(ids)

    return call, asked


def test_results_and_gradients_are_those_of_all_places(network):
    function, asked = counting(network)
    found, plain = for_each_distinct(function, IDS), network(IDS)
    assert asked == [20] and plain.shape == found.shape == (4, 32, 3, 5)
    assert_close(found, plain)
    parameters, weights = list(network.parameters()), torch.randn(4, 32, 3, 5)
    want = torch.autograd.grad((plain * weights).sum(), parameters)
    assert_close(torch.autograd.grad((found * weights).sum(), parameters), want)


def test_few_ids_and_outlines_are_computed_plainly(network):
    for ids in (IDS[0, :2], IDS.to("meta")):
        function, asked = counting(network.to(ids.device))
        found = for_each_distinct(function, ids)
        assert asked == [ids.numel()] and found.shape == (*ids.shape, 5)


def test_it_compiles_to_one_graph(network):
    torch.compiler.reset()
    compiled = torch.compile(
        lambda ids: for_each_distinct(network, ids), fullgraph=True, backend="eager"
    )
    assert_close(compiled(IDS), network(IDS))


def test_under_a_transform_it_is_plain(network):
    found = torch.func.vmap(lambda ids: for_each_distinct(network, ids))(IDS.repeat(1, 4, 1))
    assert_close(found, network(IDS.repeat(1, 4, 1)))
