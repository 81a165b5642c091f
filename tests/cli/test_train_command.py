import shutil
from pathlib import Path

import pytest
import torch
import yaml

from calmkit import cli
from calmkit.cli.next_commands import next_commands


def test_train_hands_on_the_config_that_builds_the_model(run, tmp_path):
    assert cli.main(["train", "--head", "FlowHead", "--output", "out"]) == 0
    ((name, (experiment,), kwargs),) = run.calls
    assert name == "train"
    assert sorted(kwargs) == ["config_text", "corpus", "display", "fabric", "forecasts"]
    head = yaml.safe_load(kwargs["config_text"])["head"]
    assert head["class_path"] == "calmkit.heads.FlowHead"
    assert str(experiment.output) == "out"
    assert (tmp_path / "out" / "results.json").is_file()


def test_processes_compare_all_that_decides_the_numbers(run, monkeypatch):
    compared = {}

    def compare(fabric, inputs):
        assert run.calls == []
        compared.update(inputs)

    monkeypatch.setattr("calmkit.cli.train.check_agreement", compare)
    assert cli.main(["train", "--output", "out"]) == 0
    assert compared.keys() == {"text", "autoencoder", "config", "code", "PyTorch"}
    assert compared["config"] == run.calls[0][2]["config_text"]
    assert "calmkit.training" in compared["code"] and compared["PyTorch"] == torch.__version__


def test_a_folder_with_results_of_a_comparison_is_refused(run, tmp_path, capsys):
    assert cli.main(["compare", "--config", "ci", "--output", "out"]) == 0
    before = (tmp_path / "out" / "results.json").read_bytes()
    run.calls.clear()
    capsys.readouterr()
    assert cli.main(["train", "--output", "out"]) == 2
    assert "output must not hold the results of a comparison" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.json").read_bytes() == before and run.calls == []


def test_finetune_trains_the_saved_model_on_pairs(run, trained, tmp_path, capsys):
    """Without the text that the model was trained on."""
    config_file = trained / "config.yaml"
    saved = yaml.safe_load(config_file.read_text())
    config_file.write_text(yaml.safe_dump({**saved, "data": "/gone.txt"}))
    lines = ['{"prompt": "The value", "response": "of"}'] * 2
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, '{"prompt": "x", "response": "y"}']))
    options = ["train", "--checkpoint", "model", "--finetune", "pairs.jsonl",
               "--training.steps", "1", "--training.warmup_steps", "0"]  # fmt: skip
    before = (trained / "model.safetensors").read_bytes()
    assert cli.main(options) == 0
    out = capsys.readouterr().out
    assert "pairs.jsonl: " in out and "runs/finetune/: finetuning.json" in out
    assert out.splitlines()[-2:] == [
        'Next: calmkit generate --checkpoint runs/finetune --prompt "The"',
        "      calmkit evaluate --checkpoint runs/finetune",
    ]
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


def test_text_that_is_prepared_on_the_way_shows_its_progress(run, tmp_path, capsys):
    """At the first start alone: later ones find it in the cache."""
    text = "Line {0} tells of the {0} before it, in some words."
    lines = [f'{{"text": "{text.format(n)}"}}' for n in range(400)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    options = ["--data", "lines.jsonl", "--vocab_size", "280", "--cache_dir", "kept"]
    small = ["--positions", "8", "--evaluation.rows", "4", "--evaluation.min_context", "2"]
    for command in ("train", "compare"):
        of_compare = ["--config", "ci"] if command == "compare" else []
        given = [command, *of_compare, *options, *small]
        for shown in (True, False):
            code = cli.main([*given, "--output", f"{command}-{shown}"])
            told = capsys.readouterr()
            assert code == 0, told.err
            assert ("encoding, MB: 1/1, done" in told.out) == shown
            assert ("training the tokenizer ..." in told.out) == shown
        shutil.rmtree(tmp_path / "kept")


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        ({"head": {"class_path": "calmkit.heads.EnergyHead"}}, ""),
        ({"optimizer": {"class_path": "torch.optim.Adam"}}, ""),
        ({"head": {"class_path": "mine.Head"}, "backbone": {"class_path": "mine.sub.B"}},
         " --trust mine"),
        ({"head": {"class_path": "calmkit.heads.EnergyHead",
                   "init_args": {"rules": [{"class_path": "yours.Rule"}]}}}, " --trust yours"),
    ],
)  # fmt: skip
def test_the_next_commands_can_be_copied(parts, options):
    said = next_commands(Path("my runs/a"), yaml.safe_dump(parts))
    place = f"--checkpoint 'my runs/a'{options}"
    assert said.splitlines() == [
        f'Next: calmkit generate {place} --prompt "The"', f"      calmkit evaluate {place}",
    ]  # fmt: skip
