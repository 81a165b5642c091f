"""Which runs share what, how long each is, and what is done again."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from precision import in_float32
from torch.utils.flop_counter import FlopCounterMode

from calmkit.comparison import budget, planned_runs
from calmkit.comparison.budget import step_flops, with_steps
from calmkit.comparison.executing import in_waves, run_all
from calmkit.comparison.planned_runs import PlannedRun
from calmkit.comparison.planning import plan_runs, prepare_all
from calmkit.comparison.results import Failure
from calmkit.config import ConfigError, parse_comparison
from calmkit.experiments import Silent
from calmkit.experiments.trainer import Trainer, model_objective
from calmkit.training import TrainingSettings

pytestmark = pytest.mark.usefixtures("float32")

SMALL = ["--config=ci", "--evaluation.bootstrap=10"]


class Noted(Silent):
    """A display that shows nothing."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def planned(tmp_path, *options):
    comparison = parse_comparison([*SMALL, f"--output={tmp_path / 'runs'}", *options])
    return plan_runs(prepare_all(comparison), Silent())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Without options. Where runs are written is in no key."""
    with in_float32():
        return planned(tmp_path_factory.mktemp("plain"))


def keys(tmp_path, *options):
    return keys_of(planned(tmp_path, *options))


def keys_of(runs):
    """The key of each variant's training, and that of its run."""
    return {run.variant: run.training for run in runs}, {run.variant: run.key for run in runs}


class TestKeys:
    def test_heads_share_an_autoencoder_and_not_a_training(self, plain):
        assert len({run.autoencoder for run in plain}) == 1
        assert len({run.training for run in plain}) == 3
        assert len({run.key for run in plain}) == 3

    def test_seeds_share_nothing(self, tmp_path):
        found = planned(tmp_path, "--seeds=2")
        assert len({run.autoencoder for run in found}) == 2
        assert [(run.variant, run.seed, run.saves) for run in found] == [
            (name, seed, seed == 0) for name in ("energy", "flow", "diffusion") for seed in (0, 1)
        ]

    def test_ways_to_sample_one_head_share_its_training(self, tmp_path):
        variants = (
            "{few: {head: {class_path: FlowHead, init_args: {solver: {class_path: EulerSolver, "
            "init_args: {steps: 2}}}}}, many: {head: FlowHead}, "
            "wide: {head: {class_path: FlowHead, init_args: {width: 48}}}, "
            "cold: {head: FlowHead, sampler: {class_path: calmkit.sampling.BatchTemperature}}}"
        )
        trainings, runs = keys(tmp_path, "--variants", variants)
        assert trainings["few"] == trainings["many"] == trainings["cold"] != trainings["wide"]
        assert len(set(runs.values())) == 4

    def test_a_loss_that_reads_samples_depends_on_how_they_are_drawn(self, tmp_path):
        """With the pull, ways to sample one head are different trainings."""
        variants = "{a: {}, b: {head: {class_path: EnergyHead, init_args: {noise_scale: 0.5}}}}"
        plain, _ = keys(tmp_path, "--variants", variants)
        assert plain["a"] == plain["b"]
        for key in ("pull_weight", "cross_entropy_weight"):
            pulled, _ = keys(tmp_path, "--variants", variants, f"--{key}=1.0")
            assert pulled["a"] != pulled["b"] and plain["a"] not in pulled.values()

    def test_what_only_shows_or_measures_is_not_in_a_training(self, plain, tmp_path):
        trainings, runs = keys_of(plain)
        for option in ("--evaluation.draws=3", "--sample_tokens=7", "--validation_rows=5"):
            same, others = keys(tmp_path, option)
            assert same == trainings and others != runs
        assert keys(tmp_path, f"--cache_dir={tmp_path}")[1] == runs

    @pytest.mark.parametrize(
        ("option", "reaches_autoencoder"),
        [
            ("--optimizer.lr=0.1", False), ("--training.steps=31", False),
            ("--backbone.depth=2", False), ("--input=both", False), ("--latent_size=9", True),
            ("--autoencoder.width=40", True), ("--seed=1", True),
            ("--evaluation_seed=1", True),
        ],
    )  # fmt: skip
    def test_what_decides_weights_is(self, plain, tmp_path, option, reaches_autoencoder):
        after = planned(tmp_path, option)
        assert all(a.training != b.training for a, b in zip(plain, after, strict=True))
        changed = plain[0].autoencoder != after[0].autoencoder
        assert changed == reaches_autoencoder

    def test_a_softmax_model_does_not_depend_on_autoencoder_and_head(self, tmp_path):
        token_lm = ["--variants", "{t: {model: token_lm, chunk_size: 1, positions: 32}}"]
        (before,) = planned(tmp_path, *token_lm)
        (after,) = planned(tmp_path, *token_lm, "--head.width=48", "--latent_size=9")
        assert before.training == after.training and before.autoencoder == ""

    def test_other_text_is_another_training_and_text_to_measure_on_is_not(self, plain, tmp_path):
        text = tmp_path / "other.txt"
        text.write_text("\n\n".join(f"Some other text, number {n}. " * 9 for n in range(90)))
        measured = planned(tmp_path, f"--evaluation_data={text}")
        assert [run.training for run in plain] == [run.training for run in measured]
        assert all(a.key != b.key for a, b in zip(plain, measured, strict=True))


