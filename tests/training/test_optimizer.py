import torch
from torch import nn

from calmkit.training import MatrixDecayAdamW


def test_without_gradient_only_matrices_shrink():
    module = nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    MatrixDecayAdamW(module.parameters(), lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(module.weight.detach(), before["weight"] * (1 - 0.5 * 0.1))
    assert torch.equal(module.bias, before["bias"])


def test_defaults_are_the_papers():
    (group,) = MatrixDecayAdamW([nn.Parameter(torch.ones(2, 2))]).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (3e-4, (0.9, 0.95), 0.1)
