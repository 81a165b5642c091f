"""Train, evaluate and save one model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from calmkit.accounting import Forecast
from calmkit.cluster import end_exchange
from calmkit.config import TrainExperiment
from calmkit.data import Corpus

from .model_folder import save_checkpoint
from .resuming import CHECKPOINTS, begin
from .run_progress import RunProgress
from .run_record import RunRecord
from .trainer import Trainer
from .training_inputs import inputs_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["train"]


def train(
    experiment: TrainExperiment,
    corpus: Corpus,
    *,
    config_text: str,
    display: RunProgress,
    fabric: "Fabric | None" = None,
    forecasts: Mapping[str, Forecast] | None = None,
) -> RunRecord | None:
    """Train one model, or resume the training in the output folder; evaluate and save it.

    Args:
        experiment: The experiment.
        corpus: The prepared text.
        config_text: The effective config, saved with the model.
        display: Receives the progress.
        fabric: The devices, launched; one device if None.
        forecasts: The result of `forecast_training`, for the share of the devices' peak.

    Returns:
        The record of the model, in the first process. The others end with the training, and do not
        wait for the evaluation: None.
    """
    trainer = Trainer(experiment, corpus, display, fabric, forecasts)
    if trainer.fabric.is_global_zero:
        begin(experiment.output, config_text, **inputs_of(experiment, corpus))
    checkpoints = experiment.output / CHECKPOINTS
    autoencoder = trainer.train_autoencoder(checkpoints / "autoencoder")
    model, training = trainer.train_model("model", autoencoder, checkpoints / "model")
    end_exchange(trainer.fabric)
    if not trainer.fabric.is_global_zero:
        return None
    display.note("measuring on held-out text ...")
    record = trainer.measure(model, training)
    save_checkpoint(
        experiment.output,
        training=training,
        model=model,
        tokenizer=corpus.tokenizer,
        config_text=config_text,
        metrics=record.metrics(),
        protocol=record.result.protocol,
    )
    return record