def run(variant, autoencoder, training):
    return PlannedRun(
        variant=variant, text="", seed=0, steps=1, key="", training=training,
        autoencoder=autoencoder, code={}, saves=False, output=Path(), trained=Path(),
    )  # fmt: skip


class TestWaves:
    def test_what_is_shared_is_made_first(self):
        found = in_waves([
            run("a", "x", "1"), run("b", "x", "2"), run("c", "x", "2"), run("d", "y", "3"),
            run("e", "x", "1"),
        ])  # fmt: skip
        assert [[one.variant for one in wave] for wave in found] == [["a", "d"], ["b"], ["c", "e"]]

    def test_a_failed_run_does_not_stop_the_others(self, tmp_path, monkeypatch):
        done = []

        class Broken(RuntimeError):
            pass

        class FakeLab:
            def __init__(self, experiment, corpus, display):
                done.append(experiment.seed)
                raise Broken("no room\nmore of it")

        monkeypatch.setattr(planned_runs, "Trainer", FakeLab)
        display = Noted()
        left = planned(tmp_path, "--seeds=2", "--variants", "{a: {}}")
        failures = run_all(left, processes=1, threads=1, display=display)
        assert done == [0, 1]
        assert failures["a", 1] == Failure(seed=1, reason="Broken: no room more of it")
        whole = left[1].file.with_name("seed-1.error.txt")
        assert f"a, seed 1: failed. Broken: no room more of it ({whole})" in display.notes
        assert "Traceback" in whole.read_text()


