import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import yaml

from calmkit import __version__, cli, config
from calmkit.comparison import ComparisonResult, HeadResult, plot
from calmkit.comparison.checkpoint import save_checkpoint
from calmkit.data import prepare_corpus
from calmkit.metrics import Estimate
from calmkit.training import CheckpointError, TrainingDiverged

SMALL = ["--config", "ci"]


def result():
    """Any result at all: what it says is not looked at here."""
    scores = (Estimate(1.0, 0.1),) * 4
    head = HeadResult(
        name="energy", class_path="EnergyHead", brier_lm=1.0, brier=scores,
        untrained_brier=scores, energy_score=scores[0], untrained_energy_score=scores[0],
        parameters=1, evaluations_per_sample=1, training_seconds=1.0,
        microseconds_per_token=1.0, sample_text="text", training_losses=(),
        validation_losses=((1, 2.0), (2, 1.0)),
    )  # fmt: skip
    return ComparisonResult(
        heads=(head,), unigram_brier=scores, autoencoder_accuracy=1.0, shared_parameters=9,
        corpus_name="text",
        corpus_digest="0" * 64, protocol="none", seed=0, hardware="none", versions={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared text, shared by all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(monkeypatch, tmp_path, cache):
    """A stand-in for the work itself: records its arguments and returns a result."""
    calls = []
    fake = types.ModuleType("calmkit.comparison.run")

    def record(name):
        def call(*args, **kwargs):
            calls.append((name, args, kwargs))
            return result()

        return call

    for name in ("compare", "train", "evaluate_checkpoint"):
        setattr(fake, name, record(name))
    fake.check_resumable = lambda output, config_text: None  # tests/comparison/test_run.py
    fake.calls = calls
    monkeypatch.setitem(sys.modules, "calmkit.comparison.run", fake)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # Drawing takes a second; tests/comparison looks at the picture.
    monkeypatch.setattr(plot, "write_plot", lambda result, path: path.touch())
    return fake


class TestWithoutWork:
    @pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
    def test_help_fits_a_screen(self, arguments, capsys):
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        assert "calmkit COMMAND" in out and "generate" in out
        assert len(out.splitlines()) < 25 and max(map(len, out.splitlines())) < 100

    def test_version(self, capsys):
        assert cli.main(["--version"]) == 0
        assert capsys.readouterr().out == f"calmkit {__version__}\n"

    def test_a_misspelt_command(self, capsys):
        assert cli.main(["compre"]) == 2
        assert capsys.readouterr().err == (
            "calmkit compre: not a command.\n  did you mean: compare\n"
            "  allowed: compare, train, evaluate, generate\n"
        )

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from calmkit.cli import main; main(['--help']); "
            "print(sorted({'torch', 'jsonargparse', 'rich', 'matplotlib'} & set(sys.modules)))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        assert out.splitlines()[-1] == "[]"

    def test_a_missing_extra_is_one_line(self, monkeypatch, capsys):
        monkeypatch.setattr(cli, "_NEEDED", ("jsonargparse", "not_installed_here"))
        assert cli.main(["compare"]) == 2
        err = capsys.readouterr().err
        assert err == "calmkit compare needs not_installed_here: pip install 'calmkit[cli]'\n"

    @pytest.mark.parametrize("command", ["compare", "train", "evaluate", "generate"])
    def test_each_command_has_help(self, command, run, capsys):
        assert cli.main([command, "--help"]) == 0
        assert f"usage: calmkit {command}" in capsys.readouterr().out
        assert run.calls == []


class TestCompare:
    def test_writes_results_and_the_config_that_repeats_them(self, run, tmp_path, capsys):
        assert cli.main(["compare", *SMALL, "--seed", "3", "--output", "out"]) == 0
        ((name, (experiment, corpus), kwargs),) = run.calls
        assert name == "compare" and sorted(kwargs) == ["config_text", "display"]
        assert experiment.seed == 3 and corpus.tokenizer.vocab_size == experiment.vocab_size
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "config.yaml", "results.json", "results.csv", "results.png", "samples.txt"
        }  # fmt: skip
        written = (tmp_path / "out" / "config.yaml").read_text()
        assert "#   calmkit compare --config out/config.yaml\n" in written
        assert cli.main(["compare", "--config", "out/config.yaml"]) == 0
        assert (tmp_path / "out" / "config.yaml").read_text() == written
        out = capsys.readouterr().out
        assert "BrierLM" in out and "out/: results.json" in out

    def test_a_head_in_the_current_folder_is_found(self, run, tmp_path):
        (tmp_path / "heads_of_mine.py").write_text(
            "from calmkit.heads import FlowHead\nclass MyHead(FlowHead): pass\n"
        )
        assert cli.main(["compare", *SMALL, "--heads.mine", "heads_of_mine.MyHead"]) == 0
        assert "mine" in run.calls[0][1][0].heads

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (["--heads.flow.init_args.detph", "3"], "FlowHead has no argument 'detph'"),
            (["--heads.flow", "FlowHed"], "did you mean: FlowHead"),
            (["--data", "nowhere.txt"], "nowhere.txt"),
            (["--data", "empty.txt"], "empty.txt"),
            (["--chunk_size", "100000"], "100000"),
            (["--vocab_size", "3"], "vocab_size must be at least 257"),
            (["--output", "empty.txt/out"], "output must be a folder that can be written"),
        ],
    )
    def test_a_mistake_is_told_before_any_work(self, run, tmp_path, capsys, options, text):
        (tmp_path / "empty.txt").write_text("")
        assert cli.main(["compare", *SMALL, *options]) == 2
        err = capsys.readouterr().err
        assert err.startswith("calmkit compare: ") and text in err
        assert "Traceback" not in err and len(err.splitlines()) < 12
        assert run.calls == []

    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (
                TrainingDiverged("loss is nan at step 7.", step=7, part="loss"),
                1,
                "calmkit compare: loss is nan",
            ),
            (CheckpointError("checkpoint x is damaged."), 2, "calmkit compare: checkpoint x"),
            (KeyboardInterrupt(), 130, "calmkit was interrupted by Ctrl-C"),
        ],
    )
    def test_what_can_happen_later_has_its_exit_code(self, run, capsys, error, code, text):
        def stop(*args, **kwargs):
            raise error

        run.compare = stop
        assert cli.main(["compare", *SMALL]) == code
        err = capsys.readouterr().err
        assert err.startswith(text) and len(err.splitlines()) == 1

    def test_a_bug_keeps_its_traceback(self, run):
        def stop(*args, **kwargs):
            raise ValueError("a bug")

        run.compare = stop
        with pytest.raises(ValueError, match="a bug"):
            cli.main(["compare", *SMALL])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cache):
    """An untrained small model."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--vocab_size", "300", "--hidden_size", "16", "--backbone.depth", "1",
               "--backbone.heads", "2", "--head.width", "16", "--cache_dir", f"{cache}/calmkit",
               "--positions", "20"]  # fmt: skip
    parsed = config.parse(config.TrainExperiment, options, preset="train", command="train")
    experiment = parsed.experiment
    corpus = prepare_corpus(None, vocab_size=300, cache_dir=experiment.cache_dir)
    model = config.assemble(experiment, experiment.head)
    save_checkpoint(folder, model=model, tokenizer=corpus.tokenizer, config_text=parsed.text)
    return folder


@pytest.fixture
def trained(checkpoint, tmp_path):
    """A copy of it, in `model`."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


