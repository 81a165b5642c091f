"""What `calmkit train` says before its first step, and when memory runs out."""

import pytest
import torch

from calmkit import cli
from calmkit.experiments.trainer import Trainer
from calmkit.training import OutOfMemory, TrainingResult


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch, tmp_path, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def test_a_dry_run_shows_what_is_needed_and_writes_nothing(tmp_path, capsys):
    """calm-m is forecast on 2 devices without its weights, which would take 1.8 GB."""
    text = "\n\n".join(f"{n}: " + "The dogs bark at night. " * 50 for n in range(60))
    (tmp_path / "text.txt").write_text(text)
    small = ["--vocab_size", "270", "--evaluation.rows", "2", "--evaluation.min_context", "2",
             "--positions", "64", "--validation_fraction", "0.3", "--cache_dir", "kept",
             "--sample_tokens", "4"]  # fmt: skip
    given = ["train", "--config", "calm-m", "--data", "text.txt", *small, "--accelerator", "cpu",
             "--devices", "2", "--output", "out", "--dry_run", "true"]  # fmt: skip
    assert cli.main(given) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "steps 30,000 250,000" in lines
    (flops,) = [line.split() for line in lines if line.startswith("FLOPs")]
    assert float(flops[2]) > float(flops[1]) > 1e15
    assert "time: 2 devices, each at 40% of its peak" in " ".join(lines)
    assert any(line.startswith("gradients in transit") for line in lines)
    assert not (tmp_path / "out").exists()


def test_a_training_without_memory_says_what_to_change(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OutOfMemory("model")

    monkeypatch.setattr("calmkit.cli.train.train", fail)
    assert cli.main(["train", "--output", "out", "--training.micro_batch", "4"]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("calmkit train: memory must suffice for 0.")
    assert "set training.micro_batch to 2 (0." in line and "out/checkpoints are kept" in line
    # The first number is that of the table, in GB.
    lines = [" ".join(line.split()).split() for line in told.out.splitlines()]
    (memory,) = [words for words in lines if words[:1] == ["memory"]]
    forecast = float(line.partition("suffice for ")[2].split()[0])
    assert abs(1000 * forecast - float(memory[3])) < 1


def test_a_validation_without_memory_says_what_to_change(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OutOfMemory("model", during="validation")

    monkeypatch.setattr("calmkit.cli.train.train", fail)
    assert cli.main(["train", "--output", "out", "--validation_rows", "40"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "set validation_rows to 20" in line and "set training.micro_batch" not in line


def test_a_final_evaluation_without_memory_says_what_to_change(run, monkeypatch, capsys):
    def evaluate(experiment, corpus, *, display, **given):
        trainer = Trainer(experiment, corpus, display)
        trained = TrainingResult(1, 1.0, curve=(), validation=())
        trainer.measure(trainer.build(None), trained)

    monkeypatch.setattr("calmkit.cli.train.train", evaluate)
    monkeypatch.setattr("calmkit.experiments.trainer.measure", without_memory)
    assert cli.main(["train", "--output", "out", "--evaluation.draws", "6"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the evaluation of the model with evaluation.draws = 6, and an allocation" in line
    assert "set evaluation.draws to 3, or accelerator to cpu" in line
    assert "goes on from the checkpoints in out/checkpoints" in line


def test_an_evaluation_without_memory_is_told_in_one_line(trained, monkeypatch, capsys):
    monkeypatch.setattr("calmkit.experiments.evaluating.measure", without_memory)
    assert cli.main(["evaluate", "--checkpoint", "model"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("calmkit evaluate: memory must suffice for the evaluation of the model")


@pytest.mark.parametrize(
    ("failing", "command", "said"),
    [
        (
            "cli.evaluate.diagnose",
            "evaluate --rows 4 --draws 2",
            "the diagnosis of the model; an allocation failed.",
        ),
        ("cli.generate.write_texts", "generate --samples 2", "the generation of the text; an al"),
        ("cli.generate.stream_of_tokens", "generate", "an allocation failed. Lower candidates"),
    ],
)
def test_other_work_without_memory_is_told_in_one_line(
    trained, monkeypatch, capsys, failing, command, said
):
    monkeypatch.setattr(f"calmkit.{failing}", without_memory)
    command, *options = command.split()
    assert cli.main([command, "--checkpoint", "model", *options]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"calmkit {command}: memory must suffice for the ") and said in line


def without_memory(*args, **kwargs):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_finetuning_is_forecast_too(trained, tmp_path, capsys):
    pairs = [f'{{"prompt": "{word}", "response": "of"}}' for word in ("The value", "The sum")]
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs))
    given = ["train", "--checkpoint", "model", "--finetune", "pairs.jsonl", "--dry_run", "true"]
    assert cli.main(given) == 0
    assert "each device needs" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