class TestBudget:
    def test_equal_operations_within_two_per_cent(self, tmp_path, monkeypatch):
        """Counted while a step really runs, not taken from the account."""
        # A token is computed at each of its places, as on GPUs and as it is accounted for.
        monkeypatch.setattr("calmkit.nn.distinct._FEW", sys.maxsize)
        variants = (
            "{energy: {}, wide: {head: {init_args: {width: 64}}}, "
            "four: {chunk_size: 4, positions: 8}, deep: {backbone: {init_args: {depth: 2}}}, "
            "tokens: {model: token_lm, chunk_size: 1, positions: 32}}"
        )
        options = ["--budget=flops", "--training.steps=200", "--variants", variants]
        # The work of a step is that of any weights.
        options += ["--autoencoder_training.steps=1", "--autoencoder_training.warmup_steps=0"]
        # Attention as plain products, which the counter sees.
        options += ["--evaluation.min_context=2", "--backbone.attention_backend=reference"]
        comparison = parse_comparison([*SMALL, f"--output={tmp_path / 'runs'}", *options])
        prepared = prepare_all(comparison)
        steps = {one.variant: one.steps for one in plan_runs(prepared, Silent())}
        assert steps["energy"] == 200 and len(set(steps.values())) == 5
        totals = {}
        for variant in comparison.variants:
            trainer = Trainer(variant.experiment, prepared.corpora[variant.name], Silent())
            batch = trainer.batches(variant.experiment.training)(0)
            # One document a row: attention within shorter ones is less work, for all alike.
            whole = ((batch.tokens.shape[1],),) * len(batch.tokens)
            batch = dataclasses.replace(batch, lengths=whole)
            calm = variant.experiment.model == "calm"
            model = trainer.build(trainer.train_autoencoder(None) if calm else None)
            with FlopCounterMode(display=False) as counter:
                model_objective(model, batch, torch.Generator()).values["loss"].backward()
            totals[variant.name] = steps[variant.name] * counter.get_total_flops()
            torch.testing.assert_close(
                step_flops(trainer), float(counter.get_total_flops()), rtol=0.02, atol=0
            )
        for name, total in totals.items():
            assert total == pytest.approx(totals["energy"], rel=0.02), name

    def test_equal_time_is_by_measured_steps(self, tmp_path, monkeypatch):
        seconds = {"energy": 1.0, "flow": 0.5, "diffusion": 2.0}
        monkeypatch.setattr(budget, "_seconds", lambda trainers: {n: seconds[n] for n in trainers})
        options = ["--budget=seconds", "--training.steps=60"]
        found = planned(tmp_path, *options)
        assert [one.steps for one in found] == [60, 120, 30]
        # A resumed comparison keeps its plan; another one makes a new one.
        seconds["flow"] = 0.25
        assert [one.steps for one in planned(tmp_path, *options)] == [60, 120, 30]
        assert [one.steps for one in planned(tmp_path, *options, "--seeds=1")][1] == 120
        renamed = "{one: {}, two: {head: FlowHead}, three: {head: DiffusionHead}}"
        trained = f"--trained={tmp_path / 'runs/trained'}"
        other = ["--variants", renamed, trained, "--evaluation.rows=3"]
        elsewhere = planned(tmp_path / "elsewhere", *options, *other)
        assert [one.steps for one in elsewhere] == [60, 120, 30]
        again = planned(tmp_path, *options, "--latent_size=9")
        assert [one.steps for one in again] == [60, 240, 30]

    def test_steps_are_timed(self, tmp_path):
        comparison = parse_comparison([*SMALL, f"--output={tmp_path}", "--variants", "{a: {}}"])
        prepared = prepare_all(comparison)
        trainer = Trainer(comparison.variants[0].experiment, prepared.corpora["a"], Silent())
        assert 0 < budget._seconds({"a": trainer})["a"] < 60

    def test_one_training_is_measured_once(self, tmp_path, monkeypatch):
        asked = []

        def measure(trainers):
            asked.extend(trainers)
            return dict.fromkeys(trainers, 1.0)

        monkeypatch.setattr(budget, "_seconds", measure)
        euler = "{class_path: FlowHead, init_args: {solver: EulerSolver}}"
        variants = f"{{a: {{head: FlowHead}}, b: {{head: {euler}}}}}"
        found = planned(tmp_path, "--budget=seconds", "--variants", variants)
        assert len(asked) == 1 and found[0].training == found[1].training

    @pytest.mark.parametrize("budget", ["steps", "seconds"])
    def test_a_softmax_takes_the_operations_of_the_first_variant(
        self, tmp_path, monkeypatch, budget
    ):
        monkeypatch.setattr(
            "calmkit.comparison.budget._seconds", lambda names: dict.fromkeys(names, 1)
        )
        options = ["--variants", "{a: {}, b: {head: FlowHead}}", f"--budget={budget}"]
        options += [f"--output={tmp_path / 'runs'}", "--softmax=true", "--training.steps=500"]
        prepared = prepare_all(parse_comparison([*SMALL, *options]))
        steps = {one.variant: one.steps for one in plan_runs(prepared, Silent())}
        assert list(steps) == ["a", "b", "softmax"] and steps["a"] == 500
        costs = {
            variant.name: step_flops(Trainer(variant.experiment, prepared.corpora["a"], Silent()))
            for variant in prepared.comparison.variants
        }
        assert steps["softmax"] == round(500 * costs["a"] / costs["softmax"]) != 500
        assert steps["b"] == 500

    def test_budgets_of_a_few_steps_are_refused(self, tmp_path):
        variants = "{a: {}, b: {head: {init_args: {width: 900, depth: 4}}}}"
        with pytest.raises(ConfigError, match=r"variant b: a budget of 30 steps of a must be at"):
            planned(tmp_path, "--budget=flops", "--variants", variants)

    def test_costs_that_depend_on_the_data_are_refused(self, tmp_path):
        variants = "{a: {head: {class_path: FlowHead, init_args: {solver: AdaptiveSolver}}}}"
        with pytest.raises(ConfigError, match=r"variant a: budget flops: head must evaluate"):
            planned(tmp_path, "--budget=flops", "--variants", variants)

    def test_warm_up_and_validations_keep_their_share(self):
        settings = TrainingSettings(100, warmup_steps=10, validate_every=25, decay_to=0.0)
        found = with_steps(settings, 300)
        assert (found.steps, found.warmup_steps, found.validate_every) == (300, 30, 75)
        assert (
            dataclasses.replace(found, steps=100, warmup_steps=10, validate_every=25) == settings
        )
        assert with_steps(TrainingSettings(100, warmup_steps=0), 7).validate_every == 0


def test_a_text_that_is_too_short_names_the_variant(tmp_path):
    options = ["--variants", "{a: {}, b: {positions: 1000000}}", "--evaluation.min_context=2"]
    with pytest.raises(ConfigError, match=r"variant b: positions \* chunk_size must be at most"):
        planned(tmp_path, *options)
