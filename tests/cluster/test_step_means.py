"""Micro-batches and processes with unequal shares: together they are one pass over all rows."""

import dataclasses

import pytest
import torch
from torch import nn
from training_problems import VOCAB, counted_batch

from calmkit.cluster import StepMeans, weighted
from calmkit.training import Means, TrainingSettings, fit, step_generator
from calmkit.training.randomness import step_seed


@dataclasses.dataclass
class Process:
    """What of a fabric `StepMeans` uses; `reduced` is what all processes bring about."""

    world_size: int = 1
    reduced: object = None
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    def all_reduce(self, value, reduce_op):
        assert reduce_op == "sum"
        return self.reduced(value)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(VOCAB, 5), nn.Tanh(), nn.Linear(5, VOCAB))


def losses_of(module, batch):
    logits = module(batch.tokens).flatten(0, -2)
    losses = nn.functional.cross_entropy(logits, batch.tokens.flatten(), reduction="none")
    return losses.view(*batch.tokens.shape).mean(dim=-1)[batch.scored]


def fitted(counts, micro_batch, aim):
    settings = TrainingSettings(4, warmup_steps=0, log_every=1, micro_batch=micro_batch)
    module = network()
    return module, fit(
        module,
        aim,
        lambda step: counted_batch(counts, step),
        settings=settings,
        seed=0,
        loggers=(),
    )


def counted(module, batch, generator):
    losses = losses_of(module, batch)
    return Means({"loss": losses.mean(), "square": losses.square().mean()}, batch.scored.sum())


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize(
    "counts", [(1, 7), (0, 7), (7, 0), (3, 3), (0, 1, 4, 8), (2, 6, 0, 0), (0, 0)], ids=str
)
def test_micro_batches_equal_the_whole_batch(counts, micro_batch):
    """One without anything scored gives NaN, a mean over nothing: it does not count."""
    whole, want = fitted(counts, None, counted)
    module, got = fitted(counts, micro_batch, counted)
    torch.testing.assert_close(module.state_dict(), whole.state_dict(), rtol=0, atol=1e-12)
    for (_, ours), (_, theirs) in zip(got.curve, want.curve, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_each_micro_batch_has_its_own_rows_and_generators():
    seen = []

    def spy(module, batch, generator):
        seen.append((batch, generator.initial_seed(), torch.initial_seed()))
        return counted(module, batch, generator)

    fitted((3, 4, 5, 6), 2, spy)
    rows, seeds, globally = zip(*seen, strict=True)
    want = [step_seed(0, step, number) for step in range(4) for number in range(2)]
    assert list(seeds) == list(globally) == want
    assert want[1] == step_generator(0, 0, 1).initial_seed()
    for place, batch in enumerate(rows):
        whole = counted_batch((3, 4, 5, 6), place // 2)
        assert torch.equal(batch.tokens, whole.tokens[place % 2 :: 2])
        assert torch.equal(batch.scored, whole.scored[place % 2 :: 2])


def test_micro_batches_with_other_keys_are_refused():
    def moody(module, batch, generator):
        means = counted(module, batch, generator)
        moody.calls += 1
        return means if moody.calls < 2 else Means({"loss": means.values["loss"]}, means.count)

    moody.calls = 0
    with pytest.raises(ValueError, match=r"same keys for every micro-batch; got \['loss'\] after"):
        fitted((3, 4), 1, moody)


def test_means_and_scale_of_two_processes():
    """The other process adds 5 items of mean 2 to the 3 of mean 1."""
    process = Process(2, lambda value: value + 5.0)
    means = StepMeans(process, alone=False)
    assert means.add({"loss": torch.ones(())}, 3) == 3
    means.exchange()
    assert means.scale == 2 / 8
    process.reduced = lambda value: value + 10.0
    assert means.read() == ({"loss": 13 / 8}, True)  # the other one stops


def test_the_exchange_of_counts_reads_nothing_from_the_device():
    """The meta device has nothing to read; on a GPU, reading would wait."""
    on_meta = torch.device("meta")
    means = StepMeans(Process(2, lambda value: value + 5.0, on_meta), alone=False)
    means.add({"loss": torch.ones((), device=on_meta)}, 3)
    means.exchange()
    assert means.scale.device == on_meta


def test_a_single_micro_batch_has_weight_one_and_changes_no_bit():
    value = torch.tensor(1 / 3, dtype=torch.float32, requires_grad=True)
    means = StepMeans(Process(), alone=True)
    weight = means.add({"loss": value}, 7)
    means.exchange()
    assert torch.equal(weighted(value, weight), value) and means.scale is None
    assert torch.autograd.grad(weighted(value, weight), value)[0] == 1
    assert means.read(stops=True) == ({"loss": value.item()}, True)
    assert means.read() == ({"loss": value.item()}, False)


def test_a_weight_of_zero_ignores_nan():
    value = torch.tensor(torch.nan, requires_grad=True)
    loss = weighted(value, torch.zeros(()))
    assert loss == 0.0 and torch.autograd.grad(loss, value) == (0.0,)


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