class TestTrained:
    def test_train_hands_on_the_config_that_builds_the_model(self, run, tmp_path):
        assert cli.main(["train", "--head", "FlowHead", "--output", "out"]) == 0
        ((name, (experiment, _), kwargs),) = run.calls
        assert name == "train" and sorted(kwargs) == ["config_text", "display"]
        head = yaml.safe_load(kwargs["config_text"])["head"]
        assert head["class_path"] == "calmkit.heads.FlowHead"
        assert str(experiment.output) == "out"
        assert (tmp_path / "out" / "results.json").is_file()

    def test_generate_goes_on_from_the_prompt_and_repeats_itself(self, run, trained, capsys):
        options = ["generate", "--checkpoint", str(trained), "--prompt", "The value",
                   "--max_new_tokens", "9", "--samples", "2"]  # fmt: skip
        texts = []
        for seed in ("1", "1", "2"):
            assert cli.main([*options, "--seed", seed]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1] != texts[2]
        assert texts[0].startswith("The value") and texts[0].count("The value") == 2

    def test_evaluate_measures_the_saved_model(self, run, trained, capsys):
        assert cli.main(["evaluate", "--checkpoint", str(trained), "--draws", "3"]) == 0
        ((name, (experiment, checkpoint, corpus), _),) = run.calls
        assert name == "evaluate_checkpoint" and experiment.evaluation.draws == 3
        assert corpus.tokenizer.vocab_size == checkpoint.model.autoencoder.vocab_size == 300
        assert (trained / "evaluation" / "results.json").is_file()

    def test_evaluate_on_other_text_uses_the_tokenizer_of_the_model(self, run, trained, tmp_path):
        (tmp_path / "other.txt").write_text("Other text.\n\nIn two parts.\n" * 9)
        held_out = prepare_corpus(None, vocab_size=300).validation
        code = cli.main(["evaluate", "--checkpoint", str(trained), "--data", "other.txt"])
        assert code == 0
        corpus = run.calls[0][1][2]
        assert corpus.name == "other.txt"
        assert 0 < corpus.validation.num_tokens < held_out.num_tokens

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["generate"], "calmkit generate: missing: checkpoint."),
            (["generate", "--checkpoint", "nowhere"], "checkpoint nowhere must be a folder"),
            (["generate", "--chekpoint", "x"], "did you mean: checkpoint"),
            (["evaluate", "--checkpoint", "model", "--draws", "x"], "draws must be a whole"),
            (["generate", "--checkpoint", "model", "--max_new_tokens", "0"], "max_new_tokens"),
            (["evaluate", "--checkpoint", "model", "--data", "nowhere.txt"], "nowhere.txt"),
        ],
    )
    def test_mistakes(self, run, trained, capsys, arguments, text):
        assert cli.main(arguments) == 2
        err = capsys.readouterr().err
        assert text in err and "Traceback" not in err

    def test_a_text_that_has_changed_since_training_is_refused(self, run, trained, capsys):
        file = trained / "config.yaml"
        saved = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**saved, "seed": saved["seed"] + 1}))
        assert cli.main(["evaluate", "--checkpoint", str(trained)]) == 2
        assert "has changed since the model was trained" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["importing", "working"])
def test_ctrl_c_leaves_no_traceback(tmp_path, when):
    code = """
import sys, time, types
run = sys.modules["calmkit.comparison.run"] = types.ModuleType("run")
def compare(*args, **kwargs):
    print("working", flush=True)
    time.sleep(60)
run.compare = compare
from calmkit.cli import main
print("importing", flush=True)
sys.exit(main(["compare", "--config", "ci"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert any(line == f"{when}\n" for line in process.stdout)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted by Ctrl-C" in err and len(err.splitlines()) == 1
