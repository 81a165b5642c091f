import pytest
import yaml

from calmkit import cli
from calmkit.data import prepare_corpus


def test_evaluate_measures_the_saved_model(run, trained, capsys):
    options = ["--draws", "3", "--diagnostics", "false"]
    assert cli.main(["evaluate", "--checkpoint", str(trained), *options]) == 0
    ((name, (experiment, checkpoint, corpus), _),) = run.calls
    assert name == "evaluate_checkpoint" and experiment.evaluation.draws == 3
    assert corpus.tokenizer.vocab_size == checkpoint.model.autoencoder.vocab_size == 300
    assert (trained / "evaluation" / "results.json").is_file()


def test_evaluate_on_other_text_uses_the_tokenizer_of_the_model(run, trained, tmp_path):
    text = "Other text, long enough to be measured on. " * 9
    (tmp_path / "other.txt").write_text(f"{text}\n\n{text[::-1]}")
    held_out = prepare_corpus(None, vocab_size=300).validation
    options = ["--data", "other.txt"]
    code = cli.main(["evaluate", "--checkpoint", str(trained), *options])
    assert code == 0
    corpus = run.calls[0][1][2]
    assert ", measured on other.txt (SHA-256 " in corpus.name
    assert 0 < corpus.validation.num_tokens < held_out.num_tokens


def test_a_text_that_has_changed_since_training_is_refused(run, trained, capsys):
    file = trained / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**saved, "evaluation_seed": 1}))
    assert cli.main(["evaluate", "--checkpoint", str(trained)]) == 2
    assert "has changed since the model was trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [(["--draws", "x"], "draws must be a whole"), (["--data", "nowhere.txt"], "nowhere.txt")],
)
def test_mistakes(run, trained, capsys, options, text):
    assert cli.main(["evaluate", "--checkpoint", "model", *options]) == 2
    err = capsys.readouterr().err
    assert text in err and "Traceback" not in err
