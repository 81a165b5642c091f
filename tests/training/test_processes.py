"""Processes with unequal shares: together they are one process with all rows."""

import dataclasses

import pytest
import torch
from torch import nn
from training_problems import counted_batch

from calmkit.finite import NonFiniteError
from calmkit.training import Means, TrainingSettings, fit
from calmkit.training.processes import mean_over_processes, rows_of_process, weight_of, weighted


@dataclasses.dataclass
class Process:
    """What of a fabric the functions use; `reduced` is what the others bring about."""

    global_rank: int
    world_size: int
    reduced: object = None
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    def all_reduce(self, value, reduce_op):
        return self.reduced(value, reduce_op)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(7, 5), nn.Tanh(), nn.Linear(5, 7))


def losses_of(module, batch):
    logits = module(batch.tokens).flatten(0, -2)
    losses = nn.functional.cross_entropy(logits, batch.tokens.flatten(), reduction="none")
    return losses.view(*batch.tokens.shape).mean(dim=-1)[batch.scored]


def gradients(loss, module):
    return torch.autograd.grad(loss, list(module.parameters()))


@pytest.mark.parametrize("counts", [(1, 7), (0, 7), (7, 0), (3, 3), (0, 1, 4, 8), (2, 6, 0, 0)])
def test_weighted_shares_have_the_gradient_of_the_joint_mean(counts):
    """The share without anything scored gives NaN, a mean over nothing: it does not count."""
    module, batch, processes = network(), counted_batch(counts), 2
    joint = losses_of(module, batch).mean()
    total = torch.tensor(float(sum(counts)))
    shares = [Process(rank, processes, lambda value, op: total) for rank in range(processes)]
    local = [losses_of(module, rows_of_process(batch, share)) for share in shares]
    weights = [weight_of(len(losses), share) for losses, share in zip(local, shares, strict=True)]
    minimised = [
        weighted(losses.mean(), weight) for losses, weight in zip(local, weights, strict=True)
    ]
    each = [gradients(loss, module) for loss in minimised]
    averaged = [sum(parts) / processes for parts in zip(*each, strict=True)]
    torch.testing.assert_close(averaged, list(gradients(joint, module)), rtol=1e-12, atol=1e-14)

    values = [{"loss": losses.mean(), "more": losses.mean() + 1} for losses in local]
    stacked = torch.stack(
        [
            weighted(torch.stack(list(value.values())).detach(), weight)
            for value, weight in zip(values, weights, strict=True)
        ]
    )
    shares[0].reduced = lambda value, op: stacked.mean(dim=0)
    logged = mean_over_processes(values[0], weights[0], shares[0])
    assert logged == pytest.approx({"loss": joint.item(), "more": joint.item() + 1}, rel=1e-12)


def test_nothing_to_score_anywhere_is_a_loss_of_zero():
    process = Process(0, 2, lambda value, op: torch.zeros(()).double())
    assert weight_of(0, process) == 0.0
    value = torch.tensor(torch.nan, requires_grad=True)
    loss = weighted(value, weight_of(0, process))
    assert loss == 0.0 and torch.autograd.grad(loss, value) == (0.0,)


def test_nan_of_another_process_is_told():
    process = Process(0, 2, lambda value, op: torch.tensor(torch.nan).double())
    with pytest.raises(NonFiniteError, match="another process met a value"):
        weight_of(3, process)
    assert weight_of(torch.nan, process).isnan()


def test_one_process_has_weight_one_and_changes_no_bit():
    process = Process(0, 1)
    value = torch.tensor(1 / 3, dtype=torch.float32, requires_grad=True)
    assert torch.equal(weighted(value, weight_of(7, process)), value)
    assert torch.autograd.grad(weighted(value, weight_of(torch.tensor(7), process)), value)[0] == 1


def train(objective, counts=(3, 5)):
    settings = TrainingSettings(3, warmup_steps=0, log_every=1)
    module, batch = network(), counted_batch(counts)
    return fit(module, objective, lambda step: batch, settings=settings, seed=0, loggers=())


def test_a_count_changes_nothing_in_one_process():
    def bare(module, batch, generator):
        return {"loss": losses_of(module, batch).mean()}

    def counted(module, batch, generator):
        losses = losses_of(module, batch)
        return Means({"loss": losses.mean()}, len(losses))

    assert train(bare).losses == train(counted).losses


def test_a_mean_over_nothing_is_zero_in_one_process_too():
    def nothing(module, batch, generator):
        losses = losses_of(module, batch)
        return Means({"loss": losses.mean()}, batch.scored.sum())

    result = train(nothing, counts=(0, 0))
    assert [value for _, value in result.losses] == [0.0, 0.0, 0.0]
    assert all(values["gradient_norm"] == 0.0 for _, values in result.curve)


@pytest.mark.parametrize(
    "count, said",
    [
        (-1, "count must be finite and at least 0; got -1"),
        (torch.tensor(float("nan")), "at least 0; got nan"),
        (float("inf"), "got inf"),
        (torch.ones(2), r"count must be one number; got shape \(2,\); sum it"),
    ],
)
def test_a_count_that_is_none_is_refused(count, said):
    def objective(module, batch, generator):
        return Means({"loss": losses_of(module, batch).mean()}, count)

    with pytest.raises(ValueError, match=said):
        train(objective)
