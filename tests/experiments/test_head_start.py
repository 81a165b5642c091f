"""Heads and wrappers of autoencoders are started on the training text, before the first step."""

import pytest
import torch

from calmkit.autoencoders import StandardizedAutoencoder
from calmkit.experiments import Silent, prepare
from calmkit.experiments.trainer import Trainer
from calmkit.heads import TiedMixtureHead
from calmkit.training import OutOfMemory

pytestmark = pytest.mark.usefixtures("float32")


def test_components_start_on_the_text(small, tmp_path, monkeypatch):
    options = ["--head=TiedMixtureHead", "--head.init_args.components=5", "--training.steps=1",
               "--training.warmup_steps=0", "--training.validate_every=0"]  # fmt: skip
    experiment = small.parsed(*options, output="tied").experiment
    trainer = Trainer(experiment, prepare(experiment), Silent())
    autoencoder = trainer.train_autoencoder(None)
    untrained = trainer.build(autoencoder).head
    (tmp_path / "step-by-step.txt").touch()  # no checkpoint
    model, _ = trainer.train_model("model", autoencoder, tmp_path)
    chunks = [trainer.batches(experiment.training)(step).tokens for step in range(16)]
    latents = autoencoder.encode(torch.cat(chunks)).mean.flatten(0, 1)
    # A step moves them by the learning rate.
    assert torch.cdist(model.head.mean, latents).min(dim=-1).values.max() < 0.01
    assert torch.cdist(untrained.mean, latents).min(dim=-1).values.min() > 0.1
    # Weights that are stored are loaded: nothing is started again.
    monkeypatch.setattr(TiedMixtureHead, "start_from", None)
    again, _ = trainer.train_model("model", autoencoder, tmp_path)
    assert torch.equal(again.head.mean, model.head.mean)


@pytest.mark.parametrize("stage", ["autoencoder", "model"])
def test_a_start_for_which_memory_does_not_suffice(stage, small, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    options = ["--head=TiedMixtureHead", "--training.steps=1"]
    experiment = small.parsed(*options, output="tied").experiment
    trainer = Trainer(experiment, prepare(experiment), Silent())
    with pytest.raises(OutOfMemory, match=f"must suffice for the training of {stage}"):
        if stage == "autoencoder":
            monkeypatch.setattr(StandardizedAutoencoder, "fit_rows", fails)
        autoencoder = trainer.train_autoencoder(None)
        monkeypatch.setattr(TiedMixtureHead, "start_from", fails)
        trainer.train_model("model", autoencoder, None)
