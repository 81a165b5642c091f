import pytest
import yaml

from calmkit import cli
from calmkit.disk import WriteError
from calmkit.training import CheckpointError, TrainingDiverged

SMALL = ["--config", "ci"]


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
        (tmp_path / "heads_in_this_folder.py").write_text(
            "from calmkit.heads import FlowHead\nclass MyHead(FlowHead): pass\n"
        )
        variants = "{mine: {head: heads_in_this_folder.MyHead}}"
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
            (["--softmax", "true", "--training.steps", "2"], "Give energy more steps.\n"),
            (["--data", "nowhere.txt"], "nowhere.txt"),
            (["--data", "empty.txt"], "empty.txt"),
            (["--chunk_size", "100000"], "100000"),
            (["--vocab_size", "3"], "vocab_size must be at least 257"),
            (["--output", "empty.txt/out"], "output must be a folder that can be written"),
            (["--output", "model"], "output must not hold a saved model"),
        ],
    )
    def test_a_mistake_is_told_before_any_work(self, run, tmp_path, capsys, options, text):
        (tmp_path / "empty.txt").write_text("")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.safetensors").write_bytes(b"")
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
            (WriteError("x could not be written."), 1, "calmkit compare: x could not"),
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
