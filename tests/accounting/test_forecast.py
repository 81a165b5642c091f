"""How a step's cost becomes that of a training: rows, devices, shards."""

import dataclasses

import pytest
import torch
from torch import nn

from calmkit.accounting import TrainingPlan, forecast
from calmkit.accounting.step_memory import step_memory
from calmkit.training import MatrixDecayAdamW

PLAN = TrainingPlan(
    steps=10, batch_size=32, micro_batch=4, positions=16, chunk_size=3, devices=1
)  # fmt: skip


class Model(nn.Module):
    """A part without layers, and one with three."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(20, 20).requires_grad_(False)
        self.first = nn.Linear(20, 30)
        self.stack = nn.Module()
        self.stack.layers = nn.ModuleList(nn.Linear(30, 30) for _ in range(3))

    def forward(self, x):
        x = self.first(self.frozen(x))
        for layer in self.stack.layers:
            x = layer(x).tanh()
        return x


def loss_of(rows, positions=16):
    return lambda outline: outline(torch.zeros(rows, positions, 20)).sum()


def predict(units=lambda model: (), **changes):
    plan, model = dataclasses.replace(PLAN, **changes), Model()
    return forecast(
        model, lambda rows: loss_of(rows, plan.positions), MatrixDecayAdamW, plan, units(model)
    )  # fmt: skip


def test_tokens_and_flops_are_those_of_all_rows():
    found = predict()
    of_micro_batch = step_memory(Model(), loss_of(4), MatrixDecayAdamW).flops
    assert found.tokens == 10 * 32 * 16 * 3
    assert found.flops_per_step == 32 / 4 * of_micro_batch
    assert found.flops == 10 * found.flops_per_step
    assert found.seconds(1e9, share=0.5) == pytest.approx(found.flops / 5e8)
    assert predict(devices=4).seconds(1e9) == pytest.approx(found.seconds(1e9) / 4)


def test_one_device_holds_what_the_step_needs():
    """Gradients of the micro-batches before are alive."""
    step = step_memory(Model(), loss_of(4), MatrixDecayAdamW, accumulates=True)
    found = predict()
    assert found.memory == {
        "weights": step.weights, "gradients": step.gradients, "optimizer": step.optimizer_state,
        "averages": 0.0, "activations": step.activations, "temporary": step.temporaries,
    }  # fmt: skip
    assert found.total_memory == sum(found.memory.values())
    assert predict(averages=True).memory["averages"] == 4 * (20 * 30 + 30 + 3 * (30 * 30 + 30))


def test_rows_of_a_device():
    assert dataclasses.replace(PLAN, micro_batch=None).rows_at_once == 32
    assert dataclasses.replace(PLAN, micro_batch=None, devices=4).rows_at_once == 8
    assert dataclasses.replace(PLAN, devices=16).rows_at_once == 2


def test_replicas_send_their_gradients():
    one, several = predict().memory, predict(devices=4).memory
    assert several == {**one, "messages": one["gradients"]}


def test_shards_divide_what_is_trained():
    one = predict().memory
    shards = predict(lambda model: list(model.stack.layers), devices=4, shards=True).memory
    for kind in ("gradients", "optimizer"):
        assert shards[kind] == one[kind] / 4
    assert shards["weights"] == 8 * 420 + (one["weights"] - 8 * 420) / 4  # the frozen ones stay
    assert shards["activations"] == one["activations"]
    # Weights of the largest layer and of the next one, and a gradient: 930 numbers of 8 bytes.
    assert shards["gathered"] == 3 * 8 * 930
    # Without units all trained weights are gathered at once.
    assert predict(devices=4, shards=True).memory["gathered"] == 3 * 8 * (630 + 3 * 930)


# Four and five rows hold 4,096 positions at most; of five, two and four are run.
@pytest.mark.parametrize("positions", [1024, 800])
def test_long_rows_are_extrapolated(positions):
    whole = step_memory(Model(), loss_of(20, positions), MatrixDecayAdamW)
    found = predict(positions=positions, batch_size=20, micro_batch=None)
    assert found.total_memory == pytest.approx(
        whole.weights + whole.gradients + whole.optimizer_state + whole.activations
        + whole.temporaries, rel=0.02,
    )  # fmt: skip
    assert found.flops_per_step == pytest.approx(whole.flops, rel=1e-9)
