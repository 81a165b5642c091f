import csv
import errno
import math
import os
import signal
import threading
import time

import forking
import pytest
import torch
import training_problems
from torch import nn
from training_problems import Toy, batch_at, measure, objective, optimizer, run, settings

from calmkit.disk import WriteError
from calmkit.training import TrainingDiverged, TrainingSettings, fit, step_generator
from calmkit.training.checkpoint import find_checkpoints
from calmkit.training.randomness import step_seed


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(k == m and torch.equal(v, w) for (k, v), (m, w) in pairs)


def by_hand(module, steps=12, warmup=3, final=0.1, seed=1):
    """The loop as one would write it, and the losses of its steps."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), fused=True)
    module.train()
    losses = []
    for t in range(steps):
        torch.manual_seed(step_seed(seed, t))
        loss = objective(module, batch_at(t), step_generator(seed, t))["loss"]
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        cosine = (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2
        rate = (t + 1) / warmup if t < warmup else final + (1 - final) * cosine
        for group in adam.param_groups:
            group["lr"] = 0.02 * rate
        adam.step()
        losses.append(loss.item())
    return losses


def test_parts_are_told_each_step_once_also_after_resuming(tmp_path):
    class Told(nn.Module):
        def begin_step(self, step):
            steps.append(step)

    def told(**changes):
        module = Toy()
        module.told = Told()
        run(module, **changes)

    steps = []
    halves = {"micro_batch": batch_at(0).tokens.shape[0] // 2, "decay_to": 1.0}
    told(settings=settings(4, **halves), directory=tmp_path)
    told(settings=settings(6, **halves), directory=tmp_path)
    assert steps == [0, 1, 2, 3, 4, 5]


def test_equals_a_loop_by_hand_bitwise():
    ours, plain = Toy(), Toy()
    result = run(ours)
    with torch.random.fork_rng():
        losses = by_hand(plain)
    assert same_weights(ours, plain)
    assert not same_weights(ours, Toy())
    assert [step for step, _ in result.losses] == [5, 10, 12]
    means = [sum(losses[a:b]) / (b - a) for a, b in ((0, 5), (5, 10), (10, 12))]
    assert [value for _, value in result.losses] == means
    assert set(result.curve[0][1]) == {
        "loss",
        "entropy",
        "size",
        "gradient_norm",
        "learning_rate",
    }


def test_loss_falls():
    result = run(Toy(), settings=settings(120, log_every=20))
    assert result.losses[-1][1] < 0.7 * result.losses[0][1]


class Stop(Exception):
    pass


def stopping_at(stop):
    def batches(step):
        if step == stop:
            raise Stop
        return batch_at(step)

    return batches


@pytest.mark.parametrize("stop", [1, 4, 5, 9, 11])
def test_stopped_and_resumed_equals_never_stopped(tmp_path, stop):
    whole, resumed = Toy(), Toy()
    want = run(whole, directory=tmp_path / "whole", settings=settings(validate_every=2))
    with pytest.raises(Stop):
        run(
            Toy(),
            batches=stopping_at(stop),
            directory=tmp_path / "cut",
            settings=settings(validate_every=2),
        )
    with torch.random.fork_rng():
        torch.manual_seed(stop)  # the state of the world is another one
        torch.rand(3)
        got = run(resumed, directory=tmp_path / "cut", settings=settings(validate_every=2))
    assert same_weights(whole, resumed)
    assert (got.steps, got.curve, got.validation) == (want.steps, want.curve, want.validation)


def test_killed_process_resumes_to_the_same_weights(tmp_path):
    child = forking.start(forking.run_script, training_problems.__file__, tmp_path)
    try:
        deadline = time.monotonic() + 120
        while len(find_checkpoints(tmp_path)) < 2:
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.kill()
    assert forking.finished(child) == -signal.SIGKILL
    done = int(find_checkpoints(tmp_path)[-1].name.removeprefix("step-"))
    assert 8 <= done < 300
    resumed, whole = Toy(), Toy()
    got = run(resumed, directory=tmp_path, settings=settings(300))
    want = run(whole, settings=settings(300))
    assert same_weights(resumed, whole)
    assert (got.curve, got.validation) == (want.curve, want.validation)


def test_finished_run_is_loaded_and_not_repeated(tmp_path):
    first, again = Toy(), Toy(seed=9)
    want = run(first, directory=tmp_path)

    def never(*_):
        raise AssertionError("a step was taken")

    assert run(again, directory=tmp_path, aim=never) == want
    assert same_weights(first, again)


def test_frozen_parameters_are_untouched_and_without_state():
    module = Toy()
    before = module.frozen.weight.clone()
    seen = []

    def spy(parameters):
        seen.extend(parameters)
        return optimizer(seen)

    run(module, optimizer=spy)
    assert torch.equal(module.frozen.weight, before) and module.frozen.weight.grad is None
    assert all(p is not module.frozen.weight for p in seen) and len(seen) == 6


def test_validation_does_not_move_training():
    with_it, without = Toy(), Toy()
    result = run(with_it, settings=settings(validate_every=1))
    run(without, validate=None)
    assert same_weights(with_it, without)
    assert [step for step, _ in result.validation] == list(range(1, 13))
    assert result.validation[-1][1] == {"weight": with_it.mix.weight.sum().item()}


def test_interrupted_validation_is_made_up_for(tmp_path):
    def interrupted(module):
        raise KeyboardInterrupt

    every = settings(validate_every=6, checkpoint_every=0)
    with pytest.raises(KeyboardInterrupt):
        run(Toy(), directory=tmp_path, validate=interrupted, settings=every)
    assert [p.name for p in find_checkpoints(tmp_path)] == ["step-000006"]
    result = run(Toy(), directory=tmp_path, settings=every)
    assert [step for step, _ in result.validation] == [6, 12]


def test_last_validation_made_up_for_is_kept(tmp_path):
    def interrupted(module):
        raise KeyboardInterrupt

    def never(module):
        raise AssertionError("validated again")

    with pytest.raises(KeyboardInterrupt):
        run(Toy(), directory=tmp_path, validate=interrupted)
    made_up = run(Toy(), directory=tmp_path)
    assert [step for step, _ in made_up.validation] == [12]
    assert run(Toy(), directory=tmp_path, validate=never) == made_up


def test_callers_randomness_and_mode_come_back():
    module = Toy().eval()
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    run(module)
    assert torch.equal(torch.rand(2), want)
    assert not module.training


def test_seconds_leave_validation_out():
    def slow(module):
        time.sleep(0.3)
        return {}

    began = time.perf_counter()
    result = run(Toy(), validate=slow)
    assert 0.0 < result.seconds < time.perf_counter() - began - 0.3


def broken_from(step, part):
    """An objective that goes wrong in one part, or in its gradient alone."""
    calls = []

    def objective_then_broken(module, batch, generator):
        parts = dict(objective(module, batch, generator))
        calls.append(None)
        if len(calls) > step:
            if part == "gradient":
                parts["loss"] = parts["loss"] + (0.0 * module.mix.bias).sqrt().sum()
            else:
                parts[part] = parts[part] * math.nan
                parts["loss"] = parts["loss"] + parts[part]
        return parts

    return objective_then_broken


@pytest.mark.parametrize(
    "part, blamed, text",
    [
        ("entropy", "entropy", r"step 6 \(from 0\): 'entropy' must be finite; got nan"),
        ("loss", "loss", "'loss' must be finite"),
        ("gradient", "mix.bias", "gradients must be finite; got nan as their norm, first in 'mix"),
    ],
)
def test_what_is_not_finite_stops_before_the_weights_change(part, blamed, text):
    module, healthy = Toy(), Toy()
    with pytest.raises(TrainingDiverged, match=text) as caught:
        run(module, aim=broken_from(6, part), settings=settings(decay_to=1.0))
    assert isinstance(caught.value, FloatingPointError)
    assert (caught.value.step, caught.value.part) == (6, blamed)
    run(healthy, settings=settings(6, decay_to=1.0))
    for ours, theirs in zip(module.parameters(), healthy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_ctrl_c_ends_the_step_and_saves(tmp_path):
    def interrupting(module, batch, generator):
        parts = objective(module, batch, generator)
        if threading.current_thread() is threading.main_thread() and interrupting.armed:
            interrupting.armed = False
            signal.raise_signal(signal.SIGINT)
        return parts

    interrupting.armed = True
    with pytest.raises(KeyboardInterrupt):
        run(Toy(), aim=interrupting, directory=tmp_path)
    assert [p.name for p in find_checkpoints(tmp_path)] == ["step-000001"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed, whole = Toy(), Toy()
    run(resumed, directory=tmp_path)
    run(whole)
    assert same_weights(resumed, whole)


def test_second_ctrl_c_does_not_wait_nor_save_half_a_step(tmp_path):
    def impatient(module, batch, generator):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        run(Toy(), aim=impatient, directory=tmp_path)
    assert find_checkpoints(tmp_path) == []


def test_trains_outside_the_main_thread():
    module, plain = Toy(), Toy()
    thread = threading.Thread(target=run, args=(module,))
    thread.start()
    thread.join()
    run(plain)
    assert same_weights(module, plain)


def test_one_fabric_serves_several_runs_with_bf16():
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    kinds = []

    def watch(module, batch, generator):
        logits = module.mix(torch.randn(2, 5, generator=generator).float())
        kinds.append(logits.dtype)
        return {"loss": logits.float().square().mean()}

    for _ in range(2):
        result = run(Toy().float(), aim=watch, fabric=fabric)
        assert result.steps == 12
    assert set(kinds) == {torch.bfloat16}


def test_unfit_fabric_is_refused():
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import FSDPStrategy

    with pytest.raises(ValueError, match=r"the strategy 'ddp' or that of .*got FSDPStrategy"):
        run(Toy(), fabric=_FabricWith(FSDPStrategy()))
    half = Fabric(accelerator="cpu", devices=1)
    half.strategy.precision.precision = "16-mixed"
    with pytest.raises(ValueError, match="bf16-mixed"):
        run(Toy(), fabric=half)


class _FabricWith:
    def __init__(self, strategy):
        self.strategy = strategy


@pytest.mark.parametrize(
    "parts, match",
    [
        ({}, 'objective must return the key "loss"; got'),
        ({"loss": torch.zeros(2)}, r"scalar tensors; got shape \(2,\) for 'loss'"),
        ({"loss": torch.zeros(()), "kl": 1.0}, "scalar tensors; got 1.0 for 'kl'"),
        ({"loss": torch.zeros(())}, "must depend on a trained parameter"),
        ({"loss": torch.zeros(()), "gradient_norm": torch.zeros(())}, "must not return"),
    ],
)
def test_bad_objective_is_refused(parts, match):
    with pytest.raises(ValueError, match=match):
        run(Toy(), aim=lambda module, batch, generator: parts)


def test_changing_parts_are_refused():
    def moody(module, batch, generator):
        parts = dict(objective(module, batch, generator))
        moody.calls += 1
        return parts if moody.calls < 3 else {"loss": parts["loss"]}

    moody.calls = 0
    with pytest.raises(ValueError, match="same keys in every step"):
        run(Toy(), aim=moody)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="is it frozen"):
        run(Toy().requires_grad_(False))


def test_progress_after_each_step():
    seen = []
    run(Toy(), progress=seen.append)
    assert [p.step for p in seen] == list(range(1, 13))
    assert all(p.steps == 12 and math.isfinite(p.loss) for p in seen)
    assert seen[0].seconds_left == 11 * seen[0].seconds_per_step > 0.0 == seen[-1].seconds_left


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_curves_go_to_csv_and_a_resumed_log_is_complete(tmp_path):
    with pytest.raises(Stop):
        run(Toy(), batches=stopping_at(9), directory=tmp_path)
    result = run(Toy(), directory=tmp_path)
    first, second = sorted((tmp_path / "logs").glob("version_*/metrics.csv"))
    assert [row["step"] for row in rows(first)] == ["5"]
    losses = [(int(r["step"]), float(r["train/loss"])) for r in rows(second) if r["train/loss"]]
    assert tuple(losses) == result.losses
    (last,) = [row for row in rows(second) if row["validation/weight"]]
    assert (last["step"], float(last["validation/weight"])) == (
        "12",
        result.validation[-1][1]["weight"],
    )


def test_loggers_given_are_used_instead(tmp_path):
    from lightning_fabric.loggers import CSVLogger

    run(Toy(), directory=tmp_path / "run", loggers=[CSVLogger(tmp_path / "mine")])
    assert list((tmp_path / "mine").rglob("metrics.csv"))
    assert not (tmp_path / "run" / "logs").exists()
    run(Toy(seed=1), directory=tmp_path / "silent", loggers=())
    assert not (tmp_path / "silent" / "logs").exists()


class FullLogger:
    """A logger whose disk is full from one point on."""

    def __init__(self, root_dir, points):
        self.root_dir, self.points = root_dir, points

    def log_metrics(self, metrics, step):
        self.points -= 1
        self.save()

    def save(self):
        if self.points < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def finalize(self, status):
        self.save()


@pytest.mark.parametrize("points", [0, 1, 2])
def test_a_log_on_a_full_disk_is_told_and_the_run_goes_on_later(tmp_path, points):
    resumed, whole = Toy(), Toy()
    said = "logs could not be written: No space left on device. Free some .*checkpoints are kept"
    with pytest.raises(WriteError, match=said):
        run(Toy(), directory=tmp_path, loggers=[FullLogger(tmp_path / "logs", points)])
    # Checkpoints come after steps 4 and 8, points after 5, 10 and 12.
    assert len(find_checkpoints(tmp_path)) == (1 if points == 0 else 2)
    result = run(resumed, directory=tmp_path)
    assert result.losses == run(whole).losses and same_weights(resumed, whole)


def test_a_full_log_does_not_hide_why_a_run_failed(tmp_path):
    class FullAtTheEnd(FullLogger):
        def finalize(self, status):
            self.points = -1
            self.save()

    with pytest.raises(TrainingDiverged):
        run(Toy(), aim=broken_from(6, "loss"), loggers=[FullAtTheEnd(tmp_path, 9)])


def test_another_optimizer_follows_the_schedule_too():
    module = nn.Linear(2, 1)
    start = module.weight.detach().clone()

    def slope(module, batch, generator):
        return {"loss": module.weight.sum()}

    only = TrainingSettings(4, warmup_steps=2, clip_norm=math.inf)
    fit(
        module,
        slope,
        batch_at,
        settings=only,
        seed=0,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        loggers=(),
    )
    torch.testing.assert_close(module.weight.detach(), start - 0.1 * (0.5 + 1 + 1 + 1))


def test_measure_is_called_in_evaluation_mode():
    module = Toy().train()
    with pytest.raises(AssertionError):
        measure(module)
