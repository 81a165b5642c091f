"""Initial weights have the spread that the docstring states."""

import torch
from torch import nn

from calmkit.nn import scaled_normal_


def test_variance_is_gain_squared_over_fan_in():
    torch.manual_seed(0)
    wide = nn.Linear(400, 1000)
    scaled_normal_(wide, gain=3.0)
    # 400,000 draws: the sample variance is within 1.6 per cent at seven standard errors.
    torch.testing.assert_close(wide.weight.var().item(), 9 / 400, rtol=0.016, atol=0)
    assert (wide.bias == 0).all()


def test_variance_of_the_input_is_kept():
    torch.manual_seed(0)
    layer = nn.Linear(300, 500, bias=False)
    scaled_normal_(layer)
    out = layer(torch.randn(1000, 300))
    # The spread over random weights is about sqrt(2 / 500) / sqrt(300) beside that of the input.
    torch.testing.assert_close(out.var().item(), 1.0, rtol=0.05, atol=0)


def test_only_linear_layers_are_touched():
    module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4, bias=False), nn.LayerNorm(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    scaled_normal_(module)
    changed = [n for n, value in module.state_dict().items() if not torch.equal(value, before[n])]
    assert changed == ["1.weight"]
