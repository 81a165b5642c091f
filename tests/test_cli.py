import gc
import json
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
from sample_results import variant

import calmkit
from calmkit import __version__, cli, config
from calmkit.cli import dispatch
from calmkit.comparison import ComparisonResult, plots
from calmkit.comparison.checkpoint import load_checkpoint, save_checkpoint
from calmkit.data import TextTokenizer, prepare_corpus
from calmkit.models import CALM
from calmkit.training import CheckpointError, TrainingDiverged

SMALL = ["--config", "ci"]


def result():
    """Any result at all: what it says is not looked at here."""
    return ComparisonResult(
        name="out", variants=(variant(),), seeds=(0,), budget="steps", corpus_name="text",
        corpus_digest="0" * 64, config="", hardware="none", versions={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Prepared text, shared by all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(monkeypatch, tmp_path, cache):
    """In place of the work itself: records its arguments and returns a result."""
    calls = []

    def record(command, name):
        def call(*args, **kwargs):
            calls.append((name, args, kwargs))
            return result()

        monkeypatch.setattr(f"calmkit.cli.{command}.{name}", call)

    record("compare", "compare")
    record("train", "train")
    record("evaluate", "evaluate_checkpoint")
    # See tests/comparison/test_run.py.
    monkeypatch.setattr("calmkit.cli.train.check_resumable", lambda output, config_text: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # Drawing takes a second; tests/comparison looks at the pictures.
    monkeypatch.setattr(plots, "draw_plots", lambda rows: [])
    return types.SimpleNamespace(calls=calls)


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
            "  allowed: compare, train, evaluate, generate, convert, account, report\n"
        )

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from calmkit.cli import main; main(['--help']); "
            "print(sorted({'torch', 'jsonargparse', 'rich', 'matplotlib'} & set(sys.modules)))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        assert out.splitlines()[-1] == "[]"

    def test_garbage_is_collected_again_after_the_imports(self, capsys):
        assert cli.main(["account", "--help"]) == 0
        assert gc.isenabled()

    def test_a_missing_extra_is_one_line(self, monkeypatch, capsys):
        monkeypatch.setattr(dispatch, "_NEEDED", ("jsonargparse", "not_installed_here"))
        assert cli.main(["compare"]) == 2
        err = capsys.readouterr().err
        assert err == "calmkit compare needs not_installed_here: pip install 'calmkit[cli]'\n"

    @pytest.mark.parametrize("command", dispatch._COMMANDS)
    def test_each_command_has_help(self, command, run, capsys):
        assert cli.main([command, "--help"]) == 0
        assert f"usage: calmkit {command}" in capsys.readouterr().out
        assert run.calls == []


class TestCompare:
    def test_writes_results_and_the_config_that_repeats_them(self, run, tmp_path, capsys):
        assert cli.main(["compare", *SMALL, "--seed", "3", "--output", "out"]) == 0
        ((name, (prepared, runs, _), _),) = run.calls
        assert name == "compare" and prepared.comparison.seeds == (3,)
        assert [(one.variant, one.seed) for one in runs] == [
            ("energy", 3), ("flow", 3), ("diffusion", 3),
        ]  # fmt: skip
        assert prepared.corpora["flow"].tokenizer.vocab_size == 300
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "config.yaml", "results.json", "results.csv", "summary.csv", "samples.txt",
            "report.html", "plots",
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
        variants = "{mine: {head: heads_of_mine.MyHead}}"
        assert cli.main(["compare", *SMALL, "--variants", variants]) == 0
        (mine,) = run.calls[0][1][0].comparison.variants
        assert type(mine.experiment.head(8, 4)).__name__ == "MyHead"

    def test_the_effective_config_is_printed(self, run, capsys):
        assert cli.main(["compare", *SMALL, "--seeds", "2", "--print_config"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["seeds"] == [0, 1] and next(iter(printed["variants"])) == "energy"
        assert run.calls == []

    def test_help_tells_the_keys_of_a_comparison(self, run, capsys):
        assert cli.main(["compare", "--help"]) == 0
        out = capsys.readouterr().out
        assert "budget " in out and "--hidden_size" in out

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            (["--variants.flow.head.detph", "3"], "FlowHead has no argument 'detph'"),
            (["--variants.flow.head", "FlowHed"], "did you mean: FlowHead"),
            (["--variants.flow.positions", "1000000"], "variant flow: positions * chunk_size"),
            (
                ["--budget", "flops", "--variants.flow.head.width", "999"],
                "variant flow: a budget of 30 steps of energy must be at least 25",
            ),
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
    def test_what_can_happen_later_has_its_exit_code(
        self, run, monkeypatch, capsys, error, code, text
    ):
        def stop(*args, **kwargs):
            raise error

        monkeypatch.setattr("calmkit.cli.compare.compare", stop)
        assert cli.main(["compare", *SMALL]) == code
        err = capsys.readouterr().err
        assert err.startswith(text) and len(err.splitlines()) == 1

    def test_a_bug_keeps_its_traceback(self, run, monkeypatch):
        def stop(*args, **kwargs):
            raise ValueError("a bug")

        monkeypatch.setattr("calmkit.cli.compare.compare", stop)
        with pytest.raises(ValueError, match="a bug"):
            cli.main(["compare", *SMALL])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cache):
    """An untrained small model."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["--vocab_size", "300", "--hidden_size", "16", "--backbone.depth", "1",
               "--backbone.heads", "2", "--head.width", "16", "--cache_dir", f"{cache}/calmkit",
               "--positions", "20"]  # fmt: skip
    parsed = config.parse(options, command="calmkit train")
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

    def test_one_text_appears_as_it_is_made(self, run, trained, capsys, monkeypatch):
        """The pieces together are the text of the same options with JSON."""
        options = ["generate", "--checkpoint", str(trained), "--prompt", "The value"]
        options += ["--max_new_tokens", "9", "--temperature", "0.5", "--candidates", "8"]
        pieces = []
        monkeypatch.setattr(
            "builtins.print", lambda *text, end="\n", flush=False: pieces.append((*text, end))
        )
        assert cli.main(options) == 0
        monkeypatch.undo()
        assert len(pieces) > 3
        assert cli.main([*options, "--json"]) == 0
        line = json.loads(capsys.readouterr().out)
        assert "".join("".join(piece) for piece in pieces) == f"The value{line['text']}\n"
        assert line["prompt"] == "The value" and line["finish_reason"] in ("stop", "length")
        assert line["draws"] == 8 * line["chunks"] and line["unsettled"] <= line["chunks"]

    def test_prompts_come_from_a_file(self, run, trained, tmp_path, capsys):
        (tmp_path / "few.txt").write_text("One\n\nTwo\n")
        (tmp_path / "few.jsonl").write_text('{"prompt": "One"}\n\n{"prompt": "Two", "id": 7}\n')
        texts = []
        for name in ("few.txt", "few.jsonl"):
            options = ["generate", "--checkpoint", str(trained), "--prompts", name, "--json"]
            options += ["--max_new_tokens", "4", "--exact", "--temperature", "0.9"]
            assert cli.main(options) == 0
            texts.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
        assert texts[0] == texts[1]
        assert [line["prompt"] for line in texts[0]] == ["One", "Two"]
        assert all(line["draws"] >= line["chunks"] for line in texts[0])

    def test_evaluate_measures_the_saved_model(self, run, trained, capsys):
        options = ["--draws", "3", "--diagnostics", "false"]
        assert cli.main(["evaluate", "--checkpoint", str(trained), *options]) == 0
        ((name, (experiment, checkpoint, corpus), _),) = run.calls
        assert name == "evaluate_checkpoint" and experiment.evaluation.draws == 3
        assert corpus.tokenizer.vocab_size == checkpoint.model.autoencoder.vocab_size == 300
        assert (trained / "evaluation" / "results.json").is_file()

    def test_evaluate_on_other_text_uses_the_tokenizer_of_the_model(self, run, trained, tmp_path):
        text = "Other text, long enough to be measured on. " * 9
        (tmp_path / "other.txt").write_text(f"{text}\n\n{text[::-1]}")
        held_out = prepare_corpus(None, vocab_size=300).validation
        options = ["--data", "other.txt"]
        code = cli.main(["evaluate", "--checkpoint", str(trained), *options])
        assert code == 0
        corpus = run.calls[0][1][2]
        assert ", measured on other.txt (SHA-256 " in corpus.name
        assert 0 < corpus.validation.num_tokens < held_out.num_tokens

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["generate"], "calmkit generate: missing: checkpoint."),
            (["generate", "--checkpoint", "nowhere"], "checkpoint nowhere must be a folder"),
            (["generate", "--chekpoint", "x"], "did you mean: checkpoint"),
            (["evaluate", "--checkpoint", "model", "--draws", "x"], "draws must be a whole"),
            (
                ["generate", "--checkpoint", "model", "--temperature", "2"],
                "temperature must be in",
            ),
            (["generate", "--checkpoint", "model", "--candidates", "0"], "candidates must be"),
            (["generate", "--checkpoint", "model", "--prompts", "no.txt"], "must be a text file"),
            (
                ["generate", "--checkpoint", "model", "--prompts", "a.txt", "--prompt", "b"],
                "exclude each other",
            ),
            (["generate", "--checkpoint", "model", "--prompts", "bad.jsonl"], "line 2, must be"),
            (["generate", "--checkpoint", "model", "--prompts", "empty.txt"], "has none"),
            (["generate", "--checkpoint", "model", "--max_new_tokens", "0"], "max_new_tokens"),
            (["evaluate", "--checkpoint", "model", "--data", "nowhere.txt"], "nowhere.txt"),
        ],
    )
    def test_mistakes(self, run, trained, tmp_path, capsys, arguments, text):
        (tmp_path / "bad.jsonl").write_text('{"prompt": "One"}\n{"promt": "Two"}\n')
        (tmp_path / "empty.txt").write_text("\n")
        assert cli.main(arguments) == 2
        err = capsys.readouterr().err
        assert text in err and "Traceback" not in err

    def test_finetune_trains_the_saved_model_on_pairs(self, run, trained, tmp_path, capsys):
        """Without the text that the model was trained on."""
        config_file = trained / "config.yaml"
        saved = yaml.safe_load(config_file.read_text())
        config_file.write_text(yaml.safe_dump({**saved, "data": "/gone.txt"}))
        lines = ['{"prompt": "The value", "response": "of"}'] * 2
        (tmp_path / "pairs.jsonl").write_text(
            "\n".join([*lines, '{"prompt": "x", "response": "y"}'])
        )
        options = ["train", "--checkpoint", "model", "--finetune", "pairs.jsonl",
                   "--training.steps", "1", "--training.warmup_steps", "0"]  # fmt: skip
        before = (trained / "model.safetensors").read_bytes()
        assert cli.main(options) == 0
        out = capsys.readouterr().out
        assert "pairs.jsonl: " in out and "runs/finetune/: finetuning.json" in out
        assert (trained / "model.safetensors").read_bytes() == before
        assert run.calls == []
        tuned = ["generate", "--checkpoint", "runs/finetune", "--prompt", "The value"]
        assert cli.main([*tuned, "--max_new_tokens", "3"]) == 0
        assert capsys.readouterr().out.startswith("The value")

        (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, '{"prompt": "x"}']))
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert cli.main([*options, "--output", "other"]) == 2
        err = capsys.readouterr().err
        assert "calmkit train: each line" in err and "pairs.jsonl:3 has ['prompt']" in err
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written

    def test_a_text_that_has_changed_since_training_is_refused(self, run, trained, capsys):
        file = trained / "config.yaml"
        saved = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump({**saved, "evaluation_seed": 1}))
        assert cli.main(["evaluate", "--checkpoint", str(trained)]) == 2
        assert "has changed since the model was trained" in capsys.readouterr().err


class TestBothFormats:
    """Folders of `calmkit.save` and of the published code, with any command that reads them."""

    @pytest.fixture
    def bare(self, trained):
        """A model that the published format can express, without the config of a run."""
        model = load_checkpoint(trained).model
        bare = CALM(
            autoencoder=model.autoencoder.autoencoder,
            input_encoder=model.input_encoder, backbone=model.backbone, head=model.head,
        )  # fmt: skip
        tokenizer = TextTokenizer.load(trained / "tokenizer.json")
        calmkit.save(bare, "bare", tokenizer=tokenizer)
        return bare

    def test_convert_there_and_back_and_generate(self, run, bare, capsys):
        assert cli.main(["convert", "--checkpoint", "bare", "--output", "published"]) == 0
        assert capsys.readouterr().out == "published/: the published format\n"
        Path("published/tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}'
        )
        assert cli.main(["convert", "--checkpoint", "published", "--output", "again"]) == 0
        assert capsys.readouterr().out == "again/: calmkit's format\n"
        texts = []
        for folder in ("bare", "published", "again"):
            options = ["--prompt", "The value", "--max_new_tokens", "8", "--seed", "3"]
            assert cli.main(["generate", "--checkpoint", folder, *options]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1] == texts[2] and texts[0].startswith("The value")

    def test_evaluate_measures_both_alike(self, run, bare, capsys):
        """Neither has a config: text and protocol are options."""
        assert cli.main(["convert", "--checkpoint", "bare", "--output", "published"]) == 0
        Path("published/tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"}'
        )
        small = ["--rows", "3", "--draws", "2", "--positions", "8", "--min_context", "4"]
        for folder in ("bare", "published"):
            options = ["--checkpoint", folder, *small, "--diagnostics", "false"]
            assert cli.main(["evaluate", *options]) == 0
            assert "2 draws after 4 to 7 chunks" in capsys.readouterr().out
        first, second = (
            Path(folder, "evaluation", "evaluation.json").read_text()
            for folder in ("bare", "published")
        )
        assert first == second and not run.calls

    def test_mistakes(self, run, trained, bare, capsys):
        for options, text in [
            (["convert", "--checkpoint", "nowhere", "--output", "x"], "checkpoint nowhere must"),
            (["convert", "--checkpoint", "bare", "--output", "model"], "must be new or empty"),
            (["evaluate", "--checkpoint", "bare", "--data", "no.txt"], "'no.txt' is missing"),
            (["evaluate", "--checkpoint", "bare", "--positions", "9"], "min_context must be bel"),
        ]:
            assert cli.main(options) == 2
            err = capsys.readouterr().err
            assert text in err and "Traceback" not in err
        assert not Path("x").exists()

    def test_code_from_outside_has_to_be_named(self, run, trained, tmp_path, capsys):
        """In the working folder, where commands find modules."""
        (tmp_path / "my_heads.py").write_text(
            "from calmkit.heads import EnergyHead\n"
            "class MyHead(EnergyHead):\n"
            "    def __init__(self, cond_size, latent_size):\n"
            "        super().__init__(cond_size, latent_size, width=16)\n"
        )
        sys.path.append(str(tmp_path))
        try:
            model = load_checkpoint(trained).model
            head = __import__("my_heads").MyHead(16, model.autoencoder.latent_size)
            mine = CALM(
                autoencoder=model.autoencoder, input_encoder=model.input_encoder,
                backbone=model.backbone, head=head,
            )  # fmt: skip
            tokenizer = TextTokenizer.load(trained / "tokenizer.json")
            calmkit.save(mine, "mine", tokenizer=tokenizer)
            generate = ["generate", "--checkpoint", "mine", "--max_new_tokens", "3"]
            assert cli.main(generate) == 2
            assert "on the command line --trust my_heads" in capsys.readouterr().err
            assert cli.main([*generate, "--trust", "others, my_heads"]) == 0
        finally:
            sys.path.remove(str(tmp_path))
            sys.modules.pop("my_heads", None)


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
