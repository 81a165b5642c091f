"""Train, evaluate and save one model."""

from calmkit.config import TrainExperiment
from calmkit.data import Corpus

from .named_weights import inputs_of
from .resuming import CHECKPOINTS, begin
from .run_progress import RunProgress
from .run_record import RunRecord
from .trained_weights import save_trained
from .trainer import Trainer

__all__ = ["train"]


def train(
    experiment: TrainExperiment, corpus: Corpus, *, config_text: str, display: RunProgress
) -> RunRecord:
    """Train one model, or resume the training in the output folder; evaluate and save it.

    Args:
        experiment: The experiment.
        corpus: The prepared text.
        config_text: The effective config, saved with the model.
        display: Receives the progress.
    """
    trainer = Trainer(experiment, corpus, display)
    begin(experiment.output, config_text, **inputs_of(experiment, corpus))
    checkpoints = experiment.output / CHECKPOINTS
    autoencoder = trainer.train_autoencoder(checkpoints / "autoencoder")
    model, training = trainer.train_model("model", autoencoder, checkpoints / "model")
    display.note("measuring on held-out text ...")
    record = trainer.measure(model, training)
    save_trained(
        experiment.output,
        training,
        model=model,
        tokenizer=corpus.tokenizer,
        config_text=config_text,
        metrics=record.metrics(),
        protocol=record.result.protocol,
    )
    return record
