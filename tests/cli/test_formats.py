import dataclasses
import sys
from pathlib import Path

import yaml

import calmkit
from calmkit import cli
from calmkit.comparison import read_results
from calmkit.data import TextTokenizer
from calmkit.experiments.evaluating import evaluate_checkpoint
from calmkit.experiments.model_folder import load_checkpoint
from calmkit.models import CALM


class TestBothFormats:
    """Folders of `calmkit.save` and of the published code, with any command that reads them."""

    def test_convert_there_and_back_and_generate(self, run, bare, capsys):
        assert cli.main(["convert", "--checkpoint", "bare", "--output", "published"]) == 0
        assert capsys.readouterr().out == "published/: the published format\n"
        assert cli.main(["convert", "--checkpoint", "published", "--output", "again"]) == 0
        assert capsys.readouterr().out == "again/: calmkit's format\n"
        texts = []
        for folder in ("bare", "published", "again"):
            options = ["--prompt", "The value", "--max_new_tokens", "8", "--seed", "3"]
            assert cli.main(["generate", "--checkpoint", folder, *options]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1] == texts[2] and texts[0].startswith("The value")

    def test_evaluate_measures_both_alike(self, run, bare, capsys, monkeypatch):
        """Neither has a config: text and protocol are options. Files and table are the usual."""
        monkeypatch.setattr("calmkit.cli.evaluate.evaluate_checkpoint", evaluate_checkpoint)
        monkeypatch.setattr("calmkit.evaluation.sample_texts._CANDIDATES", 20)
        assert cli.main(["convert", "--checkpoint", "bare", "--output", "published"]) == 0
        small = ["--rows", "3", "--draws", "2", "--positions", "8", "--min_context", "4"]
        found = []
        for folder in ("bare", "published"):
            assert cli.main(["evaluate", "--checkpoint", folder, *small]) == 0
            out = capsys.readouterr().out
            assert "2 draws after 4 to 7 chunks" in out and "SHA-256" in out
            assert "The text that the model was trained on is unknown" in out
            assert "conditioning gap" in out and "diagnostics.json" in out
            output = Path(folder, "evaluation")
            (one,) = read_results(output / "results.json").variants[0].runs
            found.append(dataclasses.replace(one, microseconds_per_token=None))
            settings = yaml.safe_load((output / "config.yaml").read_text())
            assert settings["positions"] == 8 and settings["evaluation"]["rows"] == 3
        assert found[0] == found[1]
        assert (found[0].seed, found[0].steps, found[0].baselines) == (None, None, None)

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
