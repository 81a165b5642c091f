"""Tensors without numbers: what is asked of them, and what they leave behind."""

import pytest
import torch
from torch import nn

from calmkit.accounting.cost import cost_of
from calmkit.accounting.dry_run import DryRun
from calmkit.accounting.outline import Outline
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import CosineSchedule
from calmkit.scoring import EnergyScore


@pytest.fixture
def run():
    with DryRun() as entered:
        yield entered


def test_tensors_have_no_memory_inside_and_numbers_outside():
    with DryRun():
        huge = torch.zeros(10**7, 10**7) @ torch.zeros(10**7, 3)
        assert isinstance(huge, Outline)
    assert torch.ones(2).sum() == 2


def test_a_run_can_be_entered_again_and_ends_with_an_error():
    run = DryRun()
    for _ in range(2):
        with pytest.raises(KeyError), run:
            raise KeyError
        assert not isinstance(torch.ones(2), Outline)


def test_questions_are_answered_as_by_zeros(run):
    x = torch.randn(10**6, 10)
    low, high = x.aminmax()
    assert low.isfinite() and high.isfinite()
    assert not low < 0 and low >= 0
    assert float(high) == 0.0 and int(torch.empty(9, dtype=torch.long).max()) == 0
    assert float(high + 2) == 2.0
    assert not (x > 1).any()


def test_tables_are_real(run):
    table = torch.arange(5)
    assert (table > -1).all() and not (table > 0).all()
    assert int((table[1:] * 2).sum()) == 20
    changed = table.double()
    changed[-1:] += 1
    assert float(changed.max()) == 5.0
    schedule = CosineSchedule(20)
    assert len(schedule.visiting(schedule.even_steps(4))) == 4


def test_real_tables_of_a_part_are_real():
    table = torch.tensor([3.0, 4.0])
    with DryRun():
        assert float((table * 2).sum()) == 14.0


def test_large_tables_are_not_followed(run):
    assert isinstance(torch.arange(10**12), Outline)


def test_ids_are_not_given_to_other_tensors(run):
    """A known scalar that is gone must not lend its number to a new one."""
    for _ in range(200):
        assert float(torch.arange(3).sum()) == 3.0
        assert float(torch.randn(4, 4).sum()) == 0.0


def test_a_table_that_something_is_written_into_is_no_table(run):
    table = torch.arange(5.0)
    assert float(table.max()) == 4.0
    table += torch.randn(5)
    assert float(table.max()) == 0.0


def test_views_share_memory_and_say_they_are_on_the_cpu(run):
    x = torch.zeros(3, 4)
    assert x[1:].t().untyped_storage()._cdata == x.untyped_storage()._cdata
    assert (x.device.type, x.untyped_storage().nbytes()) == ("cpu", 3 * 4 * 8)
    assert repr(x) == "Outline((3, 4), torch.float64)"


def test_operations_are_counted():
    """Products alone; 2 per multiply-add."""
    with DryRun() as run:
        x = torch.zeros(2, 3) @ torch.zeros(3, 5) + torch.zeros(5)
        assert run.operations == 2 * 2 * 3 * 5
        x[:, None] @ x[:, :, None]
    assert run.operations == 2 * 2 * 3 * 5 + 2 * 2 * 5


def test_checks_of_shapes_still_hold(run):
    target = DiagonalGaussian(torch.zeros(2, 4), torch.ones(2, 4))
    assert EnergyScore().score(torch.zeros(3, 2, 4), target).shape == (2,)
    with pytest.raises(ValueError, match="samples must have shape"):
        EnergyScore().score(torch.zeros(3, 2, 5), target)


class TestOutline:
    def test_has_shapes_types_gradients_and_ties(self):
        real = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3), nn.Linear(3, 3))
        real[2].weight = real[0].weight
        real[1].requires_grad_(False)
        real.to(torch.float32).train()
        outline = DryRun().outline(real)
        assert outline[2].weight is outline[0].weight is not real[0].weight
        for ours, theirs in zip(
            outline.state_dict().values(), real.state_dict().values(), strict=True
        ):
            assert isinstance(ours, Outline)
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        pairs = zip(outline.parameters(), real.parameters(), strict=True)
        assert [(a.requires_grad, b.requires_grad) for a, b in pairs] == [
            (True, True), (False, False), (False, False), (True, True),
        ]  # fmt: skip
        assert not outline.training and real.training


class TestCost:
    def test_linear_layers_by_hand(self):
        run = DryRun()
        outline = run.outline(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))
        with run:
            x = torch.zeros(5, 4)
            cost = cost_of(run, lambda: outline(x), weights=outline.parameters())
        # Products 5 x 4 x 6 and 5 x 6 x 2; both again for the weights, the second one for tanh.
        assert cost.forward == 2 * 5 * (24 + 12)
        assert cost.backward == 2 * 5 * (24 + 12 + 12)
        assert cost.total == cost.forward + cost.backward
        # The input, and tanh's result, which the second layer keeps as well.
        assert cost.kept_bytes == 8 * 5 * (4 + 6)

    def test_without_a_gradient_there_is_no_backward_pass(self, run):
        cost = cost_of(run, lambda: torch.ones(3, 4) @ torch.ones(4, 2))
        assert (cost.forward, cost.backward, cost.kept_bytes) == (48, 0, 0)
