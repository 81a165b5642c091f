"""Trials of every variant at a tenth of the budget, and what is chosen by them."""

import json

import pytest
import torch

from calmkit.cli import main
from calmkit.comparison import planned_runs, read_results
from calmkit.comparison.planning import plan_runs, prepare_all
from calmkit.comparison.tuning import tune
from calmkit.config import ConfigError, parse_comparison
from calmkit.experiments import EvaluationPlan
from calmkit.metrics import Estimate
from calmkit.reports import plots

SMALL = [
    "--config=ci", "--autoencoder_training.steps=8", "--training.steps=40",
    "--training.warmup_steps=10", "--evaluation.rows=6", "--evaluation.bootstrap=10",
    "--validation_rows=4", "--head.width=16", "--head.depth=1", "--sample_tokens=4",
]  # fmt: skip
RATES = "optimizer.lr=[0.001, 0.02]"


class Notes:
    """A display that keeps its notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def track(self, label):
        return lambda progress: None


pytestmark = pytest.mark.usefixtures("float32")


@pytest.fixture
def scores(monkeypatch):
    """Brier-1 of a trial by its rate of learning, instead of a training; None fails."""
    known, done = {"0.001": 3.0, "0.02": 5.0}, []

    class Scored:
        def __init__(self, experiment, corpus, display):
            self.experiment, self.corpus = experiment, corpus
            probe = torch.nn.Linear(1, 1)
            self.rate = str(experiment.optimizer(probe.parameters()).param_groups[0]["lr"])

        def train_autoencoder(self, directory):
            return None

        def train_model(self, label, autoencoder, directory):
            done.append((label, self.experiment.training.steps))
            return None, None

        def tuning_brier(self, model):
            if known[self.rate] is None:
                raise RuntimeError("no score")
            return Estimate(known[self.rate], 0.5)

    monkeypatch.setattr(planned_runs, "Trainer", Scored)
    return known, done


def tuned(tmp_path, *options):
    comparison = parse_comparison([*SMALL, f"--output={tmp_path / 'runs'}", *options])
    return tune(prepare_all(comparison), Notes())


TWO = ("--variants", "{energy: {}, flow: {head: FlowHead}}")


def test_each_variant_takes_the_values_that_score_best(tmp_path, scores):
    found = tuned(tmp_path, *TWO, "--tune", RATES, "--seeds=[3, 4]")
    assert scores[1] == [
        (f"{name}/lr-{rate}, seed 3", 4)
        for name in ("energy", "flow") for rate in ("0.001", "0.02")
    ]  # fmt: skip
    for variant in found.comparison.variants:
        assert "lr: 0.02\n" in variant.text and variant.name in ("energy", "flow")
        assert [trial.is_chosen for trial in found.trials[variant.name]] == [False, True]
        assert [trial.values for trial in found.trials[variant.name]] == [
            {"optimizer.lr": "0.001"}, {"optimizer.lr": "0.02"},
        ]  # fmt: skip
    runs = plan_runs(found, Notes())
    assert [(run.variant, run.seed, run.steps) for run in runs] == [
        (name, seed, 40) for name in ("energy", "flow") for seed in (3, 4)
    ]
    assert all("lr: 0.02\n" in run.text for run in runs)
    assert found.tuning.startswith(
        "2 trials of each variant, with a tenth of its steps and seed 3"
    )


def test_a_trial_that_fails_is_not_chosen(tmp_path, scores):
    scores[0]["0.02"] = None
    found = tuned(tmp_path, *TWO, "--tune", RATES)
    for trials in found.trials.values():
        assert [trial.is_chosen for trial in trials] == [True, False]
        assert trials[1].brier_1 is None and trials[1].failure == "RuntimeError: no score"


def test_trials_that_are_stored_are_not_repeated(tmp_path, scores):
    first = tuned(tmp_path, *TWO, "--tune", RATES)
    assert len(scores[1]) == 4
    assert tuned(tmp_path, *TWO, "--tune", RATES).trials == first.trials
    assert len(scores[1]) == 4
    scores[0]["0.004"] = 6.0
    more = tuned(tmp_path, *TWO, "--tune", "optimizer.lr=[0.001, 0.02, 0.004]")
    assert len(scores[1]) == 4 + 2
    assert [trial.is_chosen for trial in more.trials["flow"]] == [False, False, True]


def test_a_costly_value_has_fewer_steps(tmp_path, scores):
    """The budget is that of the first variant as configured, not as tuned."""
    options = ["--variants", "{a: {}}", "--budget=flops", "--training.steps=400"]
    found = tuned(
        tmp_path, *options, "--tune", "head.width=[16, 64]", "--tune", "optimizer.lr=[0.02]"
    )
    narrow, wide = found.trials["a"]
    assert narrow.steps == 40 and wide.steps < 35
    assert narrow.is_chosen and found.steps == {"a": 400}


def test_nothing_to_tune_changes_nothing(tmp_path):
    prepared = prepare_all(parse_comparison([*SMALL, f"--output={tmp_path}", *TWO]))
    assert tune(prepared, Notes()) is prepared


def test_rows_for_tuning_are_not_those_that_are_scored(tmp_path):
    prepared = prepare_all(parse_comparison([*SMALL, f"--output={tmp_path}", *TWO]))
    plan = EvaluationPlan.of_training(
        prepared.comparison.variants[0].experiment, prepared.corpora["energy"]
    )
    scored, other = (
        {tuple(row.flatten().tolist()) for row in rows.batch.tokens}
        for rows in (plan.rows, plan.rows_to_tune())
    )
    assert len(scored) == len(other) == 6 and not scored & other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tune", "optimizer.lr=3"], "tune.optimizer.lr must be a list of values; got 3"),
        (["--tune", "optimizer.lr=[]"], "tune.optimizer.lr must hold at least one value"),
        (["--tune", "seed=[1, 2]"], "tune must not vary seed, which defines what is compared"),
        (["--tune", "evaluation.draws=[2, 4]"], "tune must not vary evaluation.draws"),
        (["--tune", "optimizer.lr=[0.1, -1]"], r"variant energy/lr--1"),
        (["--tune", "head.num_samples=[4]"], "variant flow/num_samples-4: .*no argument"),
        (["--tune", "sample_tokens=[4, 5]"], "sample_tokens changes nothing in that of energy"),
        (["--tune", RATES, "--evaluation.rows=100000"], "tune: the held-out text must have rows"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_any_training(tmp_path, scores, options, words):
    with pytest.raises(ConfigError, match=words):
        tuned(tmp_path, *TWO, *options)
    assert scores[1] == []


def test_a_tuned_comparison_states_its_trials(tmp_path, monkeypatch, capsys):
    """The whole chain, with a softmax beside one head; nothing is trained the second time."""
    monkeypatch.setattr(plots, "draw_plots", lambda lines: [])  # tests/reports looks at pictures
    out = tmp_path / "out"
    options = [
        "compare",
        *SMALL,
        "--variants",
        "{energy: {}}",
        "--softmax=true",
        f"--output={out}",
    ]
    options += ["--tune", "optimizer.lr=[0.0001, 0.01]", "--training.validate_every=0"]
    assert main(options) == 0
    first = read_results(out / "results.json")
    assert [variant.name for variant in first.variants] == ["energy", "softmax"]
    for variant in first.variants:
        slow, fast = variant.trials
        assert slow.brier_1 is not None and fast.brier_1 is not None
        assert fast.is_chosen == (fast.brier_1.value > slow.brier_1.value) != slow.is_chosen
        chosen = fast if fast.is_chosen else slow
        assert f"optimizer.lr: '{chosen.values['optimizer.lr']}'" in variant.config
        assert chosen.steps == round(variant.runs[0].steps / 10)
    assert [remark.partition(":")[0] for remark in first.remarks] == ["Tuning", "softmax"]
    assert first.remarks[1].startswith("softmax: the training FLOPs of energy.")
    energy, softmax = (variant.runs[0] for variant in first.variants)
    assert energy.baselines.keys() - softmax.baselines.keys() == {"softmax, in chunks"}
    written = (out / "summary.csv").read_text()
    assert (
        f'"softmax, in chunks",,,0.0,,{energy.baselines["softmax, in chunks"][0].value}' in written
    )
    assert "Tuning: 2 trials of each variant" in (out / "report.html").read_text()
    assert "energy, tuned: optimizer.lr = 0.0001 (" in capsys.readouterr().out.replace("\n", " ")
    assert main(["compare", f"--config={out / 'config.yaml'}"]) == 0
    said = capsys.readouterr().out
    assert "tuning: 0 of 4 trials to run." in said and "2 of 2 runs are already" in said
    assert "scoring its chunks" not in said
    assert read_results(out / "results.json") == first
    assert json.loads((out / "trials/energy/lr-0.01/seed-0.json").read_text())["found"]
    # Without the softmax in the same folder, it is no baseline either.
    assert main(["compare", f"--config={out / 'config.yaml'}", "--softmax=false"]) == 0
    (energy,) = read_results(out / "results.json").variants
    assert energy.runs[0].baselines.keys() == softmax.baselines.keys()
