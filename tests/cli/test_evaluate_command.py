import pytest
import torch
import yaml

from calmkit import cli
from calmkit.data import prepare_corpus


def test_evaluate_measures_the_saved_model(run, trained, capsys):
    options = ["--draws", "3", "--diagnostics", "false"]
    assert cli.main(["evaluate", "--checkpoint", str(trained), *options]) == 0
    ((name, (checkpoint, plan), _),) = run.calls
    assert name == "evaluate_checkpoint" and plan.settings.draws == 3
    assert plan.tokenizer.vocab_size == checkpoint.model.autoencoder.vocab_size == 300
    assert plan.training_seed == 0 and plan.training_text is not None
    assert (trained / "evaluation" / "results.json").is_file()


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_is_evaluated(run, tmp_path):
    options = ["--draws", "3", "--diagnostics", "false"]
    assert cli.main(["evaluate", "--checkpoint", "owner/name", *options]) == 0
    ((_, (_, plan), _),) = run.calls
    assert plan.training_text is None and plan.settings.draws == 3
    file = tmp_path / "runs" / "name" / "evaluation" / "config.yaml"
    assert file.read_text(encoding="utf-8").startswith("# No config of a training:")


def test_evaluate_on_other_text_uses_the_tokenizer_of_the_model(run, trained, tmp_path):
    text = "Other text, long enough to be measured on. " * 9
    (tmp_path / "other.txt").write_text(f"{text}\n\n{text[::-1]}")
    held_out = prepare_corpus(None, vocab_size=300).validation
    options = ["--data", "other.txt"]
    code = cli.main(["evaluate", "--checkpoint", str(trained), *options])
    assert code == 0
    plan = run.calls[0][1][1]
    assert ", measured on other.txt (SHA-256 " in plan.text_name
    assert 0 < plan.text.num_tokens < held_out.num_tokens


def test_a_text_that_has_changed_since_training_is_refused(run, trained, capsys):
    file = trained / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**saved, "evaluation_seed": 1}))
    assert cli.main(["evaluate", "--checkpoint", str(trained)]) == 2
    assert "must be the text that the model was trained on" in capsys.readouterr().err


def test_a_model_of_another_machine_is_measured_on_this_one(run, trained, capsys):
    """Its config names a device that is not here; an option says otherwise."""
    file = trained / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    missing = "mps" if torch.cuda.is_available() else "cuda"
    file.write_text(yaml.safe_dump({**saved, "accelerator": missing}))
    options = ["evaluate", "--checkpoint", str(trained), "--diagnostics", "false"]
    assert cli.main(options) == 2
    err = capsys.readouterr().err
    assert f"accelerator must be a device of this machine; got '{missing}'" in err
    assert cli.main([*options, "--accelerator", "cpu"]) == 0
    ((_, (_, plan), _),) = run.calls
    assert plan.accelerator == "cpu" and "accelerator: cpu" in plan.config


def test_evaluate_without_a_config_takes_the_accelerator_too(run, bare, capsys):
    few = ["--rows", "4", "--draws", "2", "--diagnostics", "false"]
    assert cli.main(["evaluate", "--checkpoint", "bare", "--accelerator", "cpu", *few]) == 0
    plan = run.calls[0][1][1]
    assert plan.accelerator == "cpu" and plan.training_text is None
    missing = "mps" if torch.cuda.is_available() else "cuda"
    assert cli.main(["evaluate", "--checkpoint", "bare", "--accelerator", missing]) == 2
    assert "accelerator must be a device of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--draws", "x"], "draws must be a whole"),
        (["--data", "nowhere.txt"], "nowhere.txt"),
        (["--accelerator", "gpu"], "accelerator must be one of"),
    ],
)
def test_mistakes(run, trained, capsys, options, text):
    assert cli.main(["evaluate", "--checkpoint", "model", *options]) == 2
    err = capsys.readouterr().err
    assert text in err and "Traceback" not in err
