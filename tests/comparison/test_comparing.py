"""The whole chain at its smallest: what a comparison writes reproduces it."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import time

import forking
import pytest
import yaml
from precision import in_float32

from calmkit.cli import main
from calmkit.comparison import read_results, timing
from calmkit.experiments import time_generation
from calmkit.experiments.model_folder import load_checkpoint
from calmkit.reports import plots

SMALL = [
    "--config=ci", "--autoencoder_training.steps=20", "--training.steps=6",
    "--evaluation.rows=6", "--evaluation.bootstrap=20", "--validation_rows=4",
    "--training.validate_every=3", "--head.width=16", "--sample_tokens=6",
]  # fmt: skip
VARIANTS = (
    "{energy: {}, flow: {head: FlowHead}, "
    "few: {head: {class_path: FlowHead, init_args: {solver: {class_path: EulerSolver, "
    "init_args: {steps: 2}}}}}, "
    "tokens: {model: token_lm, chunk_size: 1, positions: 32, evaluation: {min_context: 8}}}"
)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch, float32):
    """Drawing takes longer than the training; `folder`, made before, is drawn."""
    monkeypatch.setattr(plots, "draw_plots", lambda lines: [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "compare"
    options = ["compare", *SMALL, "--variants", VARIANTS, "--seeds=2", f"--output={folder}"]
    measured = []

    def timed(model, plan):
        measured.append(len(list(folder.glob("runs/*/seed-*.json"))))
        return time_generation(model, plan)

    with in_float32(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time_generation", timed)
        assert main(options) == 0
    (folder.parent / "measured.json").write_text(json.dumps(measured))
    return folder


def variant(folder, name):
    found = {one.name: one for one in read_results(folder / "results.json").variants}
    return found[name]


def without_times(result):
    """All numbers but those of the clock, and where it ran."""
    timeless = {"training_seconds": 0.0, "microseconds_per_token": None}
    variants = tuple(
        dataclasses.replace(
            one, runs=tuple(dataclasses.replace(run, **timeless) for run in one.runs)
        )
        for one in result.variants
    )
    return dataclasses.replace(result, variants=variants, name="", config="")


def first_seed(result):
    """The same comparison with its first seed alone."""
    variants = tuple(dataclasses.replace(one, runs=one.runs[:1]) for one in result.variants)
    return dataclasses.replace(result, variants=variants, seeds=result.seeds[:1])


def test_every_variant_has_a_run_for_each_seed(folder):
    result = read_results(folder / "results.json")
    assert [one.name for one in result.variants] == ["energy", "flow", "few", "tokens"]
    assert result.seeds == (0, 1) and result.budget == "steps"
    for one in result.variants:
        assert [run.seed for run in one.runs] == [0, 1] and one.failures == ()
        for run in one.runs:
            assert run.steps == 6 and run.trained_tokens == 6 * 8 * 32
            assert [step for step, _ in run.validation_brier] == [3, 6]
            assert all(math.isfinite(loss) for _, loss in run.validation_losses)
            assert run.training_flops > 0 < run.sampling_flops
            accuracy = run.documents.select("chosen_accuracy")
            share = float(accuracy.sums.sum() / accuracy.counts.sum())
            assert run.chosen_accuracy.value == pytest.approx(100 * share, rel=1e-12)
            assert 0 <= share < 1 and run.draws_per_chunk == 1
    assert [one.runs[0].evaluations_per_sample for one in result.variants] == [1, 20, 2, 1]


def test_every_variant_is_timed_once_after_all_runs(folder):
    assert json.loads((folder.parent / "measured.json").read_text()) == [8] * 4
    for one in read_results(folder / "results.json").variants:
        first, second = (run.microseconds_per_token for run in one.runs)
        assert second is None and first.repeats >= 5 and 0 <= first.spread < first.median


def test_a_softmax_model_stands_beside_heads(folder):
    tokens, energy = variant(folder, "tokens"), variant(folder, "energy")
    assert tokens.head == "calmkit.models.token_lm.TokenLM"
    assert tokens.runs[0].cross_entropy is not None
    assert tokens.runs[0].energy_score is None
    assert tokens.runs[0].autoencoder_accuracy is None
    assert energy.runs[0].cross_entropy is None
    # The same documents, so that differences can be paired.
    assert tokens.runs[0].documents.groups == energy.runs[0].documents.groups


def test_ways_to_sample_one_head_are_of_one_training(folder):
    flow, few = variant(folder, "flow"), variant(folder, "few")
    assert flow.runs[0].validation_losses == few.runs[0].validation_losses
    assert flow.runs[0].energy_score != few.runs[0].energy_score
    trained = {path.name.partition("-")[0] for path in (folder / "trained").iterdir()}
    assert trained == {"autoencoder", "model"}
    # Two seeds: two autoencoders, and two trainings of energy, flow and tokens.
    assert len(list((folder / "trained").iterdir())) == 2 + 2 * 3


def test_parameters(folder):
    # Input encoder (300 x 32, 64 -> 64 -> 32, norm) and one layer of width 32.
    encoder = 300 * 32 + (64 + 1) * 64 + (64 + 1) * 32 + 2 * 32
    backbone = 4 * 32**2 + 3 * 32 * 88 + 3 * 32
    for name in ("energy", "flow"):
        found = variant(folder, name)
        assert found.parameters == encoder + backbone + found.head_parameters
    tokens = variant(folder, "tokens")
    assert tokens.head_parameters == 300 * 32
    assert tokens.parameters == backbone + 2 * 300 * 32


def test_a_finished_comparison_is_shown_at_once(folder, capsys):
    before = (folder / "results.json").read_text()
    assert main(["compare", f"--config={folder / 'config.yaml'}"]) == 0
    said = capsys.readouterr().out
    assert "8 of 8 runs are already finished" in said and "timing" not in said
    # The vocabulary, positions and split are those of all variants, so there is one text.
    assert len(re.findall(r"Text: pydoc_data.topics, [1-9][\d,]+ training tokens\.", said)) == 1
    assert (folder / "results.json").read_text() == before


def test_a_changed_variant_alone_is_done_again(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    options = [f"--config={folder / 'config.yaml'}", f"--output={copy}"]
    assert main(["compare", *options, "--variants.few.head.solver.steps=3"]) == 0
    said = capsys.readouterr().out
    assert "6 of 8 runs are already finished" in said and "few, seed 0: measuring" in said
    assert "few, seed 0: 6/6" not in said  # sampling alone: nothing is trained
    assert variant(copy, "few").runs[0].energy_score != variant(folder, "few").runs[0].energy_score


def test_a_run_that_fails_is_reported_and_the_rest_go_on(tmp_path, capsys):
    out = tmp_path / "out"
    sgd = "{class_path: torch.optim.SGD, init_args: {lr: 1.0e+30}}"
    variants = f"{{good: {{}}, bad: {{optimizer: {sgd}}}}}"
    options = ["compare", *SMALL, "--variants", variants, f"--output={out}"]
    assert main(options) == 1
    shown = capsys.readouterr()
    assert "some runs failed" in shown.err and "bad" in shown.out
    bad, good = variant(out, "bad"), variant(out, "good")
    assert good.runs and not bad.runs
    assert "must be finite" in bad.failures[0].reason
    whole = out / "runs" / "bad" / "seed-0.error.txt"
    assert "Traceback" in whole.read_text() and f"full tracebacks: {whole}\n" in shown.err


@pytest.mark.parametrize("name", ["energy", "flow", "tokens"])
def test_saved_models_measure_as_they_did(folder, name, tmp_path):
    out = tmp_path / "evaluation"
    saved = folder / "models" / name
    assert main(["evaluate", f"--checkpoint={saved}", f"--output={out}"]) == 0
    (again,) = read_results(out / "results.json").variants
    first = variant(folder, name).runs[0]
    assert again.runs[0].documents == first.documents
    assert again.runs[0].samples == first.samples
    assert again.runs[0].baselines == first.baselines
    assert (again.runs[0].seed, again.runs[0].steps) == (0, None)
    model = load_checkpoint(saved).model
    assert type(getattr(model, "head", model)).__name__ == again.head.rpartition(".")[2]


@pytest.mark.parametrize("name", ["energy", "tokens"])
def test_generate_writes_the_same_text_for_the_same_seed(folder, name, capsys):
    options = ["generate", f"--checkpoint={folder / 'models' / name}", "--prompt=The value"]
    texts = []
    for seed in (3, 3, 4):
        assert main([*options, "--max_new_tokens=15", f"--seed={seed}"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("The value")


def checkpoints_in(folder):
    """Their number, while folders may vanish."""
    return sum(name.startswith("step-") for _, names, _ in os.walk(folder) for name in names)


@pytest.mark.slow
def test_a_comparison_killed_at_any_moment_gives_the_same_table(folder, tmp_path):
    """A real process, killed again and again a little later; two others do the last runs.

    All follow the effective config of the first comparison.
    """
    out = tmp_path / "killed"
    options = [
        "compare", f"--config={folder / 'config.yaml'}", f"--output={out}", "--seeds=[0]",
        "--training.checkpoint_every=2",
    ]  # fmt: skip
    seen = 0
    for _ in range(3):
        process = forking.start(forking.run_command, *options)
        # Killed once it has come further than the one before.
        while (now := checkpoints_in(out)) <= seen + 1:
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        assert forking.finished(process) == -signal.SIGKILL
        seen = now
    # Several runs of one wave are left, as each of the two processes needs one.
    assert len(list(out.glob("runs/*/seed-0.json"))) < 2
    options += ["--processes=2"]
    assert forking.finished(forking.start(forking.run_command, *options)) == 0
    assert without_times(read_results(out / "results.json")) == without_times(
        first_seed(read_results(folder / "results.json"))
    )


def test_train_goes_on_where_it_was_stopped(tmp_path, capsys):
    """Stopped in the middle of the head's training, by an exception as Ctrl-C raises it."""
    options = ["train", *SMALL[1:], "--positions=16", "--evaluation.min_context=4",
               "--hidden_size=32", "--vocab_size=300", "--autoencoder_training.warmup_steps=5",
               "--training.warmup_steps=2"]  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*options, f"--output={whole}"]) == 0

    from calmkit.experiments import trainer

    ask = trainer.model_objective
    calls = []

    def interrupted(module, batch, generator):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return ask(module, batch, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "model_objective", interrupted)
        assert main([*options, f"--output={stopped}"]) == 130
    assert not (stopped / "results.json").exists()
    assert main([*options, f"--output={stopped}"]) == 0
    first, second = ((path / "model.safetensors").read_bytes() for path in (whole, stopped))
    assert first == second
    assert without_times(read_results(whole / "results.json")) == without_times(
        read_results(stopped / "results.json")
    )
    content = json.loads((stopped / "results.json").read_text())
    assert content["variants"][0]["runs"][0]["training_seconds"] > 0

    # Another config must neither be taken for this one nor touch the saved model.
    config = (stopped / "config.yaml").read_bytes()
    for other in ("--head.num_samples=4", "--autoencoder.kl_weight=0.1", "--training.steps=7"):
        assert main([*options, other, f"--output={stopped}"]) == 2
        key, value = other.removeprefix("--").split("=")
        err = capsys.readouterr().err
        assert f" {key} must be as in" in err and f"; got {value}. " in err
    assert main([*options, "--head=FlowHead", f"--output={stopped}"]) == 2
    assert " head must be as in" in (err := capsys.readouterr().err)
    assert "calmkit.heads.EnergyHead; got calmkit.heads.FlowHead. " in err
    assert (stopped / "config.yaml").read_bytes() == config
    assert main([*options, "--evaluation.draws=3", f"--output={stopped}"]) == 0
    assert (stopped / "model.safetensors").read_bytes() == first


def test_train_and_evaluate_a_softmax_model(tmp_path):
    options = [
        "train", *SMALL[1:], "--model=token_lm", "--chunk_size=1", "--positions=32",
        "--evaluation.min_context=8", "--hidden_size=32", "--vocab_size=300",
        "--training.warmup_steps=2", "--autoencoder_training.warmup_steps=5",
        "--training.steps=60", f"--output={tmp_path / 'lm'}",
    ]  # fmt: skip
    assert main(options) == 0
    saved = yaml.safe_load((tmp_path / "lm" / "config.yaml").read_text())
    assert saved["model"] == "token_lm"
    (found,) = read_results(tmp_path / "lm" / "results.json").variants
    assert found.runs[0].cross_entropy.value < math.log(300)
    assert not (tmp_path / "lm" / "checkpoints" / "autoencoder").exists()
