"""One model, trained, saved and measured."""

from calmkit.config import TrainExperiment
from calmkit.data import Corpus

from .model_folder import save_checkpoint
from .resuming import CHECKPOINTS, begin
from .run_progress import RunProgress
from .run_record import RunRecord
from .trainer import Trainer

__all__ = ["train"]


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
    trainer = Trainer(experiment, corpus, display)
    begin(experiment.output, config_text, text=corpus.digest)
    checkpoints = experiment.output / CHECKPOINTS
    autoencoder = trainer.train_autoencoder(checkpoints / "autoencoder")
    model, training = trainer.train_model("model", autoencoder, checkpoints / "model")
    display.note("measuring on held-out text ...")
    record = trainer.measure(model, training)
    save_checkpoint(
        experiment.output,
        model=model,
        tokenizer=corpus.tokenizer,
        config_text=config_text,
        metrics=record.metrics(),
        protocol=record.result.protocol,
    )
    return record
