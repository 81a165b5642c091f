"""What is not finite, wherever it shows first: told with its step; a user's own errors stay."""

import math

import pytest
import torch
from torch import nn
from training_problems import Toy, batch_at, objective, run, settings

from calmkit.finite import check_finite
from calmkit.training import TrainingDiverged, TrainingSettings, fit
from calmkit.training.checkpoint import find_checkpoints


def from_step(step, then):
    """The objective, and from one step on something else."""
    calls = []

    def changing(module, batch, generator):
        calls.append(None)
        aim = objective if len(calls) <= step else then
        return aim(module, batch, generator)

    return changing


def checking(module, batch, generator):
    check_finite(samples=module.mix.weight * math.nan)
    raise AssertionError("not reached")


def test_a_refusal_of_nan_inside_the_objective_is_divergence():
    module, healthy = Toy(), Toy()
    said = r"step 6 \(from 0\): 'loss' cannot be computed: samples must be finite; 25 of 25 val"
    with pytest.raises(TrainingDiverged, match=said) as caught:
        run(module, aim=from_step(6, checking), settings=settings(decay_to=1.0))
    assert (caught.value.step, caught.value.part) == (6, "loss")
    run(healthy, settings=settings(6, decay_to=1.0))
    for ours, theirs in zip(module.parameters(), healthy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, FloatingPointError])
def test_a_users_own_error_stays_itself(kind):
    def failing(module, batch, generator):
        raise kind("my own")

    with pytest.raises(kind, match=r"^my own$"):
        run(Toy(), aim=from_step(3, failing))


def test_a_refusal_of_nan_in_a_validation_is_divergence():
    def measure(module):
        check_finite(latents=torch.tensor([math.inf]))

    said = r"step 4 \(from 0\): validation cannot be computed: latents must be finite; 1 of 1"
    with pytest.raises(TrainingDiverged, match=said) as caught:
        run(Toy(), validate=measure, settings=settings(validate_every=4))
    assert (caught.value.step, caught.value.part) == (4, "validation")


class Overflows(torch.optim.SGD):
    """Finite gradients, and an update that is not: as Adam's is with eps = 0."""

    def step(self, closure=None):
        self.calls = getattr(self, "calls", 0) + 1
        super().step()
        if self.calls == 4:
            with torch.no_grad():
                self.param_groups[0]["params"][1].fill_(math.inf)


def test_weights_that_an_update_ruins_are_neither_kept_nor_returned(tmp_path):
    def constant(module, batch, generator):
        return {"loss": 0.0 * module.mix.bias.clamp(-1, 1).sum()}

    arguments = {"aim": constant, "optimizer": Overflows, "validate": None}
    every = settings(4, checkpoint_every=2)
    with pytest.raises(TrainingDiverged, match=r"after step 3 .* made 'mix.weight' NaN or") as e:
        run(Toy(), directory=tmp_path, settings=every, **arguments)
    assert (e.value.step, e.value.part) == (3, "mix.weight")
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-000002"]
    with pytest.raises(TrainingDiverged, match="after step 3"):
        run(Toy(), settings=settings(4, checkpoint_every=0), **arguments)


def test_ctrl_c_does_not_keep_ruined_weights(tmp_path):
    def ruined(module, batch, generator):
        with torch.no_grad():
            module.frozen.weight.fill_(math.nan)  # no gradient passes: the step itself is fine
        return {"loss": module.mix.bias.sum()}

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Toy(), aim=ruined, directory=tmp_path, progress=stop)
    assert find_checkpoints(tmp_path) == []


def slope(module, batch, generator):
    return {"loss": module(batch.tokens.flatten(0, 1).double()).square().mean()}


def line():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(2, 1)


def train_line(module, **changes):
    arguments = {"settings": TrainingSettings(6, warmup_steps=0, clip_norm=math.inf), "seed": 0}
    return fit(module, slope, batch_at, loggers=(), **{**arguments, **changes})


@pytest.mark.parametrize("left", [math.nan, 100.0])
def test_gradients_from_before_do_not_count(left):
    clean, used = line(), line()
    for p in used.parameters():
        p.grad = torch.full_like(p, left)
    assert train_line(used).losses == train_line(clean).losses
    for ours, theirs in zip(used.parameters(), clean.parameters(), strict=True):
        assert torch.equal(ours, theirs) and ours.grad is None


def test_gradients_of_a_validation_or_a_watcher_do_not_count():
    clean, used = line(), line()

    def backward(*_):
        with torch.enable_grad():
            (100 * used.weight.sum()).backward()
        return {}

    plain = TrainingSettings(6, warmup_steps=0, validate_every=1, clip_norm=math.inf)
    train_line(clean, settings=plain)
    train_line(used, settings=plain, validate=backward, progress=backward)
    for ours, theirs in zip(used.parameters(), clean.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def diverging(module, batch, generator):
    parts = slope(module, batch, generator)
    return {"loss": parts["loss"] + (0.0 * module.bias).sqrt().sum()}  # a gradient of NaN


def interrupting(module, batch, generator):
    # As a second Ctrl-C does: it does not wait for the end of the step.
    slope(module, batch, generator)["loss"].backward()
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "bad, error", [(diverging, TrainingDiverged), (interrupting, KeyboardInterrupt)]
)
def test_a_broken_run_leaves_no_gradients_and_the_next_one_is_as_ever(bad, error):
    module, fresh = line(), line()
    with pytest.raises(error):
        fit(module, bad, batch_at, settings=TrainingSettings(6, warmup_steps=0), seed=0)
    assert all(p.grad is None for p in module.parameters())
    assert train_line(module).losses == train_line(fresh).losses
