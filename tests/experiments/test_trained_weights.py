"""Averaged weights from training to the folder that is evaluated."""

import pytest
import torch
from safetensors.torch import load_file

import calmkit
from calmkit.experiments import evaluate_checkpoint, load_checkpoint, plan_evaluation

pytestmark = pytest.mark.usefixtures("float32")


def newest(folder):
    return max(folder.glob("step-*"))


def scores(folder):
    """What `calmkit evaluate` measures."""
    checkpoint = load_checkpoint(folder)
    plan = plan_evaluation(checkpoint, note=lambda text: None)
    return evaluate_checkpoint(checkpoint, plan).result


def test_both_weights_are_saved_each_in_a_folder_of_its_own(averaged):
    checkpoint = newest(averaged.folder / "checkpoints" / "model")
    last, means = (
        load_file(checkpoint / "model.safetensors"),
        load_file(checkpoint / "ema.safetensors"),
    )
    own = calmkit.load(averaged.folder).state_dict()
    in_ema = calmkit.load(averaged.folder / "ema").state_dict()
    assert own.keys() == in_ema.keys()
    for name, tensor in in_ema.items():
        torch.testing.assert_close(own[name], last[name], rtol=0, atol=0)
        want = means.get(name, last[name])  # the autoencoder is not trained
        torch.testing.assert_close(tensor, want, rtol=0, atol=0)
    assert any(not torch.equal(own[name], in_ema[name]) for name in means)


def test_the_model_is_trained_on_the_averaged_autoencoder(averaged):
    checkpoint = newest(averaged.folder / "checkpoints" / "autoencoder")
    means = load_file(checkpoint / "ema.safetensors")
    own = calmkit.load(averaged.folder).autoencoder.autoencoder
    for name, p in own.named_parameters():
        torch.testing.assert_close(p.detach(), means[name], rtol=0, atol=0)
    last = load_file(checkpoint / "model.safetensors")
    assert any(not torch.equal(last[name], means[name]) for name in means)


def test_scores_are_those_of_the_averaged_weights(averaged):
    want = averaged.record.result
    got, other = scores(averaged.folder / "ema"), scores(averaged.folder)
    assert got.energy_score == want.energy_score and got.brier == want.brier
    assert other.energy_score != want.energy_score
    assert want.protocol == f"{got.protocol}; averaged weights, decay 0.5"
    card = (averaged.folder / "ema" / "README.md").read_text()
    assert "| BrierLM |" in card and "averaged weights, decay 0.5" in card
    card = (averaged.folder / "README.md").read_text()
    assert "BrierLM" not in card and "ema/ holds the averaged weights" in card


def test_curves_are_those_of_the_averaged_weights(averaged):
    (log,) = (averaged.folder / "logs" / "model").rglob("metrics.csv")
    header, *lines = (line.split(",") for line in log.read_text().splitlines())
    assert {"validation/loss", "validation/ema_loss", "validation/ema_brier_1"} <= set(header)
    logged = [line[header.index("validation/ema_loss")] for line in lines]
    want = [float(value) for value in logged if value]
    assert [loss for _, loss in averaged.record.result.validation_losses] == want
    assert [step for step, _ in averaged.record.result.validation_brier] == [3, 6]
