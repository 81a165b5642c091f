"""One model, trained or loaded, and measured."""

from calmkit.config import TrainExperiment
from calmkit.data import Corpus

from .hardware import describe_hardware
from .model_folder import Checkpoint, save_checkpoint
from .resuming import CHECKPOINTS, begin
from .run_progress import RunProgress
from .run_record import RunRecord, describe_model, metrics_of, train_model
from .stages import Lab

__all__ = ["evaluate_checkpoint", "train"]


def train(
    experiment: TrainExperiment, corpus: Corpus, *, config_text: str, display: RunProgress
) -> RunRecord:
    """Train one model, resuming what the output folder holds of it; save and measure it.

    Args:
        experiment: What to do.
        corpus: The prepared text.
        config_text: The effective config, saved with the model.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    begin(experiment.output, config_text, text=corpus.digest)
    checkpoints = experiment.output / CHECKPOINTS
    autoencoder = lab.train_autoencoder(checkpoints / "autoencoder")
    model, training = train_model(lab, "model", autoencoder, checkpoints / "model")
    display.note("measuring on held-out text ...")
    record = describe_model(
        model, lab.describe(model, training), describe_hardware(lab.fabric.device)
    )
    save_checkpoint(
        experiment.output,
        model=model,
        tokenizer=corpus.tokenizer,
        config_text=config_text,
        metrics=metrics_of(record.result),
        protocol=record.result.protocol,
    )
    return record


def evaluate_checkpoint(
    experiment: TrainExperiment,
    checkpoint: Checkpoint,
    corpus: Corpus,
    *,
    display: RunProgress,
) -> RunRecord:
    """Measure a saved model on the corpus's held-out text.

    Args:
        experiment: What it was trained by; its evaluation settings are used.
        checkpoint: The saved model.
        corpus: The prepared text.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    model = checkpoint.model.to(lab.fabric.device)
    return describe_model(model, lab.describe(model, None), describe_hardware(lab.fabric.device))
