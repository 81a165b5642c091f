import math
from functools import partial

import pytest
import torch
from torch import nn
from training_problems import batch_at

from calmkit.training import MatrixDecayAdamW, TrainingSettings, fit


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


def module(bias=True, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(2, 3, bias=bias, dtype=dtype)


def objective(module, batch, generator):
    tokens = batch_at(0).tokens.flatten(0, 1).to(module.weight.dtype)  # one batch for all steps
    return {"loss": (module(tokens) - 1.0).square().mean()}


def train(model, optimizer, *, steps=12, directory=None):
    settings = TrainingSettings(steps, warmup_steps=2, log_every=3, checkpoint_every=5)
    return fit(
        model, objective, batch_at, settings=settings, seed=0, optimizer=optimizer,
        directory=directory, loggers=(),
    )  # fmt: skip


CLASSES = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and kind is not torch.optim.Optimizer
}
REFUSED = {
    "LBFGS": "optimizer must step without a closure; LBFGS computes the loss itself. Use",
    "SparseAdam": "optimizer must take dense gradients; SparseAdam does not. Use",
    "Muon": "optimizer must take every parameter; it refuses 'bias': Muon only supports 2D",
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_of_torchs_optimizers_trains_and_resumes_or_is_refused(name, tmp_path):
    model = module()
    before = model.weight.detach().clone()
    if name in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name]):
            train(model, CLASSES[name], directory=tmp_path)
        assert torch.equal(model.weight, before) and list(tmp_path.iterdir()) == []
    else:
        check_training(CLASSES[name], tmp_path)


def test_muon_trains_a_module_of_matrices_alone(tmp_path):
    check_training(torch.optim.Muon, tmp_path, bias=False)


def check_training(kind, tmp_path, **arguments):
    """It learns, and a run in two parts is one in one part, bitwise."""
    for dtype in (torch.float32, torch.float64):
        whole, first, second = (module(dtype=dtype, **arguments) for _ in range(3))
        result = train(whole, kind)
        assert result.losses[-1][1] < result.losses[0][1]
        directory = tmp_path / str(dtype)
        train(first, kind, steps=6, directory=directory)
        assert train(second, kind, directory=directory).losses == result.losses
        torch.testing.assert_close(second.state_dict(), whole.state_dict(), rtol=0, atol=0)


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})


@pytest.mark.parametrize(
    "factory, said",
    [
        (lambda p: torch.optim.SGD(list(p)[:1]), "hold every parameter with .* lacks 'bias'. Fre"),
        (
            lambda p: torch.optim.SGD([*p, nn.Parameter(torch.ones(1))]),
            "hold only the given parameters; SGD",
        ),
        (WithoutRate, 'have a learning rate "lr" in each group; WithoutRate has a group without'),
        (
            partial(torch.optim.Adam, differentiable=True),
            "be built with differentiable=False; got",
        ),
    ],
)
def test_an_optimizer_that_would_not_train_the_module_is_refused(factory, said):
    with pytest.raises(ValueError, match=f"optimizer must {said}.* Use another one"):
        train(module(), factory)


def test_what_is_wrong_with_its_settings_stays_its_own_message():
    with pytest.raises(ValueError, match=r"^Invalid learning rate: -1"):
        train(module(), partial(torch.optim.AdamW, lr=-1.0))


def test_sparse_gradients_are_refused_before_a_step():
    embedding = nn.Embedding(7, 3, sparse=True)

    def look_up(module, batch, generator):
        return {"loss": module(batch.tokens).square().mean()}

    with pytest.raises(ValueError, match="module must give dense gradients; it gives a sparse"):
        fit(
            embedding, look_up, batch_at, seed=0, optimizer=partial(torch.optim.SGD, lr=0.1),
            settings=TrainingSettings(2, warmup_steps=0, clip_norm=math.inf), loggers=(),
        )  # fmt: skip
