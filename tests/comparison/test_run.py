"""The whole chain at its smallest: what a comparison writes reproduces it."""

import dataclasses
import json
import math

import pytest
import torch

from calmkit.cli import main
from calmkit.comparison import read_results
from calmkit.comparison.checkpoint import load_checkpoint

SMALL = [
    "--config=ci", "--autoencoder_training.steps=20", "--training.steps=6",
    "--evaluation.rows=6", "--evaluation.bootstrap=20", "--validation_rows=4",
    "--training.validate_every=3",
]  # fmt: skip
HEADS = "{energy: EnergyHead, flow: FlowHead}"


@pytest.fixture(autouse=True)
def float32():
    """As users run it: the suite's float64 default would not fit checkpoints of float32."""
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_default_dtype(torch.float32)
    folder = tmp_path_factory.mktemp("runs") / "compare"
    options = ["compare", *SMALL, "--heads", HEADS, "--head.width=16", f"--output={folder}"]
    assert main(options) == 0
    torch.set_default_dtype(torch.float64)
    return folder


def without_times(result):
    timeless = {"training_seconds": 0.0, "microseconds_per_token": 0.0}
    heads = tuple(dataclasses.replace(head, **timeless) for head in result.heads)
    return dataclasses.replace(result, heads=heads)


def test_the_effective_config_gives_the_same_numbers(folder, tmp_path):
    again = tmp_path / "again"
    assert main(["compare", f"--config={folder / 'config.yaml'}", f"--output={again}"]) == 0
    first, second = (read_results(path / "results.json") for path in (folder, again))
    assert without_times(first) == without_times(second)


def test_another_seed_gives_other_numbers(folder, tmp_path):
    other = tmp_path / "other"
    config = f"--config={folder / 'config.yaml'}"
    assert main(["compare", config, "--seed=1", f"--output={other}"]) == 0
    first, second = (read_results(path / "results.json") for path in (folder, other))
    for a, b in zip(first.heads, second.heads, strict=True):
        assert a.energy_score.value != b.energy_score.value


def test_backbones_start_equal_and_heads_are_reported_apart(folder):
    result = read_results(folder / "results.json")
    energy, flow = result.heads
    assert (energy.evaluations_per_sample, flow.evaluations_per_sample) == (1, 20)
    assert energy.parameters != flow.parameters
    # The common part: input encoder (300 x 32, 64 -> 64 -> 32, norm) and a layer of width 32.
    encoder = 300 * 32 + (64 + 1) * 64 + (64 + 1) * 32 + 2 * 32
    backbone = 4 * 32**2 + 3 * 32 * 88 + 3 * 32
    assert result.shared_parameters == encoder + backbone
    for head in result.heads:
        assert [step for step, _ in head.validation_losses] == [3, 6]
        assert all(math.isfinite(loss) for _, loss in head.validation_losses)


@pytest.mark.parametrize("name", ["energy", "flow"])
def test_saved_models_measure_as_they_did(folder, name, tmp_path):
    out = tmp_path / "evaluation"
    saved = folder / "models" / name
    assert main(["evaluate", f"--checkpoint={saved}", f"--output={out}"]) == 0
    (again,) = read_results(out / "results.json").heads
    first = next(h for h in read_results(folder / "results.json").heads if h.name == name)
    assert (again.brier, again.energy_score) == (first.brier, first.energy_score)
    assert again.sample_text == first.sample_text
    assert type(load_checkpoint(saved).model.head).__name__.lower() == f"{name}head"


def test_generate_writes_the_same_text_for_the_same_seed(folder, capsys):
    options = ["generate", f"--checkpoint={folder / 'models' / 'energy'}", "--prompt=The value"]
    texts = []
    for seed in (3, 3, 4):
        assert main([*options, "--max_new_tokens=15", f"--seed={seed}"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("The value")


def test_train_goes_on_where_it_was_stopped(tmp_path, capsys):
    """Stopped in the middle of the head's training, by an exception as Ctrl-C raises it."""
    options = ["train", *SMALL[1:], "--positions=16", "--evaluation.min_context=4",
               "--hidden_size=32", "--head.width=16", "--vocab_size=300",
               "--autoencoder_training.warmup_steps=5", "--training.warmup_steps=2"]  # fmt: skip
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*options, f"--output={whole}"]) == 0

    from calmkit.comparison import lab

    ask = lab.model_objective
    calls = []

    def interrupted(module, batch, generator):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return ask(module, batch, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "model_objective", interrupted)
        assert main([*options, f"--output={stopped}"]) == 130
    assert not (stopped / "results.json").exists()
    assert main([*options, f"--output={stopped}"]) == 0
    first, second = ((path / "model.safetensors").read_bytes() for path in (whole, stopped))
    assert first == second
    assert without_times(read_results(whole / "results.json")) == without_times(
        read_results(stopped / "results.json")
    )
    assert json.loads((stopped / "results.json").read_text())["heads"][0]["training_seconds"] > 0

    # Another config must neither be taken for this one nor touch the saved model.
    config = (stopped / "config.yaml").read_bytes()
    for other in ("--head.num_samples=4", "--autoencoder.kl_weight=0.1", "--training.steps=7"):
        assert main([*options, other, f"--output={stopped}"]) == 2
        assert "must be as in" in capsys.readouterr().err
        assert (stopped / "config.yaml").read_bytes() == config
    assert main([*options, "--evaluation.draws=3", f"--output={stopped}"]) == 0
    assert (stopped / "model.safetensors").read_bytes() == first
