"""Presets, files and options, one over the other."""

import dataclasses

import yaml
from train_configs import message, train

from calmkit.config import TrainExperiment, check_parts, parse_comparison, parse_text, preset_names


class TestLayers:
    def test_the_presets(self):
        assert preset_names() == [
            "autoencoder", "base", "books", "books-gpu", "books-k4", "calm-l",
            "calm-m", "calm-s", "calm-xl", "chunk", "ci", "compare", "cpu",
            "finetune", "gpu", "heads", "input", "one-step", "regularisers", "rules",
            "samples", "temperature", "train", "transformer-l", "transformer-m",
            "transformer-s", "tuning",
        ]  # fmt: skip
        for parsed in (train(), train("--config", "gpu")):
            check_parts(parsed.experiment)

    def test_books_have_rows_of_one_length_at_every_size(self):
        for over in ([], ["books-k4"], ["books-gpu"], ["books-k4", "books-gpu"]):
            options = [word for name in ["books", *over] for word in ("--config", name)]
            experiment = train(*options).experiment
            check_parts(experiment)
            chunk, context = experiment.chunk_size, experiment.evaluation.min_context
            assert experiment.latent_size == 32 * chunk
            assert (experiment.positions * chunk, context * chunk) == (256, 64)

    def test_a_file_is_laid_over_the_preset_and_options_over_the_file(self, tmp_path):
        file = tmp_path / "my.yaml"
        file.write_text("seed: 5\npositions: 19\n")
        for options in (
            ["--config", str(file), "--seed", "7"],
            ["--seed=7", f"--config={file}"],
        ):
            experiment = train(*options).experiment
            assert (experiment.seed, experiment.positions) == (7, 19)
            assert experiment.vocab_size == train().experiment.vocab_size

    def test_a_file_goes_before_a_preset_of_the_same_name(self, tmp_path, monkeypatch):
        (tmp_path / "gpu").write_text("seed: 1234\n")
        monkeypatch.chdir(tmp_path)
        assert train("--config=gpu").experiment.seed == 1234

    def test_what_holds_beneath_comes_from_the_presets_themselves(self, tmp_path, monkeypatch):
        for name in ("base", "train", "compare"):
            (tmp_path / name).write_text("seed: 1234\n")
        monkeypatch.chdir(tmp_path)
        assert train().experiment.seed == 0
        compared = parse_comparison(["--config", "ci"]).variants
        assert {variant.experiment.seed for variant in compared} == {0}

    def test_the_effective_config_reproduces_itself(self, tmp_path):
        given = ("--config", "gpu", "--head.width", "48", "--optimizer", "torch.optim.SGD",
                 "--optimizer.lr", "0.25", "--data", "text.txt", "--input", "both",
                 "--sampler", "calmkit.sampling.BatchTemperature",
                 "--sampler.candidates", "12")  # fmt: skip
        first = train(*given)
        file = tmp_path / "config.yaml"
        file.write_text(first.text)
        plain = [f.name for f in dataclasses.fields(TrainExperiment) if not callable_field(f)]
        assert len(plain) > 10
        for again in (train("--config", str(file)), parse_text(first.text)):
            assert again.text == first.text
            for name in plain:
                assert getattr(again.experiment, name) == getattr(first.experiment, name), name

    def test_paths_do_not_depend_on_the_folder_of_a_second_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert train("--data", "text.txt").experiment.data == tmp_path / "text.txt"
        assert yaml.safe_load(train("--data", "a.txt").text)["data"] == str(tmp_path / "a.txt")

    def test_a_parse_leaves_nothing_for_the_next(self):
        """All are made with one parser."""
        before = train().text
        train("--head", "FlowHead", "--head.depth", "7", "--seed", "9", "--optimizer.lr", "0.5")
        message("--head", "FlowHead", "--head.depth", "0")
        assert train().text == before


def callable_field(field):
    return "Callable" in str(field.type)
