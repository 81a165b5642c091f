"""The config of a fine-tuning, over that of the saved model."""

import pytest
import yaml
from train_configs import message, train


@pytest.fixture
def saved(tmp_path):
    """The config of a saved model, in the folder `base`."""
    options = ("--hidden_size", "64", "--head", "FlowHead", "--head.width", "48",
               "--optimizer", "torch.optim.SGD", "--optimizer.momentum", "0.5",
               "--data", "text.txt", "--seed", "3", "--output", "base")  # fmt: skip
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.yaml").write_text(train(*options).text)
    return tmp_path


class TestFinetune:
    def test_it_begins_with_the_config_of_the_saved_model(self, saved, monkeypatch):
        monkeypatch.chdir(saved)
        for option in (["--checkpoint", "base"], ["--checkpoint=base"]):
            values = yaml.safe_load(train(*option, "--finetune", "pairs.jsonl").text)
            base = yaml.safe_load((saved / "base" / "config.yaml").read_text())
            assert values.pop("finetune") == str(saved / "pairs.jsonl")
            assert values.pop("checkpoint") == str(saved / "base")
            assert values.pop("output") == "runs/finetune"
            assert values["training"]["steps"] == 200
            optimizer = values["optimizer"]["init_args"]
            assert (optimizer["lr"], optimizer["momentum"]) == (5e-4, 0.5)
            same = values.keys() - {"training", "optimizer"}
            assert {"data", "hidden_size", "backbone", "head", "seed"} <= same
            assert {key: values[key] for key in same} == {key: base[key] for key in same}

    def test_files_and_options_are_laid_over_it(self, saved):
        (saved / "my.yaml").write_text("training: {steps: 77}\nseed: 4\n")
        experiment = train(
            "--config", str(saved / "my.yaml"), "--checkpoint", str(saved / "base"),
            "--finetune", "pairs.jsonl", "--seed", "5",
        ).experiment  # fmt: skip
        assert (experiment.seed, experiment.training.steps) == (5, 77)
        assert experiment.hidden_size == 64

    def test_the_effective_config_needs_the_saved_one_no_more(self, saved):
        first = train("--checkpoint", str(saved / "base"), "--finetune", str(saved / "p.jsonl"))
        (saved / "base" / "config.yaml").unlink()
        (saved / "effective.yaml").write_text(first.text)
        assert train("--config", str(saved / "effective.yaml")).text == first.text

    def test_a_second_fine_tuning_does_not_repeat_the_first(self, saved):
        config = saved / "base" / "config.yaml"
        config.write_text(
            train("--checkpoint", str(saved / "base"), "--finetune", "first.jsonl").text
        )
        said = message("--checkpoint", str(saved / "base"))
        assert "finetune must be given with checkpoint" in said

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--finetune", "p.jsonl"], "checkpoint must be given with finetune"),
            (["--checkpoint", "base"], "finetune must be given with checkpoint"),
            (["--checkpoint", "nowhere", "--finetune", "p"],
             "checkpoint nowhere must be a folder written by `calmkit train`; there is none. All"),
            (["--checkpoint", ".", "--finetune", "p"],
             "checkpoint . must be a folder written by `calmkit train`; it has no config.yaml"),
            (["--checkpoint", "base", "--finetune", "p.jsonl", "--output", "base"],
             "output must be another folder than checkpoint, which is kept; got base"),
            (["--checkpoint", "base", "--finetune", "p.jsonl", "--output", "base/../base"],
             "output must be another folder"),
        ],
    )  # fmt: skip
    def test_mistakes(self, saved, monkeypatch, options, part):
        monkeypatch.chdir(saved)
        said = message(*options)
        assert part in said and len(said.splitlines()) < 12
